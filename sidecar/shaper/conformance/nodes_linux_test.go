package conformance_test

import (
	"context"
	"errors"
	"testing"

	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/fabric/fabrictest"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/policy"
	"github.com/groundplan/groundplan/sidecar/shaper"
	"github.com/groundplan/groundplan/sidecar/shaper/conformance"
	"github.com/groundplan/groundplan/sidecar/shaper/userspace"
)

// Every row's instances are on different nodes.
func TestUserSpaceOverNodes(t *testing.T) {
	conformance.AsNodes(t, func(t *testing.T) {
		conformance.RunOn(t, func(t *testing.T, seats links.Seats) (conformance.Ground, shaper.Shaper) {
			const nodes = 3
			c := fabrictest.New(t, fabrictest.Options{
				Nodes: nodes, PerNode: (len(seats.Instances) + nodes - 1) / nodes, Alternate: true, MTU: 1550, Isolate: true,
			})
			o := over{Cluster: c, Fabric: c.Nodes[0].Fabric}
			var all apart
			for _, n := range c.Nodes {
				all = append(all, inNode(t, n.Fabric))
			}
			return o, all
		}, testing.Short())
	})
}

// over is several fabrics, which have the same addresses.
type over struct {
	*fabrictest.Cluster
	*fabric.Fabric
}

func (o over) Inside(slot int, work func() error) error { return o.Cluster.Inside(slot, work) }

func inNode(t *testing.T, f *fabric.Fabric) shaper.Shaper {
	filter, err := policy.New(f.InRouter, policy.Options{
		NearIndex: f.NearIndex, ShaperIndex: f.ShaperIndex(), MarkShaped: true, TunnelIndex: f.TunnelIndex(), Local: f.Present, Keep: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := filter.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := userspace.New(userspace.Options{
		Shaper: f.InShaper, ShaperEnd: f.ShaperEndIndex(), Router: f.InRouter, RouterEnd: f.ShaperIndex(), Seed: 1, Withhold: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return led{s, filter}
}

// apart are the shapers of all nodes.
type apart []shaper.Shaper

func (a apart) Name() string { return a[0].Name() + " on every node" }

func (a apart) Apply(ctx context.Context, state *links.State) error {
	for _, s := range a {
		if err := s.Apply(ctx, state); err != nil {
			return err
		}
	}
	return nil
}

func (a apart) Health() (sum shaper.Health) {
	for _, s := range a {
		h := s.Health()
		sum.Packets += h.Packets
		sum.Lost += h.Lost
		sum.Late += h.Late
		sum.CPU += h.CPU
	}
	return sum
}

func (a apart) Close() error {
	var errs []error
	for _, s := range a {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
