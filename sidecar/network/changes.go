package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
)

// change is something that is asked for.
type change struct {
	// to changes what is asked for, and says whether that is something else then.
	to func(*asked) bool
	// slots are those whose own seat it is about; seats, that it is about who is there.
	slots []int
	seats bool
	// err is set before done is closed.
	err  error
	done chan struct{}
}

// ask has a change put in force, together with what others ask for, and waits for it. It is put in force also when ctx
// ends before.
func (n *Network) ask(ctx context.Context, c *change) error {
	c.done = make(chan struct{})
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return fmt.Errorf("changing the data network: %w", errClosed)
	}
	n.waiting = append(n.waiting, c)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
	select {
	case <-c.done:
		return c.err
	case <-n.done:
		select {
		case <-c.done: // just in time
			return c.err
		default:
			return fmt.Errorf("changing the data network: %w", errClosed)
		}
	case <-ctx.Done():
		return fmt.Errorf("waiting for a change of the data network: %w", ctx.Err())
	}
}

// work puts changes in force until the network is closed.
func (n *Network) work() {
	defer close(n.done)
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.wake:
		}
		n.mu.Lock()
		all := n.waiting
		n.waiting = nil
		n.mu.Unlock()
		n.put(all)
		for _, c := range all {
			close(c.done)
		}
	}
}

// put puts changes in force, and notes at each of them why it isn't.
func (n *Network) put(all []*change) {
	began := time.Now()
	n.meet(all)
	next, state, changed := n.admit(n.asked, all)
	if !changed && !n.unsettled {
		return
	}
	n.asked = next
	accepted := slices.DeleteFunc(slices.Clone(all), func(c *change) bool { return c.err != nil })
	if len(accepted) == 0 && !n.unsettled {
		return
	}
	n.reseat(next.seats, accepted)
	if state == nil { // nobody has a seat yet
		return
	}
	if n.unsettled = n.held.Load(); n.unsettled {
		return
	}
	for _, force := range n.steps {
		if err := force(n.ctx, state); err != nil {
			n.unsettled = true
			n.log.Error("the data network could not be put in force", "error", err)
			for _, c := range accepted {
				c.err = errors.Join(c.err, fmt.Errorf("putting the data network in force: %w", err))
			}
			return
		}
	}
	n.state.Store(state)
	n.log.Debug("the data network has changed", "changes", len(all), "took", time.Since(began))
}

// admit adds changes to what is asked for, in their order, but those that can't be: they get the reason noted, and the
// others don't suffer from them. The state is nil where nothing has changed, and as long as nobody has a seat.
func (n *Network) admit(before asked, all []*change) (next asked, state *links.State, changed bool) {
	next, changed = before.with(all)
	if !changed && !n.unsettled {
		return before, nil, false
	}
	state, err := n.compile(next)
	if err == nil {
		return next, state, true
	}
	next = n.sift(before, all)
	if state, err = n.compile(next); err != nil { // also without any of the changes: who is there has changed
		for _, c := range all {
			c.err = cmp.Or(c.err, err)
		}
		return next, nil, true
	}
	return next, state, true
}

// sift tries changes together, and where that fails half by half, so that few that can't be are soon found among many.
func (n *Network) sift(before asked, all []*change) asked {
	next, _ := before.with(all)
	_, err := n.compile(next)
	if err == nil {
		return next
	}
	if len(all) == 1 {
		all[0].err = err
		return before
	}
	half := len(all) / 2
	return n.sift(n.sift(before, all[:half]), all[half:])
}

// compile lays all that is asked for over each other.
func (n *Network) compile(a asked) (*links.State, error) {
	if a.groups == nil {
		return nil, check(a.layers)
	}
	if err := check(a.layers); err != nil {
		return nil, err
	}
	state, err := links.New(n.seats(a), a.layers)
	if err != nil {
		return nil, &Refusal{err.Error()}
	}
	if err := n.together(state); err != nil {
		return nil, err
	}
	if n.unable != nil && asks(state) {
		return nil, &Refusal{fmt.Sprintf("the network can't be shaped on this machine (see `groundplan doctor`): %v", n.unable)}
	}
	return state, nil
}

// asks says whether anything is asked of any link.
func asks(s *links.State) bool {
	if len(s.Inbound()) > 0 {
		return true
	}
	return slices.ContainsFunc(s.Seats().Instances, func(i links.Instance) bool {
		return slices.ContainsFunc(s.Routes(i.Slot), func(r links.Route) bool {
			return r.Path.Shaped() || r.Path.Policy != links.Accept || r.Path.Private || r.Path.Translated
		})
	})
}

// check refuses what can't be done here, whoever has a seat.
func check(l links.Layers) error {
	if l.Stage.Access == pipelines.AccessInternet {
		return &Refusal{"the network asks for access to the internet: a run's network on this machine is cut off from everything else (take `access: internet` out, or run where there is a way out)"}
	}
	for _, e := range l.Events {
		if e.Network.Access == pipelines.AccessInternet {
			return &Refusal{fmt.Sprintf("the event %s asks for access to the internet: a run's network on this machine is cut off from everything else", e.Name)}
		}
	}
	return nil
}

// seats says who is there, by which addresses.
func (n *Network) seats(a asked) links.Seats {
	s := links.Seats{Subnet: n.fabric.Subnet(), Subnet6: n.fabric.Subnet6(), Groups: a.groups}
	slot := 0
	for _, g := range a.groups {
		for range g.Instances {
			if n.there(slot) {
				_, data := n.fabric.Addresses(slot)
				if moved := a.seats[slot].address; moved.IsValid() {
					data = moved.Addr()
				}
				s.Instances = append(s.Instances, links.Instance{Slot: slot, Group: g.Name, Data: data, Data6: n.fabric.Address6(slot)})
			}
			slot++
		}
	}
	return s
}

// reseat tells the fabric how plans have seated their instances, where that isn't so yet. What can't be done for an
// instance is the fault of the changes that are about it.
func (n *Network) reseat(wanted map[int]seat, changes []*change) {
	touched := make(map[int]struct{})
	for _, slots := range []map[int]seat{wanted, n.seated} {
		for slot := range slots {
			if wanted[slot] != n.seated[slot] {
				touched[slot] = struct{}{}
			}
		}
	}
	for _, slot := range slices.Sorted(maps.Keys(touched)) {
		err := n.move(slot, n.seated[slot], wanted[slot])
		if err == nil {
			continue
		}
		n.log.Error("the data link of an instance could not be changed", "slot", slot, "error", err)
		for _, c := range changes {
			if slices.Contains(c.slots, slot) {
				c.err = errors.Join(c.err, err)
			}
		}
	}
}

// move changes the seat of one instance, and notes what it has.
func (n *Network) move(slot int, from, to seat) error {
	if n.away(slot) {
		if err := n.nodes.MoveRemote(slot, to.address); err != nil {
			return err
		}
		from, to.disabled = to, false
	}
	if from.address != to.address {
		address := to.address
		if !address.IsValid() {
			_, own := n.fabric.Addresses(slot)
			subnet := n.fabric.Subnet()
			address = netip.PrefixFrom(own, subnet.Bits())
		}
		if err := n.fabric.SetDataAddress(slot, address); err != nil {
			return err
		}
		from.address = to.address
		n.seated[slot] = from
	}
	if from.disabled != to.disabled {
		if err := n.fabric.SetEnabled(slot, !to.disabled); err != nil {
			return err
		}
	}
	n.seated[slot] = to
	if to == (seat{}) {
		delete(n.seated, slot)
	}
	return nil
}
