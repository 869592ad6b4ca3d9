package main

import (
	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/pipelines"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of pipelines",
		Long: "Print the JSON Schema (draft-07) of pipelines, for editors: put\n" +
			"  # yaml-language-server: $schema=PATH\nat the top of a pipeline.",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(pipelines.JSONSchema())
			return err
		},
	}
}
