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
	"github.com/groundplan/groundplan/sidecar/shaper/netem"
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
	// Rendezvous is how the nodes of a run prove their network together, and Node what people call this one; nil: there are
	// no other nodes.
	Rendezvous Rendezvous
	Node       string
	// Log says what a person should know; nil: nothing is said.
	Log *slog.Logger
}

// New takes a fabric's data network over. It doesn't shape anything yet. Close gives it back; on a node of a cluster it
// leaves in force what is, for another network to take over. Where the machine can't shape and nobody has said how it has
// to, whatever asks for something is refused with the reason, and the rest works.
func New(f *fabric.Fabric, o Options) (*Network, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	n := &Network{fabric: f, inside: f.Inside, log: o.Log, mtu: f.MTU()}
	if f.TunnelIndex() > 0 {
		n.nodes, n.rendezvous, n.name, n.inRouter = f, o.Rendezvous, o.Node, f.InRouter
	}
	if err := n.open(f, o); err != nil {
		err = errors.Join(err, n.end())
		if o.Shaper != "" {
			return nil, err
		}
		n.log.Warn("the data network can't be shaped on this machine", "error", err)
		n.unable, n.shapers, n.steps = err, nil, nil
	}
	n.start()
	return n, nil
}

// open makes what puts states in force.
func (n *Network) open(f *fabric.Fabric, o Options) error {
	way, err := choose(o.Shaper, o.Log)
	if err != nil {
		return err
	}
	routers := nat.New(o.Seed, o.Log)
	onNode := n.nodes != nil
	var local func(slot int) bool
	if onNode {
		local = f.Present
	}
	filter, err := policy.New(f.InRouter, policy.Options{
		NearIndex: f.NearIndex, ShaperIndex: f.ShaperIndex(), MarkShaped: way == UserSpace,
		TunnelIndex: f.TunnelIndex(), Local: local, Keep: onNode,
	})
	if err != nil {
		return fmt.Errorf("taking over the packet filter of the data network: %w", err)
	}
	n.ends = append(n.ends, filter.Close)
	// Also where netem shapes, packets that cross a NAT take the way through user space.
	detour, err := userspace.New(userspace.Options{
		Shaper: f.InShaper, ShaperEnd: f.ShaperEndIndex(), Router: f.InRouter, RouterEnd: f.ShaperIndex(),
		Translator: routers, Seed: o.Seed, Withhold: onNode, Log: o.Log,
	})
	if err != nil {
		return fmt.Errorf("shaping the data network in user space: %w", err)
	}
	n.ends = append(n.ends, detour.Close)
	n.shapers = []shaper.Shaper{detour}
	n.steps = []step{
		func(_ context.Context, s *links.State) error {
			here, away := n.homes(s)
			return errors.Join(n.lead(away), routers.Apply(here, away, s.Seats().Instances))
		},
		filter.Apply,
		detour.Apply,
	}
	if way == UserSpace {
		return nil
	}
	kernel, err := netem.New(netem.Options{Inside: f.Inside, Link: f.DataIndex(), Local: local, Keep: onNode, Log: o.Log})
	if err != nil {
		return err
	}
	n.ends = append(n.ends, kernel.Close)
	n.shapers = []shaper.Shaper{kernel, detour}
	n.steps = append(n.steps, kernel.Apply)
	return nil
}

// choose finds out how to shape, by trying.
func choose(asked string, log *slog.Logger) (string, error) {
	switch asked {
	case UserSpace:
		return UserSpace, nil
	case Netem, "":
		err := netem.Supported()
		if err == nil {
			return Netem, nil
		}
		if asked == Netem {
			return "", fmt.Errorf("the data network is to be shaped by netem, and this machine can't: %w", err)
		}
		log.Debug("the data network is shaped in user space", "because", err)
		return UserSpace, nil
	}
	return "", fmt.Errorf("there is no shaper %q: it is %s or %s", asked, Netem, UserSpace)
}

// Prove probes pairs of instances, drawn by the seed, and says what was found beside what is asked of them. It tells
// report how many are done as it goes on.
func (n *Network) Prove(ctx context.Context, verify pipelines.Verify, seed uint64, report func(done, total int)) (control.Proof, error) {
	return n.ProveStage(ctx, "", verify, seed, report)
}

// ProveStage is Prove for the stage and attempt with that key. Over nodes all of them call it with the same, which no
// other proof has: each probes what its own instances send, and gets to know what the others have found.
func (n *Network) ProveStage(ctx context.Context, key string, verify pipelines.Verify, seed uint64, report func(done, total int)) (control.Proof, error) {
	state := n.State()
	if state == nil {
		return control.Proof{}, &Refusal{"there is nobody on the data network yet whose links could be probed"}
	}
	o := prober.Options{State: state, Inside: n.inside, Verify: verify, Seed: seed, Shaper: n.Shaper(), MaxSize: n.mtu, Report: report}
	if n.nodes != nil && n.rendezvous != nil {
		o.Together = &prober.Together{
			Here: func(slot int) bool { return !n.away(slot) }, Exchange: n.rendezvous.Exchange, Key: key, Node: n.name,
			Router: n.inRouter, Address: n.nodes.NodeAddress(),
		}
	}
	return prober.Prove(ctx, o)
}
