package nat

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

// The world of the tests: two instances behind one router, one behind another, and two that are public.
const (
	alice, bob, carol, sam, tom = 1, 2, 3, 10, 11

	aliceAt, bobAt, carolAt, samAt, tomAt = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.10", "10.0.0.11"
	nearAt, farAt                         = "10.0.255.254", "10.0.255.253" // the routers of alice and bob, and of carol
)

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type world struct {
	t   *testing.T
	nat *NAT
	now time.Time
	log bytes.Buffer
}

func people() []links.Instance {
	var all []links.Instance
	for slot, at := range map[int]string{alice: aliceAt, bob: bobAt, carol: carolAt, sam: samAt, tom: tomAt} {
		all = append(all, links.Instance{Slot: slot, Data: netip.MustParseAddr(at)})
	}
	return all
}

func routersOf(near, far links.NATType) []links.Router {
	return []links.Router{
		{External: netip.MustParseAddr(nearAt), Type: near, Slots: []int{alice, bob}},
		{External: netip.MustParseAddr(farAt), Type: far, Slots: []int{carol}},
	}
}

func newWorld(t *testing.T, near, far links.NATType) *world {
	t.Helper()
	w := &world{t: t, now: begin}
	w.nat = New(7, slog.New(slog.NewTextHandler(&w.log, nil)))
	if err := w.nat.Apply(routersOf(near, far), nil, people()); err != nil {
		t.Fatal(err)
	}
	return w
}

// seen is what arrives.
type seen struct {
	to       int
	from, at netip.AddrPort // source and destination as the receiver sees them
	raw      []byte
}

// pass sends a packet and checks that what comes out is whole.
func (w *world) pass(from int, packet []byte) (seen, bool) {
	w.t.Helper()
	length := len(packet)
	to, ok := w.nat.Translate(packet, from, w.now)
	if len(packet) != length {
		w.t.Errorf("%d bytes became %d", length, len(packet))
	}
	if !ok {
		return seen{}, false
	}
	intact(w.t, packet)
	s, d := ends(packet)
	return seen{to: to, from: s, at: d, raw: packet}, true
}

// udp sends one from an instance's port to an endpoint.
func (w *world) udp(slot int, from, to string) (seen, bool) {
	w.t.Helper()
	return w.pass(slot, udp(from, to, "hello"))
}

// quick sends a UDP packet that has to arrive, and returns the port that it comes from.
func (w *world) quick(slot int, from string, fromPort uint16, to string, toPort uint16) uint16 {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, fromPort)
	binary.BigEndian.PutUint16(b[2:], toPort)
	packet := ip(protocolUDP, netip.MustParseAddr(from), netip.MustParseAddr(to), b)
	if _, ok := w.nat.Translate(packet, slot, w.now); !ok {
		w.t.Fatalf("dropped: %s:%d to %s:%d", from, fromPort, to, toPort)
	}
	return binary.BigEndian.Uint16(packet[20:])
}

// must is for what has to arrive.
func (w *world) must(got seen, ok bool) seen {
	w.t.Helper()
	if !ok {
		w.t.Fatal("dropped")
	}
	return got
}

func port(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// ip makes an IPv4 packet with a checksum.
func ip(protocol byte, from, to netip.Addr, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[4:], 0x1234)
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^total(b))
	return append(b, payload...)
}

func udp(from, to, payload string) []byte {
	b := append(make([]byte, 8), payload...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return transport(protocolUDP, from, to, b, 6)
}

func tcp(from, to string, flags byte) []byte {
	b := append(make([]byte, 20), "segment"...)
	b[12], b[13] = 5<<4, flags
	return transport(protocolTCP, from, to, b, 16)
}

// transport fills in ports and checksum.
func transport(protocol byte, from, to string, b []byte, checksumAt int) []byte {
	s, d := port(from), port(to)
	binary.BigEndian.PutUint16(b, s.Port())
	binary.BigEndian.PutUint16(b[2:], d.Port())
	sum := ^total(pseudo(protocol, s.Addr(), d.Addr(), len(b)), b)
	if sum == 0 && protocol == protocolUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[checksumAt:], sum)
	return ip(protocol, s.Addr(), d.Addr(), b)
}

func pseudo(protocol byte, from, to netip.Addr, length int) []byte {
	b := append(from.AsSlice(), to.AsSlice()...)
	return append(b, 0, protocol, byte(length>>8), byte(length))
}

// echo asks or answers; the identifier is the port of who asks.
func echo(kind byte, from, to string, id uint16) []byte {
	b := append(make([]byte, 8), "ping"...)
	b[0] = kind
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[2:], ^total(b))
	return ip(protocolICMP, netip.MustParseAddr(from), netip.MustParseAddr(to), b)
}

// refusal is the ICMP error about a packet, with so many bytes of it behind its IP header.
func refusal(from, to string, about []byte, keep int) []byte {
	b := append(make([]byte, 8), about[:min(len(about), 20+keep)]...)
	b[0], b[1] = unreachable, 3
	binary.BigEndian.PutUint16(b[2:], ^total(b))
	return ip(protocolICMP, netip.MustParseAddr(from), netip.MustParseAddr(to), b)
}

// total is the ones' complement sum over all.
func total(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for len(b) > 1 {
			sum += uint32(b[0])<<8 | uint32(b[1])
			b = b[2:]
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// ends are source and destination of a packet that is no ICMP error.
func ends(b []byte) (source, destination netip.AddrPort) {
	from, to := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	if b[9] == protocolICMP {
		id := binary.BigEndian.Uint16(b[24:])
		return netip.AddrPortFrom(from, id), netip.AddrPortFrom(to, id)
	}
	return netip.AddrPortFrom(from, binary.BigEndian.Uint16(b[20:])), netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[22:]))
}

// intact checks every checksum of a packet without options, and those of a packet inside.
func intact(t *testing.T, b []byte) {
	t.Helper()
	if total(b[:20]) != 0xffff {
		t.Errorf("the checksum of the IP header is wrong: %x", b)
	}
	if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return // a fragment: its checksum is over more than is here
	}
	from, to := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	switch body := b[20:]; {
	case b[9] == protocolICMP:
		if total(body) != 0xffff {
			t.Errorf("the checksum of the ICMP message is wrong: %x", b)
		}
		if body[0] == unreachable && total(body[8:28]) != 0xffff {
			t.Errorf("the checksum of the IP header inside is wrong: %x", b)
		}
		if inside := body[8:]; body[0] == unreachable && len(inside) == int(binary.BigEndian.Uint16(inside[2:])) {
			intact(t, inside)
		}
	case b[9] == protocolUDP && binary.BigEndian.Uint16(body[6:]) == 0:
	default:
		if total(pseudo(b[9], from, to, len(body)), body) != 0xffff {
			t.Errorf("the checksum over the payload is wrong: %x", b)
		}
	}
}
