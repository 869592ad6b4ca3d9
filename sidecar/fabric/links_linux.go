package fabric

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// SetEnabled disconnects an instance from the data network or connects it again. TCP connections stay, and what is sent
// meanwhile is lost.
func (f *Fabric) SetEnabled(slot int, enabled bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.instances[slot]
	if i == nil {
		return fmt.Errorf("switching the data link of slot %d: %w", slot, ErrAbsent)
	}
	if i.enabled == enabled {
		return nil
	}
	var b batch
	switch {
	case !enabled:
		b.down(nearIndex(slot)) // takes the route and the neighbour with it
	default:
		b.up(nearIndex(slot))
		if f.holder(i.data.Addr()) == slot {
			b.lead(dataNetwork, slot, i.data.Addr())
		}
		if i.data6.IsValid() {
			b.lead(dataNetwork, slot, i.data6)
		}
	}
	if err := f.ours.router.do(&b); err != nil {
		return fmt.Errorf("switching the data link of slot %d: %w", slot, err)
	}
	i.enabled = enabled
	if !enabled {
		return nil
	}
	return onThread(func() error {
		if err := i.namespaces.enter(); err != nil {
			return err
		}
		inside, err := openSocket()
		if err != nil {
			return err
		}
		defer inside.Close()
		// The near end has just come up and knows; the far end is yet to be told.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return awaitLinks(ctx, map[int]bool{f.DataIndex(): true}, inside)
	})
}

// SetDataAddress gives an instance another address in the data network, in place of the one it has. The mask is only
// shown inside; it may be wider than that of the subnet. Where another instance has the address already, the later one
// gets the packets until it gives it up.
func (f *Fabric) SetDataAddress(slot int, own netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.instances[slot]
	if i == nil {
		return fmt.Errorf("changing the data address of slot %d: %w", slot, ErrAbsent)
	}
	if err := f.checkOwn(own); err != nil {
		return err
	}
	if i.data == own {
		return nil
	}
	if err := f.readdress(i, own); err != nil {
		return fmt.Errorf("changing the data address of slot %d from %s to %s: %w", slot, i.data, own, err)
	}
	old := i.data
	i.data = own
	f.unclaim(old.Addr(), slot)
	f.claims[own.Addr()] = append(f.claims[own.Addr()], slot)
	var b batch
	f.direct(&b, old.Addr())
	f.direct(&b, own.Addr())
	if err := f.ours.router.do(&b); err != nil {
		return fmt.Errorf("routing to the new data address %s of slot %d: %w", own, slot, err)
	}
	return nil
}

func (f *Fabric) checkOwn(own netip.Prefix) error {
	if !own.IsValid() || !f.subnet.Contains(own.Addr()) {
		return fmt.Errorf("data address %s is not in the data network %s", own, f.subnet)
	}
	if own.Addr() == f.subnet.Addr() {
		return fmt.Errorf("data address %s is the name of the data network %s itself", own, f.subnet)
	}
	return nil
}

// readdress changes the address inside the instance. The old one goes first: in the same subnet the new one would be its
// secondary, and go with it.
func (f *Fabric) readdress(i *instance, own netip.Prefix) error {
	return onThread(func() error {
		if err := i.namespaces.enter(); err != nil {
			return err
		}
		inside, err := openSocket()
		if err != nil {
			return err
		}
		defer inside.Close()
		var b batch
		b.deleteAddress(f.DataIndex(), i.data)
		b.own(f.DataIndex(), f.subnet, own, nextHop)
		return inside.do(&b)
	})
}

// direct makes the router's route to an address what the claims say.
func (f *Fabric) direct(b *batch, address netip.Addr) {
	holder, whole := f.holder(address), netip.PrefixFrom(address, 32)
	here := f.instances[holder]
	switch {
	case here != nil && here.enabled:
		b.lead(dataNetwork, holder, address)
	case here == nil && f.node != nil && f.node.beyond(b, holder, whole):
	default:
		b.deleteRoute(route{to: whole})
	}
}

// holder is the slot that gets the packets for an address, -1 when nobody does.
func (f *Fabric) holder(address netip.Addr) int {
	claims := f.claims[address]
	if len(claims) == 0 {
		return -1
	}
	return claims[len(claims)-1]
}

// unclaim notes that a slot no longer uses an address.
func (f *Fabric) unclaim(address netip.Addr, slot int) {
	f.claims[address] = slices.DeleteFunc(f.claims[address], func(s int) bool { return s == slot })
	if len(f.claims[address]) == 0 {
		delete(f.claims, address)
	}
}
