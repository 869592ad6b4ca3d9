package main

import (
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar"
)

// sidecarCommand is what the worker starts for each run. It is not for people.
func (a *app) sidecarCommand() *cobra.Command {
	var folder string
	cmd := &cobra.Command{Use: "sidecar", Short: "Hold the instances of one run", Hidden: true, Args: args(cobra.NoArgs)}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if folder == "" {
			return usage(errors.New("--folder is missing: the folder of the run"))
		}
		return sidecar.Main(cmd.Context(), sidecar.Config{
			Folder: runs.Folder(folder),
			Redis:  a.set["redis"],
			Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	}
	cmd.Flags().StringVar(&folder, "folder", "", "folder of the run")
	return cmd
}
