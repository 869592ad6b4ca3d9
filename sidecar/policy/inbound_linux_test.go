package policy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
)

func blocked(policy string, groups ...string) links.Layers {
	return links.Layers{Stage: pipelines.Network{Inbound: []pipelines.Block{{Groups: groups, Policy: policy}}}}
}

func TestInbound(t *testing.T) {
	inSidecar(t, Options{}, true, []string{"a:2", "b:2"}, func(t *testing.T, r *rig) {
		for slot := range 4 {
			r.serve(t, slot)
		}
		type flow struct {
			what string
			net.Conn
		}
		var before []flow
		for _, to := range []netip.Addr{r.seats.Instances[2].Data, r.seats.Instances[2].Data6} {
			for _, network := range []string{"tcp", "udp"} {
				c, err := r.dial(0, network, to, patience)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := exchange(c, 8, patience); err != nil {
					t.Fatal(err)
				}
				before = append(before, flow{network + " to " + to.String(), c})
			}
		}
		goOn := func() {
			t.Helper()
			for _, f := range before {
				for _, size := range []int{8, 4000} { // the second in several packets
					if err := exchange(f, size, patience); err != nil {
						t.Errorf("what began before is cut: %s with %d bytes: %v", f.what, size, err)
					}
				}
			}
		}
		r.apply(t, blocked("reject", "b"))
		r.wantRefused(t, 0, 2)
		r.wantRefused(t, 2, 3)
		r.wantOpen(t, 2, 0)
		r.wantOpen(t, 0, 1)
		goOn()
		for _, c := range []struct {
			from, to int
			want     bool
		}{{0, 2, false}, {2, 0, true}, {0, 1, true}} {
			wait := silence
			if c.want {
				wait = patience
			}
			if got := r.pings(t, c.from, c.to, wait); got != c.want {
				t.Errorf("a ping from %d to %d is answered: %v", c.from, c.to, got)
			}
		}
		r.apply(t, blocked("drop", "b"))
		r.wantSilent(t, 1, 3)
		r.wantOpen(t, 3, 1)
		goOn()
		r.apply(t, links.Layers{})
		r.wantOpen(t, 1, 3)
		goOn()
		// Of both, the policy of the link goes first: who may not even be known to be there doesn't answer.
		both := blocked("reject", "b")
		both.Stage.Links = []pipelines.Link{link("a", "b", "drop")}
		r.apply(t, both)
		r.wantSilent(t, 0, 2)
		r.wantRefused(t, 2, 3)
	})
}

// TestHolePunching has two that are blocked meet: what one has sent opens the way for the other, as at a firewall.
func TestHolePunching(t *testing.T) {
	inSidecar(t, Options{}, true, []string{"a:2"}, func(t *testing.T, r *rig) {
		r.apply(t, blocked("drop", "a"))
		var ends [2]*net.UDPConn
		for slot := range ends {
			err := r.Inside(slot, func() (err error) {
				own, other := r.seats.Instances[slot].Data, r.seats.Instances[1-slot].Data
				ends[slot], err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, port)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(other, port)))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer ends[slot].Close()
		}
		_, _ = ends[0].Write([]byte("lost"))
		_, _ = ends[1].Write([]byte("came"))
		_, _ = ends[0].Write([]byte("too"))
		for slot, want := range []string{"came", "too"} {
			b := make([]byte, 8)
			_ = ends[slot].SetDeadline(time.Now().Add(patience))
			if n, err := ends[slot].Read(b); err != nil || string(b[:n]) != want {
				t.Errorf("%d got %q, %v, and should get %q", slot, b[:n], err, want)
			}
		}
	})
}

// pings says whether an echo request over IPv4 is answered.
func (r *rig) pings(t *testing.T, from, to int, wait time.Duration) bool {
	t.Helper()
	var c net.PacketConn
	err := r.Inside(from, func() (err error) {
		c, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	// An echo request with a check sum of its eight bytes.
	b := []byte{8, 0, 0, 0, 0x67, byte(from), 0, byte(to)}
	sum := uint32(0x0800) + 0x6700 + uint32(from) + uint32(to)
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	target := &net.IPAddr{IP: r.seats.Instances[to].Data.AsSlice()}
	if _, err := c.WriteTo(b, target); err != nil {
		t.Fatal(err)
	}
	b = make([]byte, 64) // the header comes too
	for {
		n, who, err := c.ReadFrom(b)
		if err != nil {
			return false
		}
		if n == 8 && b[0] == 0 && who.String() == target.String() {
			return true
		}
	}
}

// TestFlowsStayWhileTheyAreUsed goes on beyond the time after which a silent flow is forgotten.
func TestFlowsStayWhileTheyAreUsed(t *testing.T) {
	flowTimeout = 2000
	inSidecar(t, Options{}, true, []string{"a:1", "b:1"}, func(t *testing.T, r *rig) {
		r.serve(t, 1)
		c, err := r.dial(0, "udp", r.seats.Instances[1].Data, patience)
		if err == nil {
			defer c.Close()
			err = exchange(c, 8, patience)
		}
		if err != nil {
			t.Fatal(err)
		}
		r.apply(t, blocked("drop", "b"))
		for range 8 {
			time.Sleep(300 * time.Millisecond)
			if err := exchange(c, 8, patience); err != nil {
				t.Fatalf("a flow in use is cut: %v", err)
			}
		}
		time.Sleep(3 * time.Second)
		if exchange(c, 8, silence) == nil {
			t.Error("a flow that was silent for long is still remembered")
		}
	})
}
