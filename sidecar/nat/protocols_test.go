package nat

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

func TestMappingsOfUDPEnd(t *testing.T) {
	for _, timeout := range []time.Duration{0, 10 * time.Second} {
		w := newWorld(t, "full-cone", "full-cone")
		routers := routersOf("full-cone", "full-cone")
		routers[0].Timeout = timeout
		if err := w.nat.Apply(routers, nil, people()); err != nil {
			t.Fatal(err)
		}
		if timeout == 0 {
			timeout = DefaultTimeout
		}
		outside := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")).from.String()
		for range 3 {
			w.now = w.now.Add(timeout - time.Second)
			w.must(w.udp(alice, aliceAt+":5000", samAt+":53")) // refreshes
		}
		w.now = w.now.Add(timeout - time.Second)
		w.must(w.udp(sam, samAt+":53", outside)) // doesn't
		w.must(w.udp(tom, tomAt+":53", outside)) // nor does another
		w.now = w.now.Add(2 * time.Second)
		for slot, at := range map[int]string{sam: samAt, tom: tomAt} {
			if _, ok := w.udp(slot, at+":53", outside); ok {
				t.Errorf("after %v a packet from %s passes", timeout, at)
			}
		}
	}
}

func TestAFilterEndsByItself(t *testing.T) {
	w := newWorld(t, "restricted", "full-cone")
	outside := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")).from.String()
	w.now = w.now.Add(DefaultTimeout - time.Second)
	w.must(w.udp(alice, aliceAt+":5000", tomAt+":53"))
	w.must(w.udp(sam, samAt+":99", outside))
	w.now = w.now.Add(2 * time.Second)
	w.must(w.udp(tom, tomAt+":99", outside))
	if _, ok := w.udp(sam, samAt+":99", outside); ok {
		t.Error("sam is let in by what was sent to tom")
	}
	if again := w.must(w.udp(alice, aliceAt+":5000", samAt+":53")); again.from.String() != outside {
		t.Errorf("the mapping went from %s to %v", outside, again.from)
	}
}

func TestConnections(t *testing.T) {
	const inside, server = aliceAt + ":5000", samAt + ":80"
	type step struct {
		out    bool // from alice, else from sam
		flags  byte
		passes bool
	}
	open := []step{{true, flagSYN, true}, {false, flagSYN | flagACK, true}, {true, flagACK, true}}
	for name, c := range map[string]struct {
		of    links.NATType
		steps []step
		lives time.Duration
	}{
		"half open":            {"port-restricted", open[:2], transitoryTimeout},
		"established":          {"port-restricted", open, establishedTimeout},
		"symmetric":            {"symmetric", open, establishedTimeout},
		"half closed":          {"port-restricted", append(slices.Clone(open), step{true, flagFIN | flagACK, true}), establishedTimeout},
		"closed":               {"port-restricted", append(slices.Clone(open), step{true, flagFIN | flagACK, true}, step{false, flagFIN | flagACK, true}), transitoryTimeout},
		"reset":                {"full-cone", append(slices.Clone(open), step{false, flagRST, true}), transitoryTimeout},
		"refused":              {"restricted", []step{{true, flagSYN, true}, {false, flagRST | flagACK, true}}, transitoryTimeout},
		"begun anew":           {"restricted", append([]step{{true, flagSYN, true}, {false, flagRST | flagACK, true}}, open...), establishedTimeout},
		"at the same time":     {"port-restricted", []step{{true, flagSYN, true}, {false, flagSYN, true}, {true, flagSYN | flagACK, true}, {false, flagSYN | flagACK, true}}, establishedTimeout},
		"in the middle":        {"port-restricted", []step{{true, flagACK, true}, {false, flagRST, true}}, transitoryTimeout},
		"a reset of nothing":   {"full-cone", []step{{true, flagRST, false}}, 0},
		"unasked":              {"full-cone", []step{{false, flagSYN, false}}, 0},
		"unasked, in a middle": {"full-cone", []step{{false, flagACK, false}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			play := func() (*world, string) {
				w := newWorld(t, c.of, "full-cone")
				outside := nearAt + ":5000"
				for i, s := range c.steps {
					from, packet := sam, tcp(server, outside, s.flags)
					if s.out {
						from, packet = alice, tcp(inside, server, s.flags)
					}
					got, ok := w.pass(from, packet)
					if ok != s.passes {
						t.Fatalf("step %d: passed %v", i, ok)
					}
					if ok && s.out {
						outside = got.from.String()
					}
				}
				return w, outside
			}
			for after, want := range map[time.Duration]bool{c.lives - time.Second: c.lives > 0, c.lives: false} {
				w, outside := play()
				w.now = w.now.Add(after)
				if _, ok := w.pass(sam, tcp(server, outside, flagACK)); ok != want {
					t.Errorf("after %v a segment from outside passes: %v", after, ok)
				}
			}
		})
	}
}

func TestConnectionsFromOutside(t *testing.T) {
	for of, want := range map[links.NATType]struct{ otherPort, otherAddress bool }{
		"full-cone": {true, true}, "restricted": {true, false}, "port-restricted": {}, "symmetric": {},
	} {
		w := newWorld(t, of, "full-cone")
		outside := w.must(w.pass(alice, tcp(aliceAt+":5000", samAt+":80", flagSYN))).from.String()
		for _, c := range []struct {
			slot int
			from string
			want bool
		}{{sam, samAt + ":4000", want.otherPort}, {tom, tomAt + ":4000", want.otherAddress}} {
			if _, ok := w.pass(c.slot, tcp(c.from, outside, flagACK)); ok {
				t.Errorf("%s: the middle of a connection from %s passes", of, c.from)
			}
			if _, ok := w.pass(c.slot, tcp(c.from, outside, flagSYN|flagACK)); ok {
				t.Errorf("%s: an answer from %s that was not asked passes", of, c.from)
			}
			got, ok := w.pass(c.slot, tcp(c.from, outside, flagSYN))
			if ok != c.want {
				t.Errorf("%s: a connection from %s: passed %v", of, c.from, ok)
			}
			if !ok {
				continue
			}
			answer := w.must(w.pass(alice, tcp(got.at.String(), c.from, flagSYN|flagACK)))
			if answer.from.String() != outside || answer.to != c.slot {
				t.Errorf("%s: the answer came as %+v", of, answer)
			}
			w.must(w.pass(c.slot, tcp(c.from, outside, flagACK)))
		}
	}
}

func TestEchoes(t *testing.T) {
	for _, of := range types {
		w := newWorld(t, of, "full-cone")
		a := w.must(w.pass(alice, echo(echoRequest, aliceAt, samAt, 7)))
		b := w.must(w.pass(bob, echo(echoRequest, bobAt, samAt, 7)))
		if a.from == b.from || a.from.Addr().String() != nearAt {
			t.Errorf("%s: alice is %v, bob %v", of, a.from, b.from)
		}
		for slot, asked := range map[int]seen{alice: a, bob: b} {
			got := w.must(w.pass(sam, echo(echoReply, samAt, nearAt, asked.from.Port())))
			if got.to != slot || got.at.Port() != 7 {
				t.Errorf("%s: the answer for %d came as %+v", of, slot, got)
			}
		}
		if _, ok := w.pass(sam, echo(echoRequest, samAt, nearAt, a.from.Port())); ok {
			t.Errorf("%s: a question passes from outside", of)
		}
		if _, ok := w.pass(tom, echo(echoReply, tomAt, nearAt, a.from.Port())); ok {
			t.Errorf("%s: an answer of somebody who wasn't asked passes", of)
		}
		w.now = w.now.Add(queryTimeout)
		if _, ok := w.pass(sam, echo(echoReply, samAt, nearAt, a.from.Port())); ok {
			t.Errorf("%s: an answer passes after its time", of)
		}
	}
}

// TestRefusals sends ICMP errors both ways, with as much of the refused packet as hosts send and with the least.
func TestRefusals(t *testing.T) {
	for _, of := range types {
		for _, keep := range []int{8, 500} {
			for name, build := range map[string]func(from, to string) []byte{
				"udp":       func(from, to string) []byte { return udp(from, to, "hello") },
				"tcp":       func(from, to string) []byte { return tcp(from, to, flagSYN) },
				"udp, no 0": func(from, to string) []byte { return unchecked(udp(from, to, "hello")) },
			} {
				t.Run(fmt.Sprintf("%s/%s/%d", of, name, keep), func(t *testing.T) {
					w := newWorld(t, of, "full-cone")
					out := w.must(w.pass(alice, build(aliceAt+":5000", samAt+":53")))
					got := w.must(w.pass(sam, refusal(samAt, nearAt, out.raw, keep)))
					about(t, got, alice, aliceAt, aliceAt+":5000", samAt+":53")
					// From a router on the way, and the other way.
					got = w.must(w.pass(tom, refusal(tomAt, nearAt, out.raw, keep)))
					about(t, got, alice, aliceAt, aliceAt+":5000", samAt+":53")
					in := w.must(w.pass(sam, build(samAt+":53", out.from.String())))
					got = w.must(w.pass(alice, refusal(aliceAt, samAt, in.raw, keep)))
					about(t, got, sam, samAt, samAt+":53", out.from.String())
					if s := ends2(got.raw[:20]); s != nearAt {
						t.Errorf("it is from %v", s)
					}
					w.now = w.now.Add(establishedTimeout)
					if _, ok := w.pass(sam, refusal(samAt, nearAt, out.raw, keep)); ok {
						t.Error("passes when the mapping is over")
					}
				})
			}
		}
	}
}

func ends2(b []byte) string { return fmt.Sprintf("%d.%d.%d.%d", b[12], b[13], b[14], b[15]) }

// about checks whom an error is for and that it is about a packet of his.
func about(t *testing.T, got seen, to int, at, from, towards string) {
	t.Helper()
	inside := got.raw[28:]
	s, d := ends(inside[:28])
	if got.to != to || got.at.Addr().String() != at || s != port(from) || d != port(towards) {
		t.Errorf("it came to %d (%v), about a packet from %v to %v", got.to, got.at.Addr(), s, d)
	}
}

func TestRefusalOfAnEcho(t *testing.T) {
	w := newWorld(t, "symmetric", "full-cone")
	out := w.must(w.pass(alice, echo(echoRequest, aliceAt, samAt, 7)))
	got := w.must(w.pass(sam, refusal(samAt, nearAt, out.raw, 8)))
	inside := got.raw[28:]
	if id := binary.BigEndian.Uint16(inside[24:]); got.to != alice || id != 7 || ends2(inside) != aliceAt {
		t.Errorf("alice is told about %d of %s", id, ends2(inside))
	}
}

func TestRefusalOnAHairpin(t *testing.T) {
	w := newWorld(t, "full-cone", "full-cone")
	target := w.must(w.udp(bob, bobAt+":6000", samAt+":53")).from.String()
	got := w.must(w.udp(alice, aliceAt+":5000", target))
	back := w.must(w.pass(bob, refusal(bobAt, nearAt, got.raw, 8)))
	about(t, back, alice, aliceAt, aliceAt+":5000", target)
}

func TestRefusalsOfOthers(t *testing.T) {
	w := newWorld(t, "full-cone", "full-cone")
	out := w.must(w.udp(alice, aliceAt+":5000", samAt+":53"))
	for name, packet := range map[string][]byte{
		"about an unknown port":     refusal(samAt, nearAt, udp(nearAt+":99", samAt+":53", ""), 8),
		"about another's packet":    refusal(samAt, nearAt, udp(farAt+":5000", samAt+":53", ""), 8),
		"cut short":                 refusal(samAt, nearAt, out.raw, 7),
		"about a later fragment":    refusal(samAt, nearAt, fragment(slices.Clone(out.raw), 8, false), 8),
		"about another protocol":    refusal(samAt, nearAt, ip(132, out.from.Addr(), out.at.Addr(), make([]byte, 8)), 8),
		"about an ICMP error":       refusal(samAt, nearAt, refusal(nearAt, samAt, out.raw, 8), 8),
		"in a fragment":             fragment(refusal(samAt, nearAt, out.raw, 8), 0, true),
		"about a packet without IP": refusal(samAt, nearAt, make([]byte, 28), 8),
	} {
		if _, ok := w.nat.Translate(packet, sam, w.now); ok {
			t.Errorf("%s: passes", name)
		}
	}
	in := w.must(w.udp(sam, samAt+":53", out.from.String()))
	if _, ok := w.pass(bob, refusal(bobAt, samAt, in.raw, 8)); ok {
		t.Error("bob refuses what alice got")
	}
}

// unchecked takes the checksum of a UDP packet away.
func unchecked(b []byte) []byte {
	b[26], b[27] = 0, 0
	return b
}

func TestChecksums(t *testing.T) {
	w := newWorld(t, "full-cone", "full-cone")
	got := w.must(w.pass(alice, unchecked(udp(aliceAt+":5000", samAt+":53", "x"))))
	if got.raw[26] != 0 || got.raw[27] != 0 {
		t.Error("a packet without a checksum got one")
	}
	// Over all ports and many payloads, among them those whose sum is 0.
	for i := range 1 << 16 {
		packet := udp(aliceAt+":5000", samAt+":53", string([]byte{byte(i >> 8), byte(i)}))
		negative := packet[26] == 0xff && packet[27] == 0xff
		got := w.must(w.pass(alice, packet))
		if negative { // in a refusal it comes to 0 on the way back
			w.must(w.pass(sam, refusal(samAt, nearAt, got.raw, 500)))
		}
		if got.raw[26] == 0 && got.raw[27] == 0 {
			t.Fatalf("a packet with a checksum lost it: %x", packet)
		}
	}
	// What was corrupt stays so.
	packet := tcp(aliceAt+":5000", samAt+":53", flagSYN)
	packet[30] ^= 1
	if _, ok := w.nat.Translate(packet, alice, w.now); !ok {
		t.Error("dropped")
	}
	if body := packet[20:]; total(pseudo(protocolTCP, port(nearAt+":1").Addr(), port(samAt+":1").Addr(), len(body)), body) == 0xffff {
		t.Error("a corrupt packet was mended")
	}
}

func TestOptionsAndPadding(t *testing.T) {
	w := newWorld(t, "full-cone", "full-cone")
	plain := udp(aliceAt+":5000", samAt+":53", "hello")
	packet := slices.Insert(slices.Clone(plain), 20, 1, 1, 1, 0) // no-ops, end
	packet[0] = 0x46
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	packet[10], packet[11] = 0, 0
	binary.BigEndian.PutUint16(packet[10:], ^total(packet[:24]))
	packet = append(packet, 9, 9, 9) // what Ethernet pads
	to, ok := w.nat.Translate(packet, alice, w.now)
	if !ok || to != sam || total(packet[:24]) != 0xffff || binary.BigEndian.Uint16(packet[24:]) != 5000 {
		t.Errorf("to %d, %v: %x", to, ok, packet)
	}
	if !slices.Equal(packet[len(packet)-3:], []byte{9, 9, 9}) {
		t.Error("the padding changed")
	}
}

// fragment makes a fragment of a packet: offset in bytes.
func fragment(b []byte, offset int, more bool) []byte {
	place := uint16(offset / 8)
	if more {
		place |= 0x2000
	}
	binary.BigEndian.PutUint16(b[6:], place)
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^total(b[:20]))
	return b
}

func TestFragments(t *testing.T) {
	for _, of := range types {
		w := newWorld(t, of, "full-cone")
		first := func() []byte { return fragment(udp(aliceAt+":5000", samAt+":53", "12345678"), 0, true) }
		later := func(offset int, more bool) []byte {
			return fragment(ip(protocolUDP, port(aliceAt+":1").Addr(), port(samAt+":1").Addr(), []byte("rest")), offset, more)
		}
		if _, ok := w.pass(alice, later(16, false)); ok {
			t.Errorf("%s: a later fragment passes before the first", of)
		}
		head := w.must(w.pass(alice, first()))
		for _, f := range [][]byte{later(16, true), later(24, false)} {
			got := w.must(w.pass(alice, f))
			if got.to != sam || ends2(got.raw) != nearAt || string(got.raw[20:]) != "rest" {
				t.Errorf("%s: a later fragment came as %+v", of, got)
			}
		}
		// And back.
		w.must(w.pass(sam, fragment(udp(samAt+":53", head.from.String(), "12345678"), 0, true)))
		got := w.must(w.pass(sam, fragment(ip(protocolUDP, port(samAt+":1").Addr(), port(nearAt+":1").Addr(), []byte("rest")), 16, false)))
		if got.to != alice || got.at.Addr().String() != aliceAt {
			t.Errorf("%s: a later fragment came back as %+v", of, got)
		}
		w.now = w.now.Add(fragmentTimeout)
		if _, ok := w.pass(alice, later(24, false)); ok {
			t.Errorf("%s: a later fragment passes after its time", of)
		}
		w.must(w.pass(alice, first()))
		if n := len(w.nat.fragments.ways); n != 1 {
			t.Errorf("%s: %d packets are remembered", of, n)
		}
	}
}

func BenchmarkTranslate(b *testing.B) {
	for _, of := range types {
		for _, flows := range []int{1, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", of, flows), func(b *testing.B) {
				n := New(7, nil)
				if err := n.Apply(routersOf(of, of), nil, people()); err != nil {
					b.Fatal(err)
				}
				packets, work := make([][]byte, flows), make([]byte, 28)
				for i := range packets {
					packets[i] = udp(fmt.Sprintf("%s:%d", aliceAt, 1024+i), samAt+":53", "")
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					copy(work, packets[i%flows])
					if _, ok := n.Translate(work, alice, begin); !ok {
						b.Fatal("dropped")
					}
				}
			})
		}
	}
}

// BenchmarkUnasked is of packets that nobody asked for, at a mapping with 10,000 sessions.
func BenchmarkUnasked(b *testing.B) {
	for _, of := range types {
		b.Run(string(of), func(b *testing.B) {
			n := New(7, nil)
			if err := n.Apply(routersOf(of, of), nil, people()); err != nil {
				b.Fatal(err)
			}
			for i := range 10_000 {
				n.Translate(udp(aliceAt+":5000", fmt.Sprintf("%s:%d", samAt, 1+i), ""), alice, begin)
			}
			packet, work := udp(tomAt+":53", nearAt+":5000", ""), make([]byte, 28)
			b.ReportAllocs()
			for b.Loop() {
				copy(work, packet)
				n.Translate(work, tom, begin)
			}
		})
	}
}
