package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/explain"
	"github.com/groundplan/groundplan/pipelines"
)

func (a *app) explainCommand() *cobra.Command {
	var from source
	cmd := &cobra.Command{
		Use:   "explain FILE",
		Short: "Show what a pipeline will do and need",
		Long: "Show what a pipeline will do: its stages and what they need of one another, who takes part, the network, when\n" +
			"events happen, and what the machine must have. Nothing is started. --output json gives the resolved pipeline.",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: pipelineFile,
	}
	var form *string
	cmd.RunE = func(_ *cobra.Command, files []string) error {
		doc, err := from.load(files[0])
		if err != nil {
			return err
		}
		a.tellLost(from.lost)
		return a.explain(doc, *form)
	}
	form = output(cmd, "text", "json")
	from.flags(cmd.Flags())
	return cmd
}

func (a *app) explain(doc *pipelines.Document, form string) error {
	r, cells, err := resolved(doc)
	if err != nil {
		return err
	}
	if form == "json" {
		return a.json(r)
	}
	_, err = fmt.Fprint(a.out, explain.Text(a.out, r, cells, doc.MaxParallel()))
	return err
}
