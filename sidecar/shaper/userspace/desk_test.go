package userspace

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

var subnet6 = netip.MustParsePrefix("fd67:7264:706c::/96")

// fake is a state in which slot i has 10.0.0.(i+2), for ten slots, and the IPv6 address that goes with it. The path of a
// slot without one of its own is that of all.
type fake struct {
	all   links.Path
	paths map[int]links.Path // by the sender's slot
}

func (f fake) Slot(a netip.Addr) (int, bool) {
	if a.Is6() && !subnet6.Contains(a) || a.Is4() && a.As4()[0] != 10 {
		return 0, false
	}
	raw := a.AsSlice()
	n := int(raw[len(raw)-1]) - 2
	return n, n >= 0 && n < 10
}

func (f fake) Behind(netip.Addr) (int, bool) { return 0, false }

func (f fake) Path(slot int, to netip.Addr) links.Path {
	if p, ok := f.paths[slot]; ok {
		return p
	}
	return f.all
}

// desk is an engine and what came out of it.
type desk struct {
	t      testing.TB
	engine *engine
	out    []departure
}

// departure is a packet that left: the number that the test gave it, and when.
type departure struct {
	number uint32
	at     time.Duration
	bytes  []byte
}

func newDesk(t testing.TB, s state) *desk {
	d := &desk{t: t, engine: newEngine(7, time.Now(), nil)}
	d.engine.replace(s, subnet6, 0)
	return d
}

// frame is a numbered UDP packet of size bytes from one slot to another.
func frame(number uint32, from, to, size int) []byte {
	f := make([]byte, ethernetHeader+size)
	copy(f, []byte{2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0})
	ip := f[ethernetHeader:]
	ip[0], ip[9] = 0x45, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(size))
	copy(ip[12:], []byte{10, 0, 0, byte(from + 2), 10, 0, 0, byte(to + 2)})
	binary.BigEndian.PutUint32(ip[28:], number)
	return f
}

// frame6 is the same with IPv6.
func frame6(number uint32, from, to, size int) []byte {
	f := make([]byte, ethernetHeader+size)
	copy(f, []byte{2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x86, 0xdd})
	ip := f[ethernetHeader:]
	ip[0], ip[6] = 0x60, 17
	binary.BigEndian.PutUint16(ip[4:], uint16(size-ipv6Header))
	for i, slot := range []int{from, to} {
		a := subnet6.Addr().As16()
		copy(a[12:], []byte{10, 0, 0, byte(slot + 2)})
		copy(ip[8+16*i:], a[:])
	}
	binary.BigEndian.PutUint32(ip[ipv6Header+8:], number)
	return f
}

// run lets time pass, as a thread that is never late would.
func (d *desk) run(until time.Duration) {
	for {
		at, ok := d.engine.queue.next()
		if !ok || at > int64(until) {
			return
		}
		d.take(at)
	}
}

func (d *desk) take(now int64) {
	for _, p := range d.engine.due(now, make([]*packet, 0, batch)) {
		number := p.frame[ethernetHeader+28:]
		if p.frame[12] == 0x86 {
			number = p.frame[ethernetHeader+ipv6Header+8:]
		}
		d.out = append(d.out, departure{number: binary.BigEndian.Uint32(number), at: time.Duration(now), bytes: slices.Clone(p.frame)})
		d.engine.pool.give(p)
	}
}

// series sends n packets of a size, an interval apart, from slot 0 to slot 1, and runs until all are through.
func (d *desk) series(n, size int, interval time.Duration) {
	for i := range n {
		at := time.Duration(i) * interval
		d.run(at - 1)
		d.engine.arrive(frame(uint32(i), 0, 1, size), int64(at))
	}
	d.run(math.MaxInt64)
}

func (d *desk) numbers() []uint32 {
	var all []uint32
	for _, o := range d.out {
		all = append(all, o.number)
	}
	return all
}
