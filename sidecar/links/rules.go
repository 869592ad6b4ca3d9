package links

import (
	"cmp"
	"net/netip"
	"slices"
)

// reach is a stretch of addresses that a rule counts for. No two of a plan overlap.
type reach struct {
	first, last uint32
	rule        int
}

// reaches says which rule counts where in a network: of those that hold an address the one with the longest prefix, of
// equals the last. Rules for the other family are passed over.
func reaches(rules []Rule, network netip.Prefix) []reach {
	type span struct {
		first, last uint32
		bits, rule  int
	}
	var spans []span
	for i, r := range rules {
		if r.To.Addr().BitLen() != network.Addr().BitLen() || !r.To.Overlaps(network) {
			continue
		}
		to := r.To.Masked()
		if to.Bits() < network.Bits() {
			to = network
		}
		host := to.Addr().BitLen() - to.Bits()
		first := toNumber(to.Addr())
		spans = append(spans, span{first, first | ^mask(32-host), r.To.Bits(), i})
	}
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.bits, b.bits), cmp.Compare(a.rule, b.rule))
	})
	// Prefixes lie beside or inside each other, so the ones open at an address make a stack.
	var all []reach
	var open []span
	next := uint64(0) // the first address that no reach was made for
	upTo := func(end uint64) {
		if len(open) > 0 && next < end {
			all = append(all, reach{uint32(next), uint32(end - 1), open[len(open)-1].rule})
		}
		next = max(next, end)
	}
	closeBefore := func(first uint64) {
		for len(open) > 0 && uint64(open[len(open)-1].last) < first {
			upTo(uint64(open[len(open)-1].last) + 1)
			open = open[:len(open)-1]
		}
	}
	for _, s := range spans {
		closeBefore(uint64(s.first))
		upTo(uint64(s.first))
		open = append(open, s)
	}
	closeBefore(1 << 32)
	return all
}

// at is the rule that counts at an address, -1 for none, and the last address for which that is so.
func at(reaches []reach, address uint32) (rule int, last uint32) {
	i, _ := slices.BinarySearchFunc(reaches, address, func(r reach, a uint32) int {
		if r.last < a {
			return -1
		}
		return 1
	})
	switch {
	case i == len(reaches):
		return -1, ^uint32(0)
	case reaches[i].first > address:
		return -1, reaches[i].first - 1
	}
	return reaches[i].rule, reaches[i].last
}
