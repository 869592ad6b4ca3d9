// Package network is the data network of one run as its sidecar speaks with it: what is asked of it by whom, and all of
// that in force. It lays what network stages, plans and events ask for over each other (sidecar/links), and puts the
// result in force in three steps: the instances' own addresses and links (sidecar/fabric), what is let through
// (sidecar/policy), and what becomes of that on its way (sidecar/shaper, sidecar/nat).
//
// Changes may be asked for by many at once, and each returns when it is in force. One after the other they would take
// too long where a thousand plans configure their networks in the same moment, so what is asked for while a change is
// being put in force is put in force together, as the next one.
//
// Where a run is spread over the nodes of a cluster, each node has a Network of its own. All of them are asked the same
// and know all instances; each puts in force what concerns its own.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/shaper"
)

// Config is what an instance's plan asks for its own data network.
type Config struct {
	Plan links.Plan
	// Address is the one that it is to have from now on; the zero value: its own. Only the address counts: plans send
	// masks of their own.
	Address netip.Prefix
	// Enabled says whether it is on the data network.
	Enabled bool
}

// Refusal is an error that says in one sentence what can never be done.
type Refusal struct{ Sentence string }

func (r *Refusal) Error() string { return r.Sentence }

// seating is what a network needs of the fabric.
type seating interface {
	Subnet() netip.Prefix
	Subnet6() netip.Prefix
	Present(slot int) bool
	Addresses(slot int) (control, data netip.Addr)
	Address6(slot int) netip.Addr
	SetEnabled(slot int, enabled bool) error
	SetDataAddress(slot int, address netip.Prefix) error
}

// elsewhere is what a network needs of the fabric besides where there are other nodes.
type elsewhere interface {
	NodeAddress() netip.Addr
	NodeOf(slot int) netip.Addr
	MoveRemote(slot int, to netip.Prefix) error
	SetHomes(homes map[netip.Addr]int) error
	Seated(slot int) (address netip.Prefix, enabled, ok bool)
}

// Rendezvous is where the nodes of a run meet.
type Rendezvous interface {
	// Exchange waits until every node has said something under a name, and returns what all have, in the order of the
	// nodes. A name is used once.
	Exchange(ctx context.Context, name string, say []byte) (said [][]byte, err error)
}

// step puts a state in force; asked for the same again, it has little to do.
type step func(ctx context.Context, state *links.State) error

// Network is the data network of one run.
type Network struct {
	fabric  seating
	nodes   elsewhere // nil: there are no other nodes
	steps   []step    // in this order
	shapers []shaper.Shaper
	log     *slog.Logger
	inside  func(slot int, work func() error) error
	mtu     int
	// What there is over nodes: name is what people call this one. rendezvous may be nil.
	rendezvous Rendezvous
	name       string
	inRouter   func(work func() error) error
	// unable is why nothing can be put in force, where that is so.
	unable error

	// ctx ends when the network is closed; done is closed when nothing is put in force any more.
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	// ends are what gives back what was opened, the last first.
	ends []func() error

	// mu guards what waits. wake is rung when something has begun to.
	mu      sync.Mutex
	waiting []*change
	closed  bool
	wake    chan struct{}

	// state is what is in force, nil at first.
	state atomic.Pointer[links.State]
	held  atomic.Bool

	health   sync.Mutex
	baseline []shaper.Health // by shaper

	// What follows belongs to the goroutine that puts changes in force. seated is what the fabric has been told, by slot:
	// a slot that isn't there is as it was made. unsettled says that the last state was not put in force wholly.
	asked     asked
	seated    map[int]seat
	unsettled bool
	// met are the instances of this node whose seats have been looked at: a network before this one may have moved them.
	met map[int]bool
}

// start has changes put in force from here on.
func (n *Network) start() {
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.done, n.wake = make(chan struct{}), make(chan struct{}, 1)
	n.seated, n.met, n.baseline = make(map[int]seat), make(map[int]bool), make([]shaper.Health, len(n.shapers))
	go n.work()
}

// Seat says who sits where: all groups of the pipeline in order, whose instances follow each other from slot 0 on. It is
// to be called after each placement; those are on the network whose slot is there, or is said to be on another node.
//
// A network that takes over what another one has left in force on a node leaves all of it so until it is called, and, on
// hold, until Resume is.
func (n *Network) Seat(ctx context.Context, groups []pipelines.Group) error {
	return n.ask(ctx, &change{seats: true, to: func(a *asked) bool {
		a.groups = groups
		return true // who is there may have changed
	}})
}

// SetStage replaces the state that the network stages ask for.
func (n *Network) SetStage(ctx context.Context, state pipelines.Network) error {
	return n.ask(ctx, &change{to: func(a *asked) bool {
		a.layers.Stage = state
		return true
	}})
}

// Begin lays an event's change over everything before it.
func (n *Network) Begin(ctx context.Context, event links.Event) error {
	return n.ask(ctx, &change{to: func(a *asked) bool {
		a.end(event.Name)
		a.layers.Events = append(a.layers.Events, event)
		return true
	}})
}

// End takes an event's change away. One that isn't there has been taken away already: that is no error.
func (n *Network) End(ctx context.Context, name string) error {
	return n.ask(ctx, &change{to: func(a *asked) bool { return a.end(name) }})
}

// Configure replaces what an instance's plan asks for.
func (n *Network) Configure(ctx context.Context, slot int, c Config) error {
	wanted, err := n.seat(slot, c)
	if err != nil {
		return err
	}
	return n.ask(ctx, &change{slots: []int{slot}, to: func(a *asked) bool { return a.configure(slot, wanted, c.Plan) }})
}

// Move says that the plan of an instance on another node has given itself that address; the zero value, that it has taken
// its own again. When it returns, packets for the address go to that node.
func (n *Network) Move(ctx context.Context, slot int, to netip.Prefix) error {
	if n.nodes == nil || !n.away(slot) {
		return fmt.Errorf("moving the instance in slot %d: it isn't on another node", slot)
	}
	wanted, err := n.seat(slot, Config{Address: to, Enabled: true})
	if err != nil {
		return err
	}
	return n.ask(ctx, &change{slots: []int{slot}, to: func(a *asked) bool { return a.configure(slot, wanted, links.Plan{}) }})
}

// Restore takes away all that the plans of these slots have asked for.
func (n *Network) Restore(ctx context.Context, slots []int) error {
	return n.ask(ctx, &change{slots: slots, to: func(a *asked) bool {
		changed := false
		for _, slot := range slots {
			changed = a.configure(slot, seat{}, links.Plan{}) || changed
		}
		return changed
	}})
}

// Hold has nothing be put in force until Resume: what is asked for meanwhile is admitted or refused, and that it is in
// force is not waited for. Whoever asks again, one after the other, for all that was in force before a restart doesn't want
// any of the states on the way.
func (n *Network) Hold() { n.held.Store(true) }

// Resume puts all in force that was asked for since Hold.
func (n *Network) Resume(ctx context.Context) error {
	n.held.Store(false)
	return n.ask(ctx, &change{to: func(*asked) bool { return true }})
}

// State is what is in force; nil before anybody has a seat.
func (n *Network) State() *links.State { return n.state.Load() }

// Shaper is who shapes: "netem", "user space" or, where the machine can't, "nothing".
func (n *Network) Shaper() string {
	if len(n.shapers) == 0 {
		return "nothing"
	}
	return n.shapers[0].Name()
}

// Close ends all shaping. What is being asked for is refused with net.ErrClosed.
func (n *Network) Close() error {
	n.mu.Lock()
	twice := n.closed
	n.closed = true
	n.mu.Unlock()
	if twice {
		return nil
	}
	n.cancel()
	<-n.done
	return n.end()
}

func (n *Network) end() error {
	var errs []error
	for _, end := range slices.Backward(n.ends) {
		errs = append(errs, end())
	}
	n.ends = nil
	return errors.Join(errs...)
}

// seat is how an instance is seated by its plan; the zero value: as it was made.
type seat struct {
	address  netip.Prefix // the zero value: its own
	disabled bool
}

// seat checks what a plan asks for its own address.
func (n *Network) seat(slot int, c Config) (seat, error) {
	s := seat{disabled: !c.Enabled}
	_, own := n.fabric.Addresses(slot)
	subnet, address := n.fabric.Subnet(), c.Address.Addr().Unmap()
	switch {
	case !address.IsValid() || address == own:
		return s, nil
	case !subnet.Contains(address):
		return s, &Refusal{"the address " + address.String() + " is outside the data network " + subnet.String()}
	case address == subnet.Addr():
		return s, &Refusal{"the address " + address.String() + " is the name of the data network " + subnet.String() + " itself"}
	}
	s.address = netip.PrefixFrom(address, subnet.Bits())
	return s, nil
}

// asked is all that is asked for.
type asked struct {
	groups []pipelines.Group
	layers links.Layers
	seats  map[int]seat // by slot; one that isn't there has the zero value
}

// clone is a copy that may be changed.
func (a asked) clone() asked {
	a.layers.Plans, a.layers.Events = maps.Clone(a.layers.Plans), slices.Clone(a.layers.Events)
	a.seats = maps.Clone(a.seats)
	if a.seats == nil {
		a.seats, a.layers.Plans = make(map[int]seat), make(map[int]links.Plan)
	}
	return a
}

// with is what is asked for after some changes, and whether that is something else.
func (a asked) with(changes []*change) (next asked, changed bool) {
	next = a.clone()
	for _, c := range changes {
		changed = c.to(&next) || changed
	}
	return next, changed
}

// end takes an event away, and says whether it was there.
func (a *asked) end(name string) bool {
	before := len(a.layers.Events)
	a.layers.Events = slices.DeleteFunc(a.layers.Events, func(e links.Event) bool { return e.Name == name })
	return len(a.layers.Events) < before
}

// configure replaces what a plan asks for, and says whether that is something else.
func (a *asked) configure(slot int, s seat, p links.Plan) bool {
	changed := a.seats[slot] != s
	a.seats[slot] = s
	if s == (seat{}) {
		delete(a.seats, slot)
	}
	if p.Default == (links.Shape{}) && len(p.Rules) == 0 {
		_, was := a.layers.Plans[slot]
		delete(a.layers.Plans, slot)
		return changed || was
	}
	a.layers.Plans[slot] = p
	return true
}

// errClosed is what is refused once the network has been closed.
var errClosed = net.ErrClosed
