//go:build netem

package netem

import (
	"context"
	"testing"

	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/policy"
	"github.com/groundplan/groundplan/sidecar/shaper"
	"github.com/groundplan/groundplan/sidecar/shaper/conformance"
	"github.com/groundplan/groundplan/sidecar/shaper/userspace"
)

// These tests need a kernel with netem, and fail on one without: `go tool task test:netem` gives them one.

func TestTable(t *testing.T) {
	conformance.AsSidecar(t, func(t *testing.T) {
		conformance.Run(t, byNetem, testing.Short() || conformance.Rootless())
	})
}

// helped is a shaper beside which the packets that need user space are led there, as sidecar/network does it.
type helped struct {
	*Shaper
	filter *policy.Table
	detour *userspace.Shaper
}

func byNetem(t *testing.T, f *fabric.Fabric) shaper.Shaper {
	if err := Supported(); err != nil {
		t.Fatal(err)
	}
	filter, err := policy.New(f.InRouter, policy.Options{NearIndex: f.NearIndex, ShaperIndex: f.ShaperIndex()})
	if err != nil {
		t.Fatal(err)
	}
	detour, err := userspace.New(userspace.Options{
		Shaper: f.InShaper, ShaperEnd: f.ShaperEndIndex(), Router: f.InRouter, RouterEnd: f.ShaperIndex(), Seed: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if detour.Health().Packets == 0 {
			t.Error("no packet took the way through user space")
		}
		if err := detour.Close(); err != nil {
			t.Error(err)
		}
		if err := filter.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := New(Options{Inside: f.Inside, Link: f.DataIndex()})
	if err != nil {
		t.Fatal(err)
	}
	return helped{s, filter, detour}
}

func (h helped) Apply(ctx context.Context, state *links.State) error {
	if err := h.filter.Apply(ctx, state); err != nil {
		return err
	}
	if err := h.detour.Apply(ctx, state); err != nil {
		return err
	}
	return h.Shaper.Apply(ctx, state)
}
