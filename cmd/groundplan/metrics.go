package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/export"
	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

type metricsOptions struct {
	groups  []string
	metrics []string
	form    *string
}

func (a *app) metricsCommand() *cobra.Command {
	var o metricsOptions
	cmd := &cobra.Command{
		Use: "metrics RUN", Short: "Show what a run measured",
		Long: "Show what a run measured, each metric in its own unit: over all instances, per group, and before, during and after\n" +
			"events. The names are those that `assert` uses. csv has a row per metric, group, stage and phase; parquet a row per\n" +
			"measured value; prometheus and otlp are what other programs take.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.runArgument,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.metrics(cmd.Context(), args[0], o) }
	o.form = output(cmd, "text", "json", "csv", "parquet", "prometheus", "otlp")
	cmd.Flags().StringSliceVar(&o.groups, "group", nil, "only of these groups")
	cmd.Flags().StringSliceVar(&o.metrics, "metric", nil, "only these metrics; * stands for any part of a name")
	return cmd
}

// metricsDocument is the answer as JSON.
type metricsDocument struct {
	Run     string `json:"run"`
	Metrics any    `json:"metrics"`
	Groups  any    `json:"groups"`
}

func (a *app) metrics(ctx context.Context, prefix string, o metricsOptions) error {
	for _, pattern := range o.metrics {
		if _, err := path.Match(pattern, ""); err != nil {
			return usage(fmt.Errorf("--metric %s: not a pattern", pattern))
		}
	}
	_, folder, err := a.local(prefix)
	if err != nil {
		return err
	}
	rec, err := folder.ReadRecord()
	if err != nil {
		return err
	}
	for _, group := range o.groups {
		if _, known := rec.Groups[group]; !known {
			return usage(fmt.Errorf("--group %s: the run has %s", group, strings.Join(slices.Sorted(maps.Keys(rec.Groups)), ", ")))
		}
	}
	if *o.form != "text" && *o.form != "json" {
		ctx, stop := interruptible(ctx)
		defer stop()
		return a.exportMetrics(ctx, folder, rec, o)
	}
	rec.Metrics, rec.Groups = o.selected(rec, report.EventsOf(folder))
	if *o.form == "json" {
		return a.json(metricsDocument{Run: rec.ID, Metrics: rec.Metrics, Groups: rec.Groups})
	}
	text := report.Groups(a.out, rec.Groups)
	switch {
	case len(rec.Metrics) > 0:
		text = report.Metrics(a.out, rec.Metrics, report.Parts(rec, report.EventsOf(folder))) + "\n" + text
	case len(o.metrics) > 0 || len(o.groups) > 0:
		a.tell("The run has no such metrics.")
	case rec.Status != stage.StatusEnded:
		a.tell("The run has not ended: its metrics are computed by its collect stage.")
	default:
		a.tell("The run has no metrics: no collect stage came to it, or its instances recorded none.")
	}
	_, err = fmt.Fprint(a.out, text)
	return err
}

// wants says whether a metric was asked for.
func (o metricsOptions) wants(metric string) bool {
	return len(o.metrics) == 0 || slices.ContainsFunc(o.metrics, func(pattern string) bool {
		matches, _ := path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(metric, "/", "\x00"))
		return matches
	})
}

// selected are the metrics and groups of a record that were asked for.
func (o metricsOptions) selected(rec runs.Record, events []string) (map[string]pipelines.Summary, map[string]runs.Group) {
	if len(o.groups) == 0 && len(o.metrics) == 0 {
		return rec.Metrics, rec.Groups
	}
	parts := report.Parts(rec, events)
	found, groups := map[string]pipelines.Summary{}, map[string]runs.Group{}
	for name, summary := range rec.Metrics {
		p := parts(name)
		if o.wants(p.Metric) && (len(o.groups) == 0 || slices.Contains(o.groups, p.Group)) {
			found[name] = summary
		}
	}
	for name, group := range rec.Groups {
		if len(o.groups) == 0 || slices.Contains(o.groups, name) {
			groups[name] = group
		}
	}
	return found, groups
}

// exportMetrics writes what other programs take to stdout.
func (a *app) exportMetrics(ctx context.Context, folder runs.Folder, rec runs.Record, o metricsOptions) error {
	if rec.Status != stage.StatusEnded {
		return fmt.Errorf("run %s has not ended: its metrics can be exported when it has", rec.ID)
	}
	if *o.form == "parquet" && isTerminal(a.stdout) {
		return usage(errors.New("--output parquet: not text: send it to a file (> metrics.parquet)"))
	}
	run, files, err := activities.Exported(ctx, folder, rec)
	if err != nil {
		return fmt.Errorf("reading what run %s measured: %w", rec.ID, err)
	}
	if files == 0 {
		a.tell("The run has no metrics: its instances recorded none, or their outputs are not here.")
	}
	run.Only = o.wants
	run.Series = slices.DeleteFunc(run.Series, func(s metrics.Series) bool {
		return !o.wants(s.Metric) || len(o.groups) > 0 && !slices.Contains(o.groups, s.Group)
	})
	if len(o.groups) > 0 {
		run.Groups = slices.DeleteFunc(run.Groups, func(g pipelines.Group) bool { return !slices.Contains(o.groups, g.Name) })
	}
	write := map[string]func(io.Writer, export.Run) error{
		"csv": export.CSV, "prometheus": export.Prometheus, "otlp": export.OTLP,
		"parquet": func(w io.Writer, run export.Run) error { return export.Parquet(ctx, w, run) },
	}[*o.form]
	if err := write(a.stdout, run); err != nil {
		return fmt.Errorf("writing the metrics of run %s: %w", rec.ID, err)
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
