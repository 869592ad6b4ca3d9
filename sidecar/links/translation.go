package links

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

// relation says what stands between two groups.
type relation uint8

const (
	direct     relation = iota
	translated          // out of a NAT
	private             // into one, from outside
)

// behind says which NAT every group is behind.
type behind struct {
	entries []natEntry
	of      []int // by group: index of the entry, -1 without
}

type natEntry struct {
	kind        NATType
	perInstance bool
	timeout     time.Duration
	groups      []int
}

// newBehind takes the NATs of the stage, and lays those of events over them: a group that an event names leaves the NAT
// that it was behind.
func newBehind(networks []pipelines.Network, number map[string]int) (behind, error) {
	b := behind{of: make([]int, len(number))}
	for i := range b.of {
		b.of[i] = -1
	}
	for _, n := range networks {
		first := len(b.entries)
		for _, nat := range n.NAT {
			entry := natEntry{kind: NATType(nat.Type), perInstance: nat.PerInstance, timeout: time.Duration(nat.Timeout)}
			for _, name := range nat.Groups {
				g, ok := number[name]
				switch {
				case !ok:
					return b, fmt.Errorf("a NAT has the group `%s`, and there is no such group", name)
				case b.of[g] >= first:
					return b, fmt.Errorf("the group `%s` is behind two NATs", name)
				case b.of[g] >= 0:
					old := &b.entries[b.of[g]]
					old.groups = slices.DeleteFunc(old.groups, func(other int) bool { return other == g })
				}
				b.of[g] = len(b.entries)
				entry.groups = append(entry.groups, g)
			}
			b.entries = append(b.entries, entry)
		}
	}
	return b, nil
}

// between says what packets from one group to another meet.
func (b *behind) between(p pair) relation {
	from, to := b.of[p.from], b.of[p.to]
	switch {
	case from == to && (from < 0 || !b.entries[from].perInstance):
		return direct
	case to >= 0:
		return private
	}
	return translated
}

// cross is what a path becomes by what stands between. NATs are of IPv4 only: over IPv6 nothing gets past them, and
// senders behind them are told so at once, for them to take the other way.
func (r relation) cross(p Path, v6 bool) Path {
	switch {
	case r == private:
		p.Private, p.Translated = true, !v6
	case r == translated && !v6:
		p.Translated = true
	case r == translated && p.Policy == Accept:
		p.Policy = Reject
	}
	return p
}

// routers makes the NATs, with their external addresses from the subnet's end downwards.
func (b *behind) routers(seats Seats, number map[string]int) ([]Router, error) {
	slots := make([][]int, len(b.entries))
	for _, i := range seats.Instances {
		if e := b.of[number[i.Group]]; e >= 0 {
			slots[e] = append(slots[e], i.Slot)
		}
	}
	var all []Router
	next := last(seats.Subnet)
	for e, entry := range b.entries {
		shares := [][]int{slots[e]}
		if entry.perInstance {
			shares = slices.Collect(slices.Chunk(slots[e], 1))
		}
		for _, share := range shares {
			if len(share) == 0 {
				continue
			}
			for next&255 == 0 || next&255 == 255 {
				next-- // no instance has one of those either
			}
			external := fromNumber(next)
			if !seats.Subnet.Contains(external) {
				return nil, fmt.Errorf("the data network %s has too few addresses for the NATs", seats.Subnet)
			}
			all = append(all, Router{External: external, Type: entry.kind, Timeout: entry.timeout, Slots: share})
			next--
		}
	}
	return all, nil
}

// last is the number of a prefix's last address.
func last(p netip.Prefix) uint32 { return toNumber(p.Masked().Addr()) | ^mask(p.Bits()) }

func mask(bits int) uint32 { return ^uint32(0) << (32 - bits) }

// toNumber takes the last 32 bits of an address.
func toNumber(a netip.Addr) uint32 {
	raw := a.AsSlice()
	return binary.BigEndian.Uint32(raw[len(raw)-4:])
}

func fromNumber(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}
