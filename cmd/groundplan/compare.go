package main

import (
	"fmt"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

func (a *app) compareCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "compare RUN [RUN…] RUN", Short: "Say whether a run's figures differ from those of others",
		Long: `Say whether the figures of the last run named differ from those of the runs before it: by how much, how sure that is
(Mann–Whitney U over instances, and over runs where there are three or more), and whether it is more than tolerated.
Runs of other pipelines, parameters or grounds can't be compared. Exits with 1 where a figure has regressed.`,
		Args: args(cobra.MinimumNArgs(2)), ValidArgsFunction: a.runArgument,
	}
	var alpha float64
	var tolerances []string
	var form *string
	cmd.Flags().Float64Var(&alpha, "alpha", 0.05, "how often a difference may be found where there is none")
	cmd.Flags().StringArrayVar(&tolerances, "tolerance", nil, "`FIGURE=SHARE` by which a figure may be worse, like 'lookup_seconds.p95=10%' or '*.p99=20%' (default: that of the pipeline, or *.p50=5%)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if alpha <= 0 || alpha > 0.5 {
			return usage(fmt.Errorf("--alpha %g: choose one above 0 and up to 0.5", alpha))
		}
		options := comparison.Options{Alpha: alpha, Tolerance: map[string]pipelines.Share{}}
		for _, text := range tolerances {
			figure, share, found := strings.Cut(text, "=")
			value, err := pipelines.ParseShare(share)
			if !found || err != nil || !strings.Contains(figure, ".") {
				return usage(fmt.Errorf("--tolerance %s: write <metric>.<statistic>=<share>, like lookup_seconds.p95=10%%", text))
			}
			options.Tolerance[figure] = value
		}
		return a.compare(args, options, *form)
	}
	form = output(cmd, "text", "json")
	return cmd
}

// compare holds the last of the runs against the others.
func (a *app) compare(prefixes []string, o comparison.Options, form string) error {
	var folders []runs.Folder
	var records []runs.Record
	for _, prefix := range prefixes {
		_, folder, err := a.local(prefix)
		if err != nil {
			return err
		}
		record, err := folder.ReadRecord()
		if err != nil {
			return err
		}
		folders, records = append(folders, folder), append(records, record)
	}
	last := len(records) - 1
	loaded := make([]comparison.Run, len(records))
	for i, record := range records {
		if why := comparison.Hindrance(record, records[last]); why != "" {
			return usage(fmt.Errorf("these runs can't be compared: %s", why))
		}
		var err error
		if loaded[i], err = comparison.Load(folders[i], record.ID, record.Metrics); err != nil {
			return err
		}
	}
	if len(o.Tolerance) == 0 {
		o.Tolerance = a.tolerances(folders[last])
	}
	outcome := comparison.Outcome{Run: records[last].ID, Alpha: o.Alpha, Findings: comparison.Compare(loaded[:last], loaded[last], o)}
	for _, r := range loaded[:last] {
		outcome.With = append(outcome.With, r.ID)
	}
	return a.showComparison(outcome, form)
}

// tolerances are those that the run's own pipeline names.
func (a *app) tolerances(folder runs.Folder) map[string]pipelines.Share {
	found := map[string]pipelines.Share{}
	pipeline, err := folder.ReadPipeline()
	if err != nil {
		return nil // the defaults will do
	}
	for _, s := range pipeline.Stages {
		if s.Collect != nil && s.Collect.Compare != nil {
			maps.Copy(found, s.Collect.Compare.Tolerance)
		}
	}
	return found
}

func (a *app) showComparison(o comparison.Outcome, form string) error {
	worse := len(o.Regressed())
	if form == "json" {
		if err := a.json(o); err != nil {
			return err
		}
	} else {
		if len(o.Findings) == 0 {
			return usage(fmt.Errorf("%s and %s have none of the figures in common that are to be compared", strings.Join(o.With, ", "), o.Run))
		}
		verdict := "nothing has regressed"
		if worse > 0 {
			verdict = fmt.Sprintf("%d of %d figures regressed", worse, len(o.Findings))
		}
		text := fmt.Sprintf("%s against %s, Mann–Whitney U at alpha %g: %s\n\n%s", o.Run, strings.Join(o.With, ", "), o.Alpha, verdict, report.Comparison(a.out, o))
		if _, err := fmt.Fprint(a.out, text); err != nil {
			return err
		}
	}
	if worse > 0 {
		return &exitError{errSaid, exitFailed}
	}
	return nil
}
