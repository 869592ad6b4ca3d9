package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar"
	"github.com/groundplan/groundplan/sidecar/launch"
)

// sidecarCommand is what the worker starts for each run. It is not for people. It reads the URL of the Redis to use from
// stdin, since it may hold a password; nothing there means one of its own.
func (a *app) sidecarCommand() *cobra.Command {
	var folder string
	var seed uint64
	cmd := &cobra.Command{Use: "sidecar", Short: "Hold the instances of one run", Hidden: true, Args: args(cobra.NoArgs)}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if folder == "" {
			return usage(errors.New("--folder is missing: the folder of the run"))
		}
		redis, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), launch.MaxInput))
		if err != nil {
			return fmt.Errorf("reading the address of Redis from stdin: %w", err)
		}
		return sidecar.Main(cmd.Context(), sidecar.Config{
			Folder: runs.Folder(folder),
			Seed:   seed,
			Redis:  strings.TrimSpace(string(redis)),
			Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	}
	cmd.Flags().StringVar(&folder, "folder", "", "folder of the run")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "seed of the run")
	return cmd
}
