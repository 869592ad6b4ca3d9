//go:build linux

// Command cluster makes a real Kubernetes cluster on this machine, for development and for tests: a control plane and
// three nodes in namespaces of their own, built from Go modules and Debian packages. See docs/cluster-development.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	// What follows isn't a command for people: it becomes another program, on another machine of the cluster.
	if len(os.Args) > 1 && os.Args[1] == enterCommand {
		fmt.Fprintln(os.Stderr, "cluster:", enter(os.Args[2:]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := commands().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func commands() *cobra.Command {
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A real Kubernetes cluster on this machine, for development and tests",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	name := root.PersistentFlags().String("name", "dev", "the cluster's name: two of different names don't see each other")
	root.AddCommand(
		upCommand(name), scaleCommand(name), downCommand(name), environmentCommand(name), statusCommand(name),
		loadCommand(name), killCommand(name), startCommand(name), registryCommand(),
	)
	return root
}

// withCluster has f work with a cluster that is there, while nobody else changes it.
func withCluster(name string, f func(c *cluster) error) error {
	base, err := openBase()
	if err != nil {
		return err
	}
	release, err := base.lock(name)
	if err != nil {
		return err
	}
	defer release()
	c, err := base.load(name)
	if err != nil {
		return err
	}
	return f(c)
}
