package fabric

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/sidecar/control"
)

func TestPrefixesHoldTheSlotsOfANodeAndNoOthers(t *testing.T) {
	own := netip.MustParseAddr("192.168.0.1")
	for name, nodes := range map[string][]control.Peer{
		"in a row":   {peer(1, 0, 99), peer(2, 100, 353), peer(3, 354, 1000), peer(4, 1001, 9999)},
		"in pieces":  {peer(1, 0, 9, 20, 29), peer(2, 10, 19, 30, 300), peer(3, 301, 301)},
		"one by one": alternating(3, 900),
	} {
		t.Run(name, func(t *testing.T) {
			a, err := newAtlas(nodes, hopOf(own))
			if err != nil {
				t.Fatal(err)
			}
			routes := a.prefixes(DefaultSubnet)
			t.Logf("%d routes", len(routes))
			for slot := range 11_000 {
				got := longest(routes, address(DefaultSubnet, slot))
				want := netip.Addr{}
				if h, elsewhere := a.elsewhere(slot); elsewhere {
					want = h.four
				}
				if got != want {
					t.Fatalf("slot %d goes to %v, want %v", slot, got, want)
				}
			}
		})
	}
}

func peer(number int, slots ...int) control.Peer {
	p := control.Peer{Name: fmt.Sprint("node", number), Address: netip.AddrFrom4([4]byte{192, 168, 0, byte(number)})}
	for i := 0; i < len(slots); i += 2 {
		p.Slots = append(p.Slots, [2]int{slots[i], slots[i+1]})
	}
	return p
}

// alternating nodes hold every n-th slot.
func alternating(nodes, slots int) []control.Peer {
	all := make([]control.Peer, nodes)
	for i := range all {
		all[i] = peer(i + 1)
	}
	for slot := range slots {
		p := &all[slot%nodes]
		p.Slots = append(p.Slots, [2]int{slot, slot})
	}
	return all
}

// longest is where the longest of the prefixes that hold an address leads.
func longest(routes map[netip.Prefix]hop, a netip.Addr) netip.Addr {
	bits, to := -1, netip.Addr{}
	for p, h := range routes {
		if p.Contains(a) && p.Bits() > bits {
			bits, to = p.Bits(), h.four
		}
	}
	return to
}

func TestAtlasRefusesWhatCannotBe(t *testing.T) {
	own := hopOf(netip.MustParseAddr("192.168.0.1"))
	far := peer(1, 0, 1)
	far.Name, far.Address = "far", netip.MustParseAddr("208.168.0.1") // the same last 28 bits
	for says, nodes := range map[string][]control.Peer{
		"slot 5 is said to be on two nodes":                 {peer(1, 0, 5), peer(2, 5, 9)},
		"the nodes node2 and node2 can't be told apart":     {peer(2, 0, 1), peer(2, 2, 3)},
		"the nodes 192.168.0.1 and far can't be told apart": {far},
		"said to have the slots 7 to 3":                     {peer(2, 7, 3)},
		"the node nameless has no address":                  {{Name: "nameless"}},
	} {
		if _, err := newAtlas(nodes, own); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func TestHops(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for _, a := range []string{"10.0.0.1", "10.0.0.2", "192.168.1.2", "fd00::1", "fd00::2"} {
		h := hopOf(netip.MustParseAddr(a))
		if !hops.Contains(h.four) || seen[h.four] || h.hardware[0]&3 != 2 || !h.six.IsLinkLocalUnicast() {
			t.Errorf("%s: %+v", a, h)
		}
		seen[h.four] = true
	}
}

func FuzzCover(f *testing.F) {
	f.Add(uint32(0), uint32(0))
	f.Add(uint32(0x0a000002), uint32(300))
	f.Fuzz(func(t *testing.T, first, size uint32) {
		size %= 5000
		if first > ^uint32(0)-size {
			return
		}
		next := uint64(first)
		for _, p := range cover(number(first), number(first+size)) {
			raw := p.Addr().As4()
			at := uint64(raw[0])<<24 | uint64(raw[1])<<16 | uint64(raw[2])<<8 | uint64(raw[3])
			if at != next || p != p.Masked() {
				t.Fatalf("%s after %#x", p, next)
			}
			next += 1 << (32 - p.Bits())
		}
		if next != uint64(first)+uint64(size)+1 {
			t.Fatalf("it ends before %#x", next)
		}
	})
}

func number(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
