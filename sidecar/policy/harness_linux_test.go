package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
	"github.com/groundplan/groundplan/sidecar/links"
)

func TestMain(m *testing.M) { launchtest.Main(m, nil) }

// rig is a fabric with its packet filter.
type rig struct {
	*fabric.Fabric
	table *Table
	seats links.Seats
}

// inSidecar has work done in a sidecar, once per kind of user that can start one: with the instances of groups, which
// are written as in "eu:3", or none of them placed.
func inSidecar(t *testing.T, o Options, placed bool, groups []string, work func(t *testing.T, r *rig)) {
	t.Helper()
	// Parallel, since in processes of their own they mostly wait for what shall not come.
	launchtest.Options{Parallel: true, Flat: true}.InSidecar(t, func(t *testing.T) {
		t.Helper()
		work(t, newRig(t, o, placed, groups))
	})
}

// newRig makes a fabric and its packet filter. It lasts until the test ends.
func newRig(t testing.TB, o Options, placed bool, groups []string) *rig {
	t.Helper()
	f, err := fabric.New(fabric.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{Fabric: f, seats: seated(f, groups...)}
	var specs []fabric.Spec
	for _, i := range r.seats.Instances {
		specs = append(specs, fabric.Spec{Slot: i.Slot, Hostname: fmt.Sprint("i", i.Slot)})
	}
	if placed {
		if err := errors.Join(f.Add(t.Context(), specs)...); err != nil {
			t.Fatal(err)
		}
		for slot := range specs {
			r.awaitIPv6(t, slot)
		}
	}
	o.NearIndex, o.ShaperIndex = f.NearIndex, f.ShaperIndex()
	if r.table, err = New(f.InRouter, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.table.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func seated(f *fabric.Fabric, groups ...string) links.Seats {
	s := links.Seats{Subnet: f.Subnet(), Subnet6: f.Subnet6()}
	for _, text := range groups {
		name, count, _ := strings.Cut(text, ":")
		g := pipelines.Group{Name: name}
		fmt.Sscan(count, &g.Instances)
		s.Groups = append(s.Groups, g)
		for range g.Instances {
			slot := len(s.Instances)
			_, data := f.Addresses(slot)
			s.Instances = append(s.Instances, links.Instance{Slot: slot, Group: name, Data: data, Data6: f.Address6(slot)})
		}
	}
	return s
}

// awaitIPv6 waits for a slot to get packets at its IPv6 address: the kernel gives it the route to itself by and by, which
// takes its time while the machine is busy.
func (r *rig) awaitIPv6(t testing.TB, slot int) {
	t.Helper()
	var c *net.UDPConn
	err := r.Inside(slot, func() (err error) {
		c, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.seats.Instances[slot].Data6, 0)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for begin := time.Now(); time.Since(begin) < 10*time.Second; {
		_, _ = c.WriteTo([]byte{1}, c.LocalAddr())
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			return
		}
	}
	t.Fatalf("slot %d doesn't get IPv6", slot)
}

// apply puts layers in force.
func (r *rig) apply(t testing.TB, layers links.Layers) {
	t.Helper()
	state, err := links.New(r.seats, layers)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.table.Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
}

// port is where every instance serves, by TCP and UDP.
const port = 7000

// serve has a slot answer: it accepts connections and says every datagram back.
func (r *rig) serve(t testing.TB, slot int) {
	t.Helper()
	var stream net.Listener
	var packets net.PacketConn
	err := r.Inside(slot, func() (err error) {
		if stream, err = net.Listen("tcp", fmt.Sprint(":", port)); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp", fmt.Sprint(":", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stream.Close()
		packets.Close()
	})
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 64)
				for n, err := c.Read(b); err == nil; n, err = c.Read(b) {
					_, _ = c.Write(b[:n])
				}
			}()
		}
	}()
	go func() {
		b := make([]byte, 9000)
		for {
			n, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(b[:n], from)
		}
	}()
}

// silence is how long nothing has to come for a test to believe that nothing does, and patience how long it waits for
// what has to come, on however busy a machine.
const (
	silence  = 400 * time.Millisecond
	patience = 20 * time.Second
)

// dial opens a socket in a slot.
func (r *rig) dial(slot int, network string, to netip.Addr, wait time.Duration) (net.Conn, error) {
	var c net.Conn
	err := r.Inside(slot, func() (err error) {
		c, err = net.DialTimeout(network, netip.AddrPortFrom(to, port).String(), wait)
		return err
	})
	return c, err
}

// try says what comes of a connection or datagram: "open", "silent", or the error.
func (r *rig) try(slot int, network string, to netip.Addr, wait time.Duration) string {
	c, err := r.dial(slot, network, to, wait)
	if err == nil {
		defer c.Close()
		err = exchange(c, 8, wait)
	}
	var errno syscall.Errno
	switch {
	case err == nil:
		return "open"
	case os.IsTimeout(err):
		return "silent"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

// exchange sends bytes and waits for them to come back.
func exchange(c net.Conn, n int, wait time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(wait))
	sent := make([]byte, n)
	if _, err := c.Write(sent); err != nil {
		return err
	}
	_, err := c.Read(sent)
	return err
}

// want says what tcp and udp over both families shall come to, in the order tcp4, udp4, tcp6, udp6.
func (r *rig) want(t *testing.T, from, to int, tcp4, udp4, tcp6, udp6 string) {
	t.Helper()
	i := r.seats.Instances[to]
	var tries sync.WaitGroup
	for _, c := range []struct {
		network string
		to      netip.Addr
		want    string
	}{{"tcp", i.Data, tcp4}, {"udp", i.Data, udp4}, {"tcp", i.Data6, tcp6}, {"udp", i.Data6, udp6}} {
		tries.Go(func() {
			wait := patience
			if c.want == "silent" {
				wait = silence
			}
			if got := r.try(from, c.network, c.to, wait); got != c.want {
				t.Errorf("%s from %d to %s: %s, and should be %s", c.network, from, c.to, got, c.want)
			}
		})
	}
	tries.Wait()
}

func (r *rig) wantOpen(t *testing.T, from, to int) {
	t.Helper()
	r.want(t, from, to, "open", "open", "open", "open")
}

func (r *rig) wantSilent(t *testing.T, from, to int) {
	t.Helper()
	r.want(t, from, to, "silent", "silent", "silent", "silent")
}

func (r *rig) wantRefused(t *testing.T, from, to int) {
	t.Helper()
	r.want(t, from, to, "connection refused", "no route to host", "connection refused", "permission denied")
}
