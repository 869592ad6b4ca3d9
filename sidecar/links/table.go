package links

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// leaf is an address that somebody has.
type leaf struct {
	address uint32 // the last 32 bits
	group   int    // external: it is a NAT's
	slot    int
	// four is the IPv4 address of the same instance, which rules for IPv4 count by. In the table of IPv4 it is the address.
	four uint32
	home bool // the instance has the IPv4 address that its slot gave it
}

const external = -1

// table has all addresses of one family, in their order.
type table struct {
	network netip.Prefix
	leaves  []leaf
	// stretches are the parts of leaves that follow each other in the same group, those that left their home singly.
	stretches []stretch
}

type stretch struct{ from, to int } // leaves[from:to]

func newTable(network netip.Prefix, leaves []leaf) table {
	slices.SortStableFunc(leaves, func(a, b leaf) int {
		return cmp.Or(cmp.Compare(a.address, b.address), compareHome(a, b), cmp.Compare(b.slot, a.slot))
	})
	leaves = slices.CompactFunc(leaves, func(a, b leaf) bool { return a.address == b.address })
	t := table{network: network, leaves: leaves}
	for i, l := range leaves {
		if i > 0 && l.group == leaves[i-1].group && l.aligned() && leaves[i-1].aligned() {
			t.stretches[len(t.stretches)-1].to = i + 1
		} else {
			t.stretches = append(t.stretches, stretch{i, i + 1})
		}
	}
	return t
}

// compareHome puts those first who left their home for an address.
func compareHome(a, b leaf) int {
	switch {
	case a.home == b.home:
		return 0
	case b.home:
		return -1
	}
	return 1
}

// aligned says that rules for IPv4 count for the leaf where its own address is.
func (l leaf) aligned() bool { return l.address == l.four }

// find gives the number of an address's leaf.
func (t *table) find(a netip.Addr) (int, bool) {
	if !t.network.Contains(a) {
		return 0, false
	}
	return slices.BinarySearchFunc(t.leaves, toNumber(a), func(l leaf, n uint32) int { return cmp.Compare(l.address, n) })
}

// after is the first leaf from i on whose address is above a.
func (t *table) after(i int, a uint32) int {
	n, _ := slices.BinarySearchFunc(t.leaves[i:], a, func(l leaf, a uint32) int {
		if l.address <= a {
			return -1
		}
		return 1
	})
	return i + n
}

// fill makes the tables of both families.
func (s *State) fill(number map[string]int) error {
	var four, six []leaf
	for _, i := range s.seats.Instances {
		group, ok := number[i.Group]
		if !ok {
			return fmt.Errorf("the instance in slot %d is of the group `%s`, and there is no such group", i.Slot, i.Group)
		}
		if i.Data.IsValid() && !s.seats.Subnet.Contains(i.Data) {
			return fmt.Errorf("the address %s of the instance in slot %d is outside of the data network %s", i.Data, i.Slot, s.seats.Subnet)
		}
		if i.Data6.IsValid() && !s.seats.Subnet6.Contains(i.Data6) {
			return fmt.Errorf("the address %s of the instance in slot %d is outside of the data network %s", i.Data6, i.Slot, s.seats.Subnet6)
		}
		l := leaf{group: group, slot: i.Slot, home: true}
		if i.Data.IsValid() {
			l.address, l.four = toNumber(i.Data), toNumber(i.Data)
			l.home = !i.Data6.IsValid() || toNumber(i.Data6) == l.four
			four = append(four, l)
		}
		if i.Data6.IsValid() {
			l.address = toNumber(i.Data6)
			six = append(six, l)
		}
	}
	for _, r := range s.routers {
		n := toNumber(r.External)
		if i := slices.IndexFunc(four, func(l leaf) bool { return l.address == n }); i >= 0 {
			return fmt.Errorf("the data network %s has no room for %d NATs: the instance in slot %d has the address %s of one",
				s.seats.Subnet, len(s.routers), four[i].slot, r.External)
		}
	}
	for _, r := range s.routers {
		n := toNumber(r.External)
		four = append(four, leaf{address: n, four: n, group: external, home: true})
	}
	s.v4, s.v6 = newTable(s.seats.Subnet, four), newTable(s.seats.Subnet6, six)
	return nil
}
