//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/internal/cluster/layout"
)

func scaleCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "scale", Short: "Make a cluster of fake nodes, on which pods run as soon as they are placed", Args: cobra.NoArgs,
		Long: "Make a cluster with a real control plane whose nodes exist in the API only: kwok plays them and their pods.\n" +
			"Pods need a toleration of the taint " + fakeTaint + "=fake:NoSchedule.",
	}
	nodes := cmd.Flags().Int("nodes", 100, "how many fake nodes it has")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		// Of its own unless named: a cluster of real nodes is worth more than a default.
		if !cmd.Flags().Changed("name") {
			*name = "scale"
		}
		return up(cmd.Context(), layout.Cluster{Name: *name, Fake: *nodes})
	}
	return cmd
}

// fakeTaint keeps off fake nodes what doesn't know them; as an annotation it says that kwok plays a node.
const fakeTaint = "kwok.x-k8s.io/node"

// startFakes makes the fake nodes, and waits until kwok has them all ready.
func (c *cluster) startFakes(ctx context.Context, controlled <-chan struct{}) error {
	select {
	case <-controlled:
	case <-ctx.Done():
		return nil // whoever ended it says why
	}
	a, err := c.api()
	if err != nil {
		return err
	}
	there, err := a.nodes(ctx)
	if err != nil {
		return err
	}
	g, making := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range c.Fake {
		if _, exists := there[layout.FakeNode(i)]; !exists {
			g.Go(func() error { return a.makeFake(making, layout.FakeNode(i)) })
		}
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("making fake nodes: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.wait(ctx, layout.Kwok, func() error {
		nodes, err := a.nodes(ctx)
		if err != nil {
			return err
		}
		ready := 0
		for _, n := range nodes {
			if is, _ := n.ready(); is {
				ready++
			}
		}
		if ready < c.Fake {
			return fmt.Errorf("%d of %d fake nodes are ready", ready, c.Fake)
		}
		return nil
	})
}

func (a *api) makeFake(ctx context.Context, name string) error {
	room := map[string]string{"cpu": "1000", "memory": "4Ti", "pods": strconv.Itoa(layout.FakePods)}
	status, err := a.call(ctx, http.MethodPost, "/api/v1/nodes", map[string]any{
		"apiVersion": "v1",
		"kind":       "Node",
		"metadata": map[string]any{
			"name": name,
			// The second one spares an update of each node for each controller that wonders how old it may be.
			"annotations": map[string]string{fakeTaint: "fake", "node.alpha.kubernetes.io/ttl": "0"},
			"labels":      map[string]string{"type": "kwok", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
		},
		"spec":   map[string]any{"taints": []map[string]string{{"key": fakeTaint, "value": "fake", "effect": "NoSchedule"}}},
		"status": map[string]any{"allocatable": room, "capacity": room},
	}, nil)
	if status == http.StatusConflict {
		return nil // somebody was faster
	}
	return err
}
