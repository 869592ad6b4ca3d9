package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/worker"
)

func (a *app) workerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "worker", Short: "Carry runs out for an external Temporal",
		Long: "Carry runs out until Ctrl-C: for the Temporal that --temporal names, or for this home's embedded one. A worker that\n" +
			"ends hands over what it carries; instances go on.",
		Args: args(cobra.NoArgs),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := a.config()
		if err != nil {
			return err
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		if config.Temporal != "" {
			a.tell("Carrying runs out for Temporal at %s, namespace %s. Ctrl-C stops.", config.Temporal, config.Namespace)
		}
		if err := worker.Serve(ctx, config); err != nil {
			return fmt.Errorf("serving: %w", err)
		}
		return nil
	}
	return cmd
}
