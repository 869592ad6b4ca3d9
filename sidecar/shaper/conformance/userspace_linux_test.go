package conformance_test

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

func TestMain(m *testing.M) { conformance.Main(m) }

func TestUserSpace(t *testing.T) {
	conformance.AsSidecar(t, func(t *testing.T) {
		conformance.Run(t, inUserSpace, testing.Short() || conformance.Rootless())
	})
}

// led is a shaper to which the packet filter leads what is to be shaped.
type led struct {
	*userspace.Shaper
	filter *policy.Table
}

func inUserSpace(t *testing.T, f *fabric.Fabric) shaper.Shaper { return userSpace(t, f) }

func userSpace(t testing.TB, f *fabric.Fabric) shaper.Shaper {
	filter, err := policy.New(f.InRouter, policy.Options{NearIndex: f.NearIndex, ShaperIndex: f.ShaperIndex(), MarkShaped: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := filter.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := userspace.New(userspace.Options{
		Shaper: f.InShaper, ShaperEnd: f.ShaperEndIndex(), Router: f.InRouter, RouterEnd: f.ShaperIndex(), Seed: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return led{s, filter}
}

func (l led) Apply(ctx context.Context, state *links.State) error {
	if err := l.filter.Apply(ctx, state); err != nil {
		return err
	}
	return l.Shaper.Apply(ctx, state)
}
