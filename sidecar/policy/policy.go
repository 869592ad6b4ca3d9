// Package policy puts in force which packets of a data network pass: the policies of links and what may come into an
// instance, by nftables in the router, where the data links of all instances meet. It also marks the packets that the
// shaper in user space is to have.
//
// It works in one place, where packets come into the router, before they are routed: an instance's link leads by one
// look-up to the rules that all with the same ones share, and the destination by a second one to what becomes of the
// packet. Packets that come back from the shaper have been through that already and pass.
//
// A rejected TCP packet is answered with RST, so that connecting fails with "connection refused"; any other with ICMP
// "administratively prohibited", which reads and writes of a connected UDP socket fail with as "no route to host" over
// IPv4 and "permission denied" over IPv6. Both answers come at once, from the router, without the latency of the link;
// ICMP bears the router's address 169.254.1.1, RST that of the instance which was not reached.
//
// Inbound rules are about new connections, which are told from answers by what has gone the other way in the last
// minutes, whether inbound was set then or not. The kernel's own connection tracking isn't used: its table is bounded by
// the host, and packets of new connections are lost in silence once it is full. Of TCP, only the first packet of a
// connection is held back. Of ICMP, only echo requests are; protocols other than these and UDP pass.
//
// Where a network is spread over nodes, each has a table for its own instances. What they send meets their rules where it
// leaves them, and the receiver's inbound rules where it comes out of the tunnel between nodes: those are told by the
// receiver's node alone, which has seen what went the other way.
package policy

import (
	"slices"

	"github.com/groundplan/groundplan/sidecar/links"
)

// Options say where a table is at work.
type Options struct {
	// NearIndex is the index of the router's end of a slot's data link.
	NearIndex func(slot int) int
	// ShaperIndex is the index of the link that marked packets leave by and come back by; 0: none.
	ShaperIndex int
	// MarkShaped says whether all packets that are shaped get the mark, and not only those that need user space.
	MarkShaped bool
	// TunnelIndex is the index of the link that leads to other nodes; 0: there are none.
	TunnelIndex int
	// Local says whether a slot is on this node; nil: all are.
	Local func(slot int) bool
	// Keep has a table that is in force already stay so until the first state is, which then takes its place at once, and
	// leaves it in force when it is closed.
	Keep bool
}

// local says whether a slot is on this node.
func (o Options) local(slot int) bool { return o.Local == nil || o.Local(slot) }

// fate is what becomes of a packet.
type fate uint8

const (
	passed fate = iota
	marked
	rejected
	dropped
)

// span is a stretch of destinations, by the last 32 bits of their addresses, with the same fate. What no span has passes.
type span struct {
	first, last uint32
	fate        fate
}

// content is what becomes of the packets of some instances.
type content struct{ four, six string } // spans, written as bytes so that they can be compared

// fates says what becomes of packets with a path.
func (o Options) fate(p links.Path) fate {
	switch {
	case p.Private || p.Policy == links.Drop:
		return dropped
	case p.Policy == links.Reject:
		return rejected
	case p.UserSpace() || o.MarkShaped && p.Shaped():
		return marked
	}
	return passed
}

// prefix is a span that one with more bits inside it goes before.
type prefix struct {
	span
	bits int
}

// spans boils the routes of one family down to stretches with the same fate, in their order. apart are single addresses
// with a fate that isn't in the routes.
func (o Options) spans(routes []links.Route, v4 bool, apart ...prefix) []span {
	all := slices.Clone(apart)
	for _, r := range routes {
		if r.To.Addr().Is4() != v4 {
			continue
		}
		raw := r.To.Addr().AsSlice()
		host := r.To.Addr().BitLen() - r.To.Bits()
		first := uint32(raw[len(raw)-4])<<24 | uint32(raw[len(raw)-3])<<16 | uint32(raw[len(raw)-2])<<8 | uint32(raw[len(raw)-1])
		all = append(all, prefix{span{first, first | uint32(1<<host-1), o.fate(r.Path)}, r.To.Bits()})
	}
	slices.SortFunc(all, func(a, b prefix) int {
		if a.first != b.first {
			return compare(a.first, b.first)
		}
		return a.bits - b.bits
	})
	// Prefixes lie beside or inside each other, so the ones open at an address make a stack.
	var cover cover
	var open []span
	shut := func(before uint64) {
		for len(open) > 0 && uint64(open[len(open)-1].last) < before {
			cover.upTo(uint64(open[len(open)-1].last)+1, open[len(open)-1].fate)
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			cover.upTo(before, open[len(open)-1].fate)
		}
		cover.upTo(before, passed)
	}
	for _, p := range all {
		shut(uint64(p.first))
		open = append(open, p.span)
	}
	shut(1 << 32)
	return cover.spans
}

func compare(a, b uint32) int {
	if a < b {
		return -1
	}
	return 1
}

// cover is the part of the addresses that has been given a fate, from the first one on.
type cover struct {
	spans []span
	next  uint64
}

func (c *cover) upTo(end uint64, f fate) {
	if end <= c.next {
		return
	}
	first := uint32(c.next)
	c.next = end
	n := len(c.spans)
	switch {
	case f == passed:
	case n > 0 && c.spans[n-1].fate == f && c.spans[n-1].last+1 == first:
		c.spans[n-1].last = uint32(end - 1)
	default:
		c.spans = append(c.spans, span{first, uint32(end - 1), f})
	}
}
