package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

var types = []links.NATType{"full-cone", "restricted", "port-restricted", "symmetric"}

// TestBehaviours is the table of RFC 4787: what each type maps and filters.
func TestBehaviours(t *testing.T) {
	for of, want := range map[links.NATType]struct{ same, otherPort, otherAddress bool }{
		"full-cone":       {true, true, true},
		"restricted":      {true, true, false},
		"port-restricted": {true, false, false},
		"symmetric":       {false, false, false},
	} {
		t.Run(string(of), func(t *testing.T) {
			w := newWorld(t, of, "full-cone")
			first := w.must(w.udp(alice, aliceAt+":5000", samAt+":53"))
			if first.to != sam || first.from.Addr() != netip.MustParseAddr(nearAt) || first.at != port(samAt+":53") {
				t.Errorf("sam sees %+v", first)
			}
			if kept := first.from.Port() == 5000; kept != want.same {
				t.Errorf("port 5000 became %d", first.from.Port())
			}
			second := w.must(w.udp(alice, aliceAt+":5000", tomAt+":53"))
			third := w.must(w.udp(alice, aliceAt+":5000", samAt+":54"))
			if got := second.from == first.from; got != want.same {
				t.Errorf("mapped to %v towards one address and %v towards another", first.from, second.from)
			}
			if got := third.from == first.from; got != want.same {
				t.Errorf("mapped to %v towards one port and %v towards another", first.from, third.from)
			}
			if again := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")); again.from != first.from {
				t.Errorf("mapped to %v and then to %v", first.from, again.from)
			}

			w = newWorld(t, of, "full-cone")
			outside := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")).from.String()
			answer := w.must(w.udp(sam, samAt+":53", outside))
			if answer.to != alice || answer.at != port(aliceAt+":5000") || answer.from != port(samAt+":53") {
				t.Errorf("the answer came as %+v", answer)
			}
			if _, ok := w.udp(sam, samAt+":99", outside); ok != want.otherPort {
				t.Errorf("from another port: passed %v", ok)
			}
			if _, ok := w.udp(tom, tomAt+":53", outside); ok != want.otherAddress {
				t.Errorf("from another address: passed %v", ok)
			}
			if _, ok := w.udp(sam, samAt+":53", nearAt+":9"); ok {
				t.Error("what nobody asked for passed")
			}
		})
	}
}

func TestHairpinComesFromOutside(t *testing.T) {
	for _, of := range types {
		w := newWorld(t, of, "full-cone")
		target := w.must(w.udp(bob, bobAt+":6000", samAt+":53")).from.String()
		got, ok := w.udp(alice, aliceAt+":5000", target)
		if filters := of != "full-cone"; ok == filters {
			t.Errorf("%s: unasked, passed %v", of, ok)
		}
		if ok && (got.to != bob || got.from.Addr() != netip.MustParseAddr(nearAt) || got.at != port(bobAt+":6000")) {
			t.Errorf("%s: bob sees %+v", of, got)
		}
		// Once both have sent to each other's outside, only a NAT that maps anew for each keeps them apart.
		source := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")).from.String()
		w.udp(bob, bobAt+":6000", source)
		got, ok = w.udp(alice, aliceAt+":5000", target)
		if want := of != "symmetric"; ok != want {
			t.Errorf("%s: asked, passed %v", of, ok)
		}
		if ok && got.from.String() != source {
			t.Errorf("%s: bob sees %v instead of %s", of, got.from, source)
		}
	}
}

// TestHolePunching plays what two do who have learnt each other's outside from sam: both send, then either way is tried.
func TestHolePunching(t *testing.T) {
	fails := map[[2]links.NATType]bool{
		{"symmetric", "symmetric"}: true, {"symmetric", "port-restricted"}: true, {"port-restricted", "symmetric"}: true,
	}
	for _, near := range types {
		for _, far := range types {
			w := newWorld(t, near, far)
			a := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")).from.String()
			c := w.must(w.udp(carol, carolAt+":5000", samAt+":53")).from.String()
			reached := false
			for range 2 {
				// Whoever hears the other answers where that came from.
				if got, ok := w.udp(alice, aliceAt+":5000", c); ok {
					_, ok = w.udp(carol, carolAt+":5000", got.from.String())
					reached = reached || ok
				}
				if got, ok := w.udp(carol, carolAt+":5000", a); ok {
					_, ok = w.udp(alice, aliceAt+":5000", got.from.String())
					reached = reached || ok
				}
			}
			if want := !fails[[2]links.NATType{near, far}]; reached != want {
				t.Errorf("%s and %s: reached %v", near, far, reached)
			}
		}
	}
}

func TestPortsBehindOneRouterNeverCollide(t *testing.T) {
	for _, of := range types {
		w := newWorld(t, of, "full-cone")
		owner := map[netip.AddrPort]string{}
		for p := 1000; p < 1100; p++ {
			for slot, at := range map[int]string{alice: aliceAt, bob: bobAt} {
				from := fmt.Sprintf("%s:%d", at, p)
				got := w.must(w.udp(slot, from, samAt+":53"))
				if before := owner[got.from]; before != "" {
					t.Fatalf("%s: %s and %s are both %v", of, before, from, got.from)
				}
				owner[got.from] = from
				if low := got.from.Port() < 1024; low != (p < 1024) {
					t.Errorf("%s: port %d became %d", of, p, got.from.Port())
				}
				if back := w.must(w.udp(sam, samAt+":53", got.from.String())); back.to != slot || back.at.String() != from {
					t.Errorf("%s: the answer to %s came to %+v", of, from, back)
				}
			}
		}
	}
}

func TestWhoSeesWhom(t *testing.T) {
	w := newWorld(t, "full-cone", "full-cone")
	for name, c := range map[string]struct {
		from     int
		packet   []byte
		to       int
		passes   bool
		mustStay bool
	}{
		"public to public":           {sam, udp(samAt+":1", tomAt+":2", ""), tom, true, true},
		"behind the same router":     {alice, udp(aliceAt+":1", bobAt+":2", ""), bob, true, true},
		"public to private":          {sam, udp(samAt+":1", aliceAt+":2", ""), 0, false, true},
		"private to another private": {alice, udp(aliceAt+":1", carolAt+":2", ""), 0, false, true},
		"to nobody":                  {alice, udp(aliceAt+":1", "10.0.7.7:2", ""), 0, false, true},
		"in another's name":          {alice, udp(bobAt+":1", samAt+":2", ""), 0, false, true},
		"another protocol":           {alice, ip(132, netip.MustParseAddr(aliceAt), netip.MustParseAddr(samAt), make([]byte, 40)), 0, false, true},
		"a redirect":                 {alice, echo(5, aliceAt, samAt, 1), 0, false, true},
		"an unasked answer":          {alice, echo(echoReply, aliceAt, samAt, 1), 0, false, true},
		"a refusal of nothing":       {alice, refusal(aliceAt, samAt, udp(samAt+":1", aliceAt+":2", ""), 8), 0, false, true},
	} {
		before := slices.Clone(c.packet)
		to, ok := w.nat.Translate(c.packet, c.from, w.now)
		if ok != c.passes || to != c.to {
			t.Errorf("%s: to %d, %v", name, to, ok)
		}
		if c.mustStay && !slices.Equal(before, c.packet) {
			t.Errorf("%s: changed", name)
		}
	}
	if len(w.nat.homes[alice].inside) > 0 {
		t.Error("what did not pass left a mapping")
	}
}

func TestApply(t *testing.T) {
	w := newWorld(t, "port-restricted", "symmetric")
	near := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")).from.String()
	other := w.must(w.udp(bob, bobAt+":5001", samAt+":53")).from.String()
	far := w.must(w.udp(carol, carolAt+":5000", samAt+":53")).from.String()
	answered := func(outside string) bool { _, ok := w.udp(sam, samAt+":53", outside); return ok }
	apply := func(routers []links.Router, instances []links.Instance) {
		t.Helper()
		if err := w.nat.Apply(routers, nil, instances); err != nil {
			t.Fatal(err)
		}
	}
	apply(routersOf("port-restricted", "symmetric"), people())
	if !answered(near) || !answered(far) || !answered(other) {
		t.Error("mappings went with a state that left the routers as they were")
	}
	moved := people()
	for i := range moved {
		if moved[i].Slot == bob {
			moved[i].Data = netip.MustParseAddr("10.0.9.9")
		}
	}
	apply(routersOf("port-restricted", "full-cone"), moved)
	if !answered(near) {
		t.Error("alice's mapping went with bob's move")
	}
	if answered(other) || answered(far) {
		t.Error("a mapping outlived its instance's address or its router's type")
	}
	if got := w.must(w.udp(bob, "10.0.9.9:5001", samAt+":53")); got.from.String() != other {
		t.Errorf("bob is %v at his new address", got.from)
	}
	apply(nil, people())
	if got := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")); got.from != port(aliceAt+":5000") {
		t.Errorf("without a router sam sees %v", got.from)
	}
}

func TestApplyRefuses(t *testing.T) {
	w := newWorld(t, "full-cone", "full-cone")
	outside := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")).from.String()
	change := func(f func(r []links.Router)) []links.Router {
		r := routersOf("full-cone", "full-cone")
		f(r)
		return r
	}
	for says, routers := range map[string][]links.Router{
		`no NAT of type "conical"`:                    change(func(r []links.Router) { r[0].Type = "conical" }),
		"two NATs have the external address " + farAt: change(func(r []links.Router) { r[0].External = r[1].External }),
		"instance 1 is behind two NATs":               change(func(r []links.Router) { r[1].Slots = []int{alice} }),
		"is not an IPv4 address":                      change(func(r []links.Router) { r[1].External = netip.IPv6Loopback() }),
	} {
		if err := w.nat.Apply(routers, nil, people()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want something with %q", err, says)
		}
	}
	if got := w.must(w.udp(sam, samAt+":53", outside)); got.to != alice {
		t.Error("a state that was refused changed something")
	}
}

func TestApplyWhilePacketsPass(t *testing.T) {
	w := newWorld(t, "symmetric", "restricted")
	var work sync.WaitGroup
	done := make(chan struct{})
	work.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			packet := udp(fmt.Sprintf("%s:%d", aliceAt, 1024+i%1000), samAt+":53", "x")
			if _, ok := w.nat.Translate(packet, alice, w.now); !ok {
				t.Error("dropped")
				return
			}
		}
	})
	for i := range 200 {
		if err := w.nat.Apply(routersOf(types[i%4], types[i%3]), nil, people()); err != nil {
			t.Error(err)
		}
	}
	close(done)
	work.Wait()
}

func TestNoPortIsLeft(t *testing.T) {
	w := newWorld(t, "port-restricted", "full-cone")
	// bob takes all there are.
	for p := 1024; p < 1<<16; p++ {
		w.quick(bob, bobAt, uint16(p), samAt, 53)
	}
	for range 3 {
		if _, ok := w.udp(alice, aliceAt+":5000", samAt+":53"); ok {
			t.Error("alice got a port of bob's")
		}
	}
	if got := strings.Count(w.log.String(), "no port left"); got != 1 {
		t.Errorf("it was said %d times: %s", got, w.log.String())
	}
	w.now = w.now.Add(DefaultTimeout)
	w.must(w.udp(alice, aliceAt+":5000", samAt+":53"))
}

func TestSymmetricSharesPortsOnlyWhenItMust(t *testing.T) {
	w := newWorld(t, "symmetric", "full-cone")
	ports := map[uint16]int{}
	for p := 1024; p < 1<<16; p += 8 {
		for remote := range uint16(12) {
			got := w.quick(bob, bobAt, uint16(p), samAt, 1+remote)
			ports[got]++
			if back := w.quick(sam, samAt, 1+remote, nearAt, got); back != 1+remote {
				t.Fatalf("an answer from %d came from %d", remote+1, back)
			}
		}
		if len(ports) < 20_000 && len(ports) != (p-1024+8)/8*12 {
			t.Fatalf("a port was shared when only %d were in use", len(ports))
		}
	}
}

func TestWhatIsOverIsForgotten(t *testing.T) {
	w := newWorld(t, "restricted", "symmetric")
	for i := range 60_000 {
		w.now = w.now.Add(50 * time.Millisecond) // 2,400 at a time
		w.quick(alice, aliceAt, uint16(1024+i), samAt, 53)
		w.quick(carol, carolAt, 5000, samAt, uint16(1+i))
		w.quick(bob, bobAt, 80, samAt, uint16(1+i)) // one mapping with many sessions
	}
	near, far := w.nat.homes[alice], w.nat.homes[carol]
	for name, size := range map[string]int{
		"mappings": len(near.inside), "mappings of a symmetric one": len(far.inside),
		"sessions": len(near.inside[insideKey{protocol: protocolUDP, local: endpoint{number(bobAt), 80}}].sessions),
	} {
		if size > 6_000 {
			t.Errorf("%d %s are kept for 2,400 that live", size, name)
		}
	}
	if len(near.inside) != len(near.outside) || len(far.inside) != len(far.outside) {
		t.Error("mappings are found from one side only")
	}
	for _, m := range near.inside {
		sum := 0
		for _, n := range m.addresses {
			sum += n
		}
		if sum != len(m.sessions) {
			t.Errorf("%d sessions are counted as %d", len(m.sessions), sum)
		}
	}
	for _, r := range []*router{near, far} {
		sum := 0
		for _, n := range r.used {
			sum += n
		}
		if sum != len(r.inside) {
			t.Errorf("%d ports are in use by %d mappings", sum, len(r.inside))
		}
	}
}

func number(a string) uint32 {
	b := netip.MustParseAddr(a).As4()
	return binary.BigEndian.Uint32(b[:])
}

// FuzzTranslate sends anything after a mapping of each kind is there.
func FuzzTranslate(f *testing.F) {
	for _, b := range [][]byte{
		udp(aliceAt+":5000", samAt+":53", "x"), tcp(aliceAt+":5000", samAt+":53", flagSYN), echo(echoRequest, aliceAt, samAt, 5000),
		udp(samAt+":53", nearAt+":5000", "x"), echo(echoReply, samAt, nearAt, 5000),
		refusal(samAt, nearAt, udp(nearAt+":5000", samAt+":53", "x"), 8),
		refusal(aliceAt, samAt, tcp(samAt+":53", aliceAt+":5000", flagSYN), 20),
		fragment(udp(aliceAt+":5000", samAt+":53", "x"), 0, true), nil, make([]byte, 20),
	} {
		f.Add(b, uint8(alice))
		f.Add(b, uint8(sam))
	}
	f.Fuzz(func(t *testing.T, b []byte, from uint8) {
		for _, of := range types {
			w := newWorld(t, of, "full-cone")
			for _, first := range [][]byte{
				udp(aliceAt+":5000", samAt+":53", ""), tcp(aliceAt+":5000", samAt+":53", flagSYN), echo(echoRequest, aliceAt, samAt, 5000),
			} {
				w.must(w.pass(alice, first))
			}
			got := slices.Clone(b)
			to, ok := w.nat.Translate(got, int(from), w.now)
			if len(got) != len(b) {
				t.Fatalf("%d bytes became %d", len(b), len(got))
			}
			if !ok {
				continue
			}
			if !slices.Contains([]int{alice, bob, carol, sam, tom}, to) {
				t.Errorf("%x goes to %d", b, to)
			}
			if header := int(b[0]&0xf) * 4; total(b[:header]) == 0xffff && total(got[:header]) != 0xffff {
				t.Errorf("%x has a wrong checksum, %x had a right one", got, b)
			}
		}
	})
}
