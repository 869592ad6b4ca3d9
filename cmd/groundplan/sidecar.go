package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/node"
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
			Log:    sidecarLog(),
		})
	}
	cmd.Flags().StringVar(&folder, "folder", "", "folder of the run")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "seed of the run")
	cmd.AddCommand(a.sidecarNodeCommand(), a.sidecarRunCommand(), a.sidecarCheckCommand())
	return cmd
}

func sidecarLog() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

// leavesWithin is how long the sidecar of a run may take to end once its agent has.
const leavesWithin = 4 * time.Second

// sidecarRunCommand is what a node's agent starts for each run. It ends when the agent does, and the next one goes on.
func (a *app) sidecarRunCommand() *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "Hold the instances of one run that are on this node", Hidden: true, Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, told, err := node.Attend(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			// Whatever holds it up: the run's next sidecar waits for it.
			context.AfterFunc(ctx, func() { time.AfterFunc(leavesWithin, func() { os.Exit(1) }) })
			return sidecar.Main(ctx, sidecar.Config{
				Folder: runs.Folder(told.Folder), Seed: told.Seed, Redis: told.Redis, IdleLimit: told.IdleLimit, Log: sidecarLog(),
				Node: &sidecar.Node{Name: told.Node, Address: told.Address, Kubelet: told.Kubelet},
			})
		},
	}
}
