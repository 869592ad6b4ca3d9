package fabric

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/bits"
	"net"
	"net/netip"
	"slices"

	"github.com/groundplan/groundplan/sidecar/control"
)

// hops are the addresses by which routers of nodes know each other. Nobody else uses them.
var hops = netip.PrefixFrom(netip.AddrFrom4([4]byte{240, 0, 0, 0}), 4)

// tunnelNetwork is the second byte of the hardware addresses of tunnels.
const tunnelNetwork = 0xd0

// hop is how routers address another node's: all of it follows from the node's own address.
type hop struct {
	underlay netip.Addr
	four     netip.Addr
	six      netip.Addr
	hardware net.HardwareAddr
}

// hopOf says how a node is addressed. Of an IPv4 address the last 28 bits stay, which differ between the nodes of any
// network; those of IPv6 are mixed, and may come out the same for two of them.
func hopOf(underlay netip.Addr) hop {
	var number uint32
	if underlay.Is4() {
		raw := underlay.As4()
		number = binary.BigEndian.Uint32(raw[:])
	} else {
		hash := fnv.New32a()
		hash.Write(underlay.AsSlice())
		number = hash.Sum32()
	}
	h := hopAt(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, number|0xf0000000))))
	h.underlay = underlay
	return h
}

// hopAt is the hop whose router has that address, without the node's own.
func hopAt(four netip.Addr) hop {
	raw := four.AsSlice()
	six := [16]byte{0: 0xfe, 1: 0x80, 10: 0xd0}
	copy(six[12:], raw)
	return hop{four: four, six: netip.AddrFrom16(six), hardware: append(net.HardwareAddr{0x02, tunnelNetwork}, raw...)}
}

// stretch is a range of slots, both ends in, that are on one other node.
type stretch struct {
	first, last int
	hop         hop
}

// atlas says which slots are on which node. Its stretches are in order and don't overlap.
type atlas struct {
	own       hop
	stretches []stretch
}

// newAtlas makes one of all nodes, for the one that is addressed so.
func newAtlas(nodes []control.Peer, own hop) (atlas, error) {
	a := atlas{own: own}
	seen := map[netip.Addr]string{}
	for _, n := range nodes {
		h := hopOf(n.Address.Unmap())
		switch other, twice := seen[h.four]; {
		case !n.Address.IsValid():
			return atlas{}, fmt.Errorf("the node %s has no address", n.Name)
		case twice, h.four == own.four && h.underlay != own.underlay:
			return atlas{}, fmt.Errorf("the nodes %s and %s can't be told apart by their addresses: give one of them another", cmp.Or(other, own.underlay.String()), n.Name)
		}
		seen[h.four] = n.Name
		for _, slots := range n.Slots {
			if slots[0] < 0 || slots[0] > slots[1] {
				return atlas{}, fmt.Errorf("the node %s is said to have the slots %d to %d", n.Name, slots[0], slots[1])
			}
			a.stretches = append(a.stretches, stretch{slots[0], slots[1], h})
		}
	}
	slices.SortFunc(a.stretches, func(a, b stretch) int { return a.first - b.first })
	for i, s := range a.stretches[min(1, len(a.stretches)):] {
		if s.first <= a.stretches[i].last {
			return atlas{}, fmt.Errorf("the slot %d is said to be on two nodes, %s and %s", s.first, a.stretches[i].hop.underlay, s.hop.underlay)
		}
	}
	return a, nil
}

// elsewhere says on which other node a slot is.
func (a *atlas) elsewhere(slot int) (hop, bool) {
	h, ok := a.find(slot)
	return h, ok && h.underlay != a.own.underlay
}

// find says on which node a slot is.
func (a *atlas) find(slot int) (hop, bool) {
	i, ok := slices.BinarySearchFunc(a.stretches, slot, func(s stretch, slot int) int {
		switch {
		case s.last < slot:
			return -1
		case s.first > slot:
			return 1
		}
		return 0
	})
	if !ok {
		return hop{}, false
	}
	return a.stretches[i].hop, true
}

// hops are those of all other nodes that hold slots, each once.
func (a *atlas) hops() []hop {
	seen := map[netip.Addr]bool{a.own.four: true}
	var all []hop
	for _, s := range a.stretches {
		if !seen[s.hop.four] {
			seen[s.hop.four] = true
			all = append(all, s.hop)
		}
	}
	return all
}

// prefixes are the routes to the slots of all other nodes: the fewest prefixes that hold all addresses of a stretch and
// none of others. Addresses that no slot has, those that end in .0 and .255, may be in any.
func (a *atlas) prefixes(subnet netip.Prefix) map[netip.Prefix]hop {
	all := make(map[netip.Prefix]hop)
	for _, s := range a.joined() {
		if s.hop.underlay == a.own.underlay {
			continue
		}
		first, last := address(subnet, s.first), address(subnet, s.last)
		if !first.IsValid() || !last.IsValid() {
			continue // more slots than the network has: nobody can be there
		}
		for _, p := range cover(first, last) {
			all[p] = s.hop
		}
	}
	return all
}

// joined are the stretches with those together that follow each other on the same node.
func (a *atlas) joined() []stretch {
	var all []stretch
	for _, s := range a.stretches {
		if n := len(all); n > 0 && all[n-1].last+1 == s.first && all[n-1].hop.underlay == s.hop.underlay {
			all[n-1].last = s.last
			continue
		}
		all = append(all, s)
	}
	return all
}

// cover is the fewest prefixes that hold exactly the addresses from first to last.
func cover(first, last netip.Addr) []netip.Prefix {
	from, to := first.As4(), last.As4()
	at, end := uint64(binary.BigEndian.Uint32(from[:])), uint64(binary.BigEndian.Uint32(to[:]))
	var all []netip.Prefix
	for at <= end {
		size := min(bits.TrailingZeros64(at|1<<32), bits.Len64(end-at+1)-1)
		raw := binary.BigEndian.AppendUint32(nil, uint32(at))
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte(raw)), 32-size))
		at += 1 << size
	}
	return all
}

// prefix6 is the part of the IPv6 data network that goes with one of the IPv4 network.
func prefix6(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(address6(p.Addr()), p.Bits()+96) }
