//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/internal/cluster/layout"
	"github.com/groundplan/groundplan/internal/cluster/registry"
)

func upCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{Use: "up", Short: "Make the cluster, or bring back what is missing of it", Args: cobra.NoArgs}
	nodes := cmd.Flags().Int("nodes", 3, "how many nodes it has")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return up(cmd.Context(), layout.Cluster{Name: *name, Nodes: *nodes})
	}
	return cmd
}

// up brings a cluster to where it should be, from wherever it is.
func up(ctx context.Context, want layout.Cluster) error {
	if os.Geteuid() != 0 {
		return errors.New("it takes root: a cluster has network namespaces, mounts and control groups of its own")
	}
	if want.Nodes < 0 || want.Nodes > layout.MaxNodes || want.Fake < 0 || want.Fake > layout.MaxFake || want.Nodes+want.Fake == 0 {
		return fmt.Errorf("a cluster has up to %d nodes, or up to %d fake ones, and at least one", layout.MaxNodes, layout.MaxFake)
	}
	base, err := openBase()
	if err != nil {
		return err
	}
	release, err := base.lock(want.Name)
	if err != nil {
		return err
	}
	defer release()
	c, err := base.ensure(ctx, want)
	if err != nil {
		return err
	}
	if err := c.converge(ctx); err != nil {
		return fmt.Errorf("%w\nWhat there is of it stays: `up` goes on with it, `down` removes it", err)
	}
	c.say("the cluster %s is up: %s", c.Name, c.summary())
	fmt.Fprintf(os.Stderr, "for its addresses: eval \"$(go run ./internal/cluster env --name %s)\"\n", c.Name)
	return nil
}

func (c *cluster) summary() string {
	if c.Fake > 0 {
		return fmt.Sprintf("%d fake nodes, which take %d pods each", c.Fake, layout.FakePods)
	}
	return fmt.Sprintf("%d nodes, which take %d pods each", c.Nodes, layout.MaxPods)
}

// ensure returns a cluster whose machines and network stand: the one that is there, or a new one.
func (b base) ensure(ctx context.Context, want layout.Cluster) (*cluster, error) {
	c, err := b.load(want.Name)
	if err == nil && c.stands() {
		if c.Nodes != want.Nodes || c.Fake != want.Fake {
			return nil, fmt.Errorf("the cluster %s is there with %s: take it down first, or take another --name", c.Name, c.summary())
		}
		return c, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fresh := &cluster{Cluster: want, folder: b.folder(want.Name), began: time.Now()}
	if err == nil {
		fresh.say("only parts of the cluster %s are here: clearing them away", want.Name)
	}
	if err := fresh.clear(); err != nil {
		return nil, err
	}
	if err := installPackages(ctx, fresh.say); err != nil {
		return nil, err
	}
	if err := fresh.prepare(); err != nil {
		return nil, fmt.Errorf("preparing the cluster's folder: %w", err)
	}
	if err := fresh.build(ctx); err != nil {
		return nil, err
	}
	fresh.say("programs are there")
	if err := fresh.make(); err != nil {
		return nil, err
	}
	fresh.say("machines, network and certificates are there")
	return fresh, nil
}

// converge starts what doesn't run, and waits until all of it is ready.
func (c *cluster) converge(ctx context.Context) error {
	first, second := c.ControlPlaneServers(c.Places)
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range first {
		if s.Name != layout.APIServer && s.Name != layout.Registry {
			g.Go(func() error { return c.start(ctx, s) })
		}
	}
	controlled := make(chan struct{})
	g.Go(func() error {
		if err := c.startControllers(ctx, first, second); err != nil {
			return err
		}
		close(controlled)
		return nil
	})
	g.Go(func() error { return c.startRegistry(ctx, first) })
	for _, m := range c.Machines() {
		g.Go(func() error { return c.startNode(ctx, m, controlled) })
	}
	if c.Fake > 0 {
		g.Go(func() error { return c.startFakes(ctx, controlled) })
	}
	return g.Wait()
}

func (c *cluster) startControllers(ctx context.Context, first, second []layout.Server) error {
	for _, s := range first {
		if s.Name != layout.APIServer {
			continue
		}
		if err := c.start(ctx, s); err != nil {
			return err
		}
	}
	c.say("the API server is ready")
	for _, s := range second {
		if err := c.start(ctx, s); err != nil {
			return err
		}
	}
	a, err := c.api()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.wait(ctx, layout.Controller, func() error {
		return a.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}

// startRegistry starts the registry, and brings the image into it that holds pods' namespaces.
func (c *cluster) startRegistry(ctx context.Context, first []layout.Server) error {
	for _, s := range first {
		if s.Name != layout.Registry {
			continue
		}
		if err := c.start(ctx, s); err != nil {
			return err
		}
	}
	if c.Nodes == 0 {
		return nil
	}
	image, err := registry.Program(c.pause(), "GOMAXPROCS=1", "GOGC=off")
	if err != nil {
		return err
	}
	_, err = registry.Push(ctx, image, c.PauseImage())
	return err
}

// startNode starts a node's servers; the kubelet once there is somebody to turn to.
func (c *cluster) startNode(ctx context.Context, m layout.Machine, controlled <-chan struct{}) error {
	for _, s := range c.NodeServers(m, c.Places) {
		if s.Name == m.On(layout.Kubelet) {
			select {
			case <-controlled:
			case <-ctx.Done():
				return nil // whoever ended it says why
			}
		}
		if err := c.start(ctx, s); err != nil {
			return err
		}
	}
	c.say("%s is ready", m.Name)
	return nil
}
