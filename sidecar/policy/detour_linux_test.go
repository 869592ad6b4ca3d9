package policy

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
)

// tap sees what comes to the shaper's end.
type tap struct{ fd int }

func newTap(t *testing.T, r *rig) *tap {
	t.Helper()
	c := &tap{}
	err := r.InShaper(func() (err error) {
		all := uint16(unix.ETH_P_ALL)
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all<<8|all>>8)); err != nil {
			return err
		}
		return unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: r.ShaperEndIndex()})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(c.fd) })
	return c
}

// packets are all that have come for an address, as frames. It waits so long for a first one.
func (c *tap) packets(to netip.Addr, wait time.Duration) [][]byte {
	var all [][]byte
	for begin := time.Now(); ; {
		b := make([]byte, 2048)
		n, from, err := unix.Recvfrom(c.fd, b, 0)
		switch {
		case err != nil && (len(all) > 0 || time.Since(begin) > wait):
			return all
		case err != nil:
			time.Sleep(time.Millisecond)
			continue
		}
		if l, ok := from.(*unix.SockaddrLinklayer); !ok || l.Pkttype == unix.PACKET_OUTGOING || n < 34 || b[14]>>4 == 6 && n < 54 {
			continue
		}
		if destination(b) == to {
			all = append(all, b[:n])
		}
	}
}

func destination(frame []byte) netip.Addr {
	if frame[14]>>4 == 4 {
		return netip.AddrFrom4([4]byte(frame[30:34]))
	}
	return netip.AddrFrom16([16]byte(frame[38:54]))
}

// send gives a frame back to the router.
func (c *tap) send(t *testing.T, r *rig, frame []byte) {
	t.Helper()
	err := r.InRouter(func() error {
		l, err := net.InterfaceByIndex(r.ShaperIndex())
		if err == nil {
			copy(frame, l.HardwareAddr)
		}
		return err
	})
	if err == nil {
		_, err = unix.Write(c.fd, frame)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// slowAndNAT shapes what a sends to b, and puts c behind a NAT.
func slowAndNAT() links.Layers {
	slow := pipelines.Shape{Latency: ptr(pipelines.Duration(1))}
	return links.Layers{Stage: pipelines.Network{
		Links: []pipelines.Link{{From: "a", To: "b", Shape: slow}, link("a", "c", "drop")},
		NAT:   []pipelines.NAT{{Groups: []string{"c"}, Type: "symmetric"}},
	}}
}

// taken says whether the tap sees what a slot sends to an address.
func (r *rig) taken(t *testing.T, c *tap, from int, to netip.Addr, want bool) {
	t.Helper()
	c.packets(to, 0)
	wait := silence
	if want {
		wait = patience
	}
	r.try(from, "udp", to, silence/4)
	if got := len(c.packets(to, wait)) == 1; got != want {
		t.Errorf("the shaper gets what %d sends to %s: %v, and should: %v", from, to, got, want)
	}
}

func TestWhatTheShaperGets(t *testing.T) {
	inSidecar(t, Options{MarkShaped: true}, true, []string{"a:1", "b:1", "c:2"}, func(t *testing.T, r *rig) {
		tap := newTap(t, r)
		for slot := range 4 {
			r.serve(t, slot)
		}
		r.apply(t, slowAndNAT())
		a, b, c, external := r.seats.Instances[0], r.seats.Instances[1], r.seats.Instances[2], r.table.state.Routers()[0].External
		r.taken(t, tap, a.Slot, b.Data, true)
		r.taken(t, tap, a.Slot, b.Data6, true)
		r.taken(t, tap, b.Slot, a.Data, false)
		r.taken(t, tap, b.Slot, external, true)
		r.taken(t, tap, c.Slot, b.Data, true)
		r.taken(t, tap, c.Slot, r.seats.Instances[3].Data, false)
		r.taken(t, tap, b.Slot, c.Data, false)
		if got := r.try(c.Slot, "udp", b.Data6, patience); got != "permission denied" {
			t.Errorf("over IPv6 from behind a NAT: %s", got)
		}
		r.wantSilent(t, a.Slot, c.Slot)
		r.wantSilent(t, b.Slot, c.Slot)
		r.wantOpen(t, c.Slot, 3) // behind the same NAT
	})
}

func TestOnlyNATsTakeTheDetourBesideNetem(t *testing.T) {
	inSidecar(t, Options{}, true, []string{"a:1", "b:1", "c:1"}, func(t *testing.T, r *rig) {
		tap := newTap(t, r)
		r.serve(t, 1)
		r.apply(t, slowAndNAT())
		r.wantOpen(t, 0, 1)
		r.taken(t, tap, 0, r.seats.Instances[1].Data, false)
		r.taken(t, tap, 2, r.seats.Instances[1].Data, true)
	})
}

// TestWhatComesBackPasses gives packets back that would not pass if they came from an instance.
func TestWhatComesBackPasses(t *testing.T) {
	inSidecar(t, Options{MarkShaped: true}, true, []string{"a:1", "b:1"}, func(t *testing.T, r *rig) {
		tap := newTap(t, r)
		r.serve(t, 1)
		to := r.seats.Instances[1].Data
		r.apply(t, stage(pipelines.Link{From: "a", To: "b", Shape: pipelines.Shape{Latency: ptr(pipelines.Duration(1))}}))
		c, err := r.dial(0, "udp", to, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte("hello"))
		frames := tap.packets(to, patience)
		if len(frames) != 1 {
			t.Fatalf("%d frames", len(frames))
		}
		r.apply(t, stage(link("a", "b", "drop")))
		tap.send(t, r, frames[0])
		b := make([]byte, 8)
		_ = c.SetDeadline(time.Now().Add(patience))
		if n, err := c.Read(b); err != nil || string(b[:n]) != "hello" {
			t.Errorf("what came back from the shaper had no answer: %q, %v", b[:n], err)
		}
	})
}
