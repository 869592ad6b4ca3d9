package links

import (
	"fmt"
	"net/netip"
	"slices"
)

// State is what is asked of every link, layers laid over each other. It doesn't change once made.
type State struct {
	seats   Seats
	inbound Inbound
	routers []Router
	// tables are those of the two families, and classes what instances that are asked the same share.
	v4, v6  table
	paths   []Path // by number; 0 is the path that asks for nothing
	classes []class
	class   []int // by slot; -1: nobody has it
}

// class is what some instances are asked.
type class struct {
	v4, v6 []run
	routes []Route
}

// New lays the layers over each other. The error is a sentence about what can't be done, for a person.
func New(seats Seats, layers Layers) (*State, error) {
	c, err := newCompiler(seats, layers)
	if err != nil {
		return nil, err
	}
	s := c.state
	for _, i := range seats.Instances {
		if s.class[i.Slot], err = c.classOf(i); err != nil {
			return nil, fmt.Errorf("what the plan of the instance in slot %d (group `%s`) asks of the network can't be: %w", i.Slot, i.Group, err)
		}
	}
	s.paths = c.paths
	return s, nil
}

// Path is what is asked of packets from a slot to an address. The zero value stands for a slot or address that nobody has.
func (s *State) Path(slot int, to netip.Addr) Path {
	if slot < 0 || slot >= len(s.class) || s.class[slot] < 0 {
		return Path{}
	}
	c := &s.classes[s.class[slot]]
	t, runs := &s.v4, c.v4
	if !to.Is4() {
		t, runs = &s.v6, c.v6
	}
	if _, ok := t.find(to); !ok {
		return Path{}
	}
	n := toNumber(to)
	i, _ := slices.BinarySearchFunc(runs, n, func(r run, n uint32) int {
		if r.last < n {
			return -1
		}
		return 1
	})
	return s.paths[runs[i].path]
}

// Routes are all that is asked of a slot's packets: first IPv4, then IPv6, each in the order of their prefixes, longest
// first. Slots that share all they are asked share the slice: compare the address of its first element to know. Where no
// route leads, nothing is asked; what a route says of addresses that nobody has means nothing.
func (s *State) Routes(slot int) []Route {
	if slot < 0 || slot >= len(s.class) || s.class[slot] < 0 {
		return nil
	}
	return s.classes[s.class[slot]].routes
}

// Slot says who has an address now. Of several that claim one it is the last to have left its own address for it.
func (s *State) Slot(address netip.Addr) (int, bool) {
	t := &s.v4
	if !address.Is4() {
		t = &s.v6
	}
	i, ok := t.find(address)
	if !ok || t.leaves[i].group < 0 {
		return 0, false
	}
	return t.leaves[i].slot, true
}

// Behind says which instance is the first behind the NAT with that address.
func (s *State) Behind(external netip.Addr) (int, bool) {
	for _, r := range s.routers {
		if r.External == external {
			return r.Slots[0], true
		}
	}
	return 0, false
}

// Seats are those that the state was made for.
func (s *State) Seats() Seats { return s.seats }

// Inbound is what becomes of new connections.
func (s *State) Inbound() Inbound { return s.inbound }

// Routers are the NATs.
func (s *State) Routers() []Router { return s.routers }
