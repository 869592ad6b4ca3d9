package netem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/rtnetlink"
	"github.com/groundplan/groundplan/sidecar/shaper"
)

// Shaper has the kernel shape the packets of a fabric's instances.
type Shaper struct {
	inside func(slot int, work func() error) error
	local  func(slot int) bool
	link   int
	keep   bool
	log    *slog.Logger

	mu     sync.Mutex // held by every method
	places map[int]*place
	closed bool
	health shaper.Health
}

var _ shaper.Shaper = (*Shaper)(nil)

// place is an instance whose packets are, or have been, shaped.
type place struct {
	// namespace is which network namespace the tree is in; another instance may sit in the slot now.
	namespace uint64
	routes    []links.Route // what is in force
	tree      *tree         // nil: there is none in the kernel
}

// workers is how many instances are changed at once. The kernel does most of it under one lock.
const workers = 4

// New begins to shape; until a state is applied packets pass as they are.
func New(o Options) (*Shaper, error) {
	if o.Inside == nil || o.Link <= 0 {
		return nil, errors.New("shaping with netem takes a way into instances and the index of their data link")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Local == nil {
		o.Local = func(int) bool { return true }
	}
	return &Shaper{inside: o.Inside, local: o.Local, link: o.Link, keep: o.Keep, log: o.Log, places: map[int]*place{}}, nil
}

// Name is "netem".
func (s *Shaper) Name() string { return "netem" }

// Apply puts a state in force, instance by instance. When it fails some may be in the new state and others in the old.
func (s *Shaper) Apply(ctx context.Context, state *links.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("shaping with netem: %w", net.ErrClosed)
	}
	s.forget(state.Seats().Instances)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	var counting sync.Mutex
	for _, i := range state.Seats().Instances {
		if !s.local(i.Slot) {
			continue
		}
		routes := state.Routes(i.Slot)
		p := s.places[i.Slot]
		if p == nil {
			p = &place{}
			s.places[i.Slot] = p
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return s.inside(i.Slot, func() error {
				counted, err := p.apply(s.link, routes, s.keep)
				counting.Lock()
				defer counting.Unlock()
				s.count(counted)
				return err
			})
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("shaping with netem: %w", err)
	}
	return nil
}

// forget drops what is known of slots that nobody sits in.
func (s *Shaper) forget(seated []links.Instance) {
	here := make(map[int]bool, len(seated))
	for _, i := range seated {
		here[i.Slot] = true
	}
	for slot := range s.places {
		if !here[slot] {
			delete(s.places, slot)
		}
	}
}

func (s *Shaper) count(h shaper.Health) {
	s.health.Packets += h.Packets
	s.health.Lost += h.Lost
}

// apply puts routes in force in the namespace of the calling thread. It returns what has been counted since it was last
// asked.
func (p *place) apply(index int, routes []links.Route, found bool) (shaper.Health, error) {
	k, err := rtnetlink.Open()
	if err != nil {
		return shaper.Health{}, err
	}
	defer k.Close()
	namespace, err := k.Namespace()
	if err != nil {
		return shaper.Health{}, err
	}
	fresh := p.namespace != namespace
	if fresh {
		*p = place{namespace: namespace}
	}
	if same(p.routes, routes) && !(fresh && found) {
		return shaper.Health{}, nil
	}
	counted, err := p.counted(k, index)
	if err != nil {
		return counted, err
	}
	if err := p.change(k, index, routes, fresh && found); err != nil {
		// What is in the kernel now is anybody's guess: the next one starts over.
		l := gather(index)
		l.uproot()
		err = errors.Join(err, l.do(k))
		*p = place{namespace: namespace}
		return counted, err
	}
	p.routes = routes
	return counted, nil
}

// same compares by the first element before it compares all: instances that are asked the same share their routes.
func same(a, b []links.Route) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// change leads from what is in force to routes. found says that something may be in force that nobody knows of.
func (p *place) change(k *rtnetlink.Socket, index int, routes []links.Route, found bool) error {
	l := gather(index)
	if p.tree == nil {
		if !slices.ContainsFunc(routes, func(r links.Route) bool { return shaped(r.Path) }) {
			if found {
				l.uproot()
			}
			return l.do(k)
		}
		device, err := net.InterfaceByIndex(index)
		if err != nil {
			return fmt.Errorf("looking at the data link: %w", err)
		}
		p.tree = &tree{}
		l.uproot() // what somebody else left
		l.plant(device.MTU)
	}
	before := p.tree.filters
	needed, err := p.tree.fit(routes)
	if err != nil {
		return err
	}
	for _, step := range needed.lanes {
		l.lane(step.lane)
	}
	for _, step := range needed.leaves {
		l.leaf(step)
	}
	if needed.filters {
		l.exchange(before, p.tree.filters, p.tree.generation)
		p.tree.generation++
	}
	return l.do(k)
}

// counted reads what the kernel has counted since it was last read.
func (p *place) counted(k *rtnetlink.Socket, index int) (h shaper.Health, err error) {
	if p.tree == nil {
		return h, nil
	}
	all, err := netems(k, index)
	if err != nil {
		return h, err
	}
	for _, lane := range p.tree.lanes {
		for _, l := range lane.leaves {
			c := all[l.netemHandle()]
			h.Packets += int64(c.packets - l.packets)
			if l.path.Loss == 0 && lane.rate == 0 {
				h.Lost += int64(c.dropped - l.dropped)
			}
			l.packets, l.dropped = c.packets, c.dropped
		}
	}
	return h, nil
}

// Health counts the packets that the kernel has shaped. Lost are those that found more packets delayed than there may be,
// where neither loss nor a bandwidth is asked for: elsewhere the kernel doesn't tell them from those that were to be
// dropped. The kernel says nothing of packets that are late.
func (s *Shaper) Health() shaper.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	for slot, p := range s.places {
		if s.closed || p.tree == nil {
			continue
		}
		err := s.inside(slot, func() error {
			k, err := rtnetlink.Open()
			if err != nil {
				return err
			}
			defer k.Close()
			if namespace, err := k.Namespace(); err != nil || namespace != p.namespace {
				return err
			}
			counted, err := p.counted(k, s.link)
			s.count(counted)
			return err
		})
		if err != nil {
			s.log.Debug("the counters of an instance's shaping can't be read", "slot", slot, "error", err)
		}
	}
	return s.health
}

// Close stops shaping, unless it is kept: packets under way are dropped, later ones pass as they are.
func (s *Shaper) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for slot, p := range s.places {
		if p.tree == nil || s.keep {
			continue
		}
		err := s.inside(slot, func() error {
			k, err := rtnetlink.Open()
			if err != nil {
				return err
			}
			defer k.Close()
			l := gather(s.link)
			l.uproot()
			return l.do(k)
		})
		if err != nil {
			// It has most likely been removed, and its link with it.
			s.log.Debug("an instance's shaping can't be taken away", "slot", slot, "error", err)
		}
	}
	clear(s.places)
	return nil
}

// Supported returns nil where the kernel can do all that a Shaper may ask of it and this process has the right to, and
// else what it can't. It tries, in a network namespace that is gone afterwards.
func Supported() error {
	if err := onThread(try); err != nil {
		return fmt.Errorf("trying netem: %w", err)
	}
	return nil
}

// onThread does work on a thread of the operating system's that ends with it.
func onThread(work func() error) error {
	result := make(chan error, 1)
	go func() {
		// Without the unlocking, the runtime ends the thread along with the goroutine, and the namespace with the thread.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread never ends. Keep it busy and take another.
			result <- onThread(work)
			runtime.UnlockOSThread()
			return
		}
		result <- work()
	}()
	return <-result
}

// try puts everything in force once, in a namespace of the calling thread's own.
func try() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("creating a network namespace: %w", err)
	}
	const index = 10
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "try0", Index: index}, PeerName: "try1"}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("creating a veth pair: %w", err)
	}
	var p place
	for _, routes := range everything {
		if _, err := p.apply(index, routes, false); err != nil {
			return err
		}
	}
	return nil
}
