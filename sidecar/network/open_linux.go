package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/nat"
	"github.com/groundplan/groundplan/sidecar/policy"
	"github.com/groundplan/groundplan/sidecar/prober"
	"github.com/groundplan/groundplan/sidecar/shaper"
	"github.com/groundplan/groundplan/sidecar/shaper/userspace"
)

// The ways to shape.
const (
	Netem     = "netem"
	UserSpace = "userspace"
)

// Options say what a network is to be like.
type Options struct {
	// Shaper forces a way to shape, Netem or UserSpace; empty: netem where the kernel has it.
	Shaper string
	// Seed begins the random choices of which packets are lost, delayed by how much, and so on.
	Seed uint64
	// Log says what a person should know; nil: nothing is said.
	Log *slog.Logger
}

// New takes a fabric's data network over. It doesn't shape anything yet. Close gives it back.
func New(f *fabric.Fabric, o Options) (_ *Network, err error) {
	n := &Network{fabric: f, inside: f.Inside, log: o.Log}
	var opened []func() error
	n.closer = func() error {
		var errs []error
		for _, end := range opened {
			errs = append(errs, end())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.closer())
		}
	}()
	if o.Shaper, err = choose(o.Shaper); err != nil {
		return nil, err
	}
	translator := nat.New(o.Seed, o.Log)
	table, err := policy.New(f.InRouter, policy.Options{
		NearIndex: f.NearIndex, ShaperIndex: f.ShaperIndex(), MarkShaped: o.Shaper == UserSpace,
	})
	if err != nil {
		return nil, fmt.Errorf("taking over the packet filter of the data network: %w", err)
	}
	opened = append(opened, table.Close)
	// Also where netem shapes, packets that cross a NAT take the way through user space.
	detour, err := userspace.New(userspace.Options{
		Shaper: f.InShaper, ShaperEnd: f.ShaperEndIndex(), Router: f.InRouter, RouterEnd: f.ShaperIndex(),
		Translator: translator, Seed: o.Seed, Log: o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("shaping the data network: %w", err)
	}
	n.shapers = []shaper.Shaper{detour}
	n.steps = []step{
		func(_ context.Context, s *links.State) error {
			return translator.Apply(s.Routers(), s.Seats().Instances)
		},
		table.Apply,
		detour.Apply,
	}
	n.start()
	return n, nil
}

// choose finds out how to shape.
func choose(asked string) (string, error) {
	switch asked {
	case "", UserSpace:
		return UserSpace, nil
	}
	return "", fmt.Errorf("there is no shaper %q: it is %s or %s", asked, Netem, UserSpace)
}

// Prove probes pairs of instances, drawn by the seed, and says what was found beside what is asked of them. It tells
// report how many are done as it goes on.
func (n *Network) Prove(ctx context.Context, verify pipelines.Verify, seed uint64, report func(done, total int)) (control.Proof, error) {
	state := n.State()
	if state == nil {
		return control.Proof{}, &Refusal{"there is nobody on the data network yet whose links could be probed"}
	}
	return prober.Prove(ctx, prober.Options{
		State: state, Inside: n.inside, Verify: verify, Seed: seed, Shaper: n.Shaper(), Report: report,
	})
}
