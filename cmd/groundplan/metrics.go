package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
)

func (a *app) metricsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "metrics RUN", Short: "Show what a run measured",
		Long: "Show what a run measured, each metric in its own unit: over all instances, and per group.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.runArgument,
	}
	var form *string
	cmd.RunE = func(_ *cobra.Command, args []string) error { return a.metrics(args[0], *form) }
	form = output(cmd, "text", "json")
	return cmd
}

// metricsDocument is the answer as JSON.
type metricsDocument struct {
	Run     string `json:"run"`
	Metrics any    `json:"metrics"`
	Groups  any    `json:"groups"`
}

func (a *app) metrics(prefix, form string) error {
	_, folder, err := a.local(prefix)
	if err != nil {
		return err
	}
	rec, err := folder.ReadRecord()
	if err != nil {
		return err
	}
	if form == "json" {
		return a.json(metricsDocument{Run: rec.ID, Metrics: rec.Metrics, Groups: rec.Groups})
	}
	text := report.Groups(a.out, rec.Groups)
	switch {
	case len(rec.Metrics) > 0:
		text = report.Metrics(a.out, rec.Metrics) + "\n" + text
	case rec.Status != stage.StatusEnded:
		a.tell("The run has not ended: its metrics are computed by its collect stage.")
	default:
		a.tell("The run has no metrics: no collect stage came to it, or its instances recorded none.")
	}
	_, err = fmt.Fprint(a.out, text)
	return err
}
