package fabric

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestInstanceSeesItsNetworks(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 3)
		cmd := player("describe")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := f.Start(2, cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		want := strings.Join([]string{
			"hostname i2",
			"lo  [127.0.0.1/8 ::1/128] true",
			"eth0 02:c0:02:00:00:02 [100.96.0.4/16] true",
			"eth1 02:da:02:00:00:02 [10.0.0.4/16 fd67:7264:706c::a00:4/96] true",
			"sync service [100.96.0.1] <nil>",
			"default route false",
			"",
		}, "\n")
		if out.String() != want {
			t.Errorf("an instance sees\n%s\nand should see\n%s", out.String(), want)
		}
		if name, _ := os.Hostname(); name == "i2" {
			t.Error("the sidecar has the host name of an instance")
		}
	})
}

func TestDataReachesEveryInstanceAndControlNone(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		const n = 4
		added(t, f, n)
		for to := range n {
			control, data := f.Addresses(to)
			tcp, udp := echo(t, f, to, data)
			tcpControl, udpControl := echo(t, f, to, control)
			for from := range n {
				for network, address := range map[string]netip.AddrPort{"tcp": tcp, "udp": udp} {
					if err := reach(t, f, from, network, address); err != nil {
						t.Errorf("%d → %d over data by %s: %v", from, to, network, err)
					}
				}
				if from == to {
					continue
				}
				for network, address := range map[string]netip.AddrPort{"tcp": tcpControl, "udp": udpControl} {
					if err := reach(t, f, from, network, address); err == nil {
						t.Errorf("%d → %d over control by %s: got through", from, to, network)
					}
				}
			}
		}
	})
}

// An instance that is root in its namespace can add routes. Then the control side must not forward.
func TestControlDoesNotForwardWhateverTheInstanceRoutes(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 2)
		other, otherData := f.Addresses(1)
		tcp, _ := echo(t, f, 1, other)
		tcpData, _ := echo(t, f, 1, otherData)
		_, err := within(t, f, 0, func() (any, error) {
			inside, err := openSocket()
			if err != nil {
				return nil, err
			}
			defer inside.Close()
			own, _ := f.Addresses(0)
			var b batch
			b.route(route{to: controlSubnet, index: controlIndex, via: f.Gateway(), source: own})
			b.route(route{to: f.Subnet(), index: controlIndex, via: f.Gateway(), source: own})
			return nil, inside.do(&b)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []netip.AddrPort{tcp, tcpData} {
			if err := reach(t, f, 0, "tcp", to); err == nil {
				t.Errorf("%s was reached through the control network", to)
			}
		}
	})
}

func TestGatewayIsReachedOverControl(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 2)
		l, err := net.Listen("tcp4", netip.AddrPortFrom(f.Gateway(), 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		to := l.Addr().(*net.TCPAddr).AddrPort()
		for slot := range 2 {
			if err := f.SetEnabled(slot, slot == 0); err != nil { // whatever data is
				t.Fatal(err)
			}
			c, err := dial(t, f, slot, "tcp", to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			from := accepted.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
			if got, ok := f.Slot(from); !ok || got != slot {
				t.Errorf("slot %d came from %s, which is slot %d, %v", slot, from, got, ok)
			}
		}
	})
}

func TestConnectionsSurviveADisconnect(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 2)
		_, data := f.Addresses(1)
		tcp, udp := echo(t, f, 1, data)
		c, err := dial(t, f, 0, "tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := exchange(c, time.Second); err != nil {
			t.Fatal(err)
		}
		for range 2 { // twice: it converges
			if err := f.SetEnabled(1, false); err != nil {
				t.Fatal(err)
			}
		}
		if err := reach(t, f, 0, "udp", udp); err == nil {
			t.Error("a disconnected instance was reached")
		}
		if err := exchange(c, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection to a disconnected instance says %v", err)
		}
		for range 2 {
			if err := f.SetEnabled(1, true); err != nil {
				t.Fatal(err)
			}
		}
		if err := reach(t, f, 0, "udp", udp); err != nil {
			t.Errorf("after the reconnect: %v", err)
		}
		// What was sent into the gap is sent again, and comes back first.
		if err := exchange(c, 10*time.Second); err != nil {
			t.Errorf("the connection did not survive: %v", err)
		}
	})
}

func TestDataAddressChanges(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 3)
		_, old := f.Addresses(1)
		own := netip.MustParsePrefix("10.0.7.9/8")
		for range 2 {
			if err := f.SetDataAddress(1, own); err != nil {
				t.Fatal(err)
			}
		}
		tcp, _ := echo(t, f, 1, own.Addr())
		if err := reach(t, f, 0, "tcp", tcp); err != nil {
			t.Errorf("by its new address: %v", err)
		}
		if c, err := dial(t, f, 0, "tcp", netip.AddrPortFrom(old, tcp.Port())); err == nil {
			c.Close()
			t.Error("reached by its old address")
		}
		back, _ := echo(t, f, 0, must(f.Addresses(0)))
		if err := reach(t, f, 1, "tcp", back); err != nil {
			t.Errorf("from its new address: %v", err)
		}
		if err := f.SetEnabled(1, false); err != nil {
			t.Fatal(err)
		}
		if err := f.SetDataAddress(1, netip.MustParsePrefix("10.0.7.10/16")); err != nil {
			t.Fatal(err)
		}
		if err := f.SetEnabled(1, true); err != nil {
			t.Fatal(err)
		}
		tcp, _ = echo(t, f, 1, netip.MustParseAddr("10.0.7.10"))
		if err := reach(t, f, 0, "tcp", tcp); err != nil {
			t.Errorf("by an address given while it was disconnected: %v", err)
		}
	})
}

func must(_, data netip.Addr) netip.Addr { return data }

// Plans renumber themselves at their own pace: 0 takes the address of 1 before 1 has moved on.
func TestAddressesMayBeSharedForAMoment(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 3)
		bits := f.Subnet().Bits()
		_, zero := f.Addresses(0)
		_, one := f.Addresses(1)
		steps := []struct {
			slot   int
			to     netip.Addr
			holder map[netip.Addr]int
		}{
			{0, one, map[netip.Addr]int{one: 0, zero: -1}},
			{1, zero, map[netip.Addr]int{one: 0, zero: 1}},
			{0, zero, map[netip.Addr]int{one: -1, zero: 0}},
			{0, one, map[netip.Addr]int{one: 0, zero: 1}},
		}
		for _, s := range steps {
			if err := f.SetDataAddress(s.slot, netip.PrefixFrom(s.to, bits)); err != nil {
				t.Fatal(err)
			}
			for address, holder := range s.holder {
				if got := f.holder(address); got != holder {
					t.Errorf("%d → %s: %s is held by %d, want %d", s.slot, s.to, address, got, holder)
				}
				if holder < 0 {
					continue
				}
				_, udp := echo(t, f, holder, address)
				if err := reach(t, f, 2, "udp", udp); err != nil {
					t.Errorf("%d → %s: reaching %s: %v", s.slot, s.to, address, err)
				}
			}
		}
		if err := f.SetDataAddress(2, netip.PrefixFrom(one, bits)); err != nil {
			t.Fatal(err)
		}
		if err := f.Remove(2); err != nil {
			t.Fatal(err)
		}
		_, udp := echo(t, f, 0, one)
		if err := reach(t, f, 1, "udp", udp); err != nil {
			t.Errorf("an address whose later holder was removed: %v", err)
		}
	})
}

func TestWhatCannotBeDoneIsRefused(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 1)
		long := strings.Repeat("x", 65)
		for name, c := range map[string]struct {
			err  error
			says string
		}{
			"empty slot: start":          {f.Start(7, exec.Command("true")), "no instance"},
			"empty slot: disconnect":     {f.SetEnabled(7, false), "no instance"},
			"empty slot: address":        {f.SetDataAddress(7, netip.MustParsePrefix("10.0.1.1/16")), "no instance"},
			"address outside":            {f.SetDataAddress(0, netip.MustParsePrefix("10.1.0.1/16")), "10.0.0.0/16"},
			"address of the network":     {f.SetDataAddress(0, netip.MustParsePrefix("10.0.0.0/16")), "itself"},
			"address of another family":  {f.SetDataAddress(0, netip.MustParsePrefix("fd00::1/64")), "10.0.0.0/16"},
			"parent-death signal":        {f.Start(0, &exec.Cmd{Path: "/bin/true", SysProcAttr: &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}}), "parent-death"},
			"program that doesn't exist": {f.Start(0, exec.Command("/no/such/program")), "no such file"},
			"slot that doesn't fit":      {f.Add(t.Context(), []Spec{{Slot: 65023, Hostname: "far"}})[0], "holds 65023 instances"},
			"slot below zero":            {f.Add(t.Context(), []Spec{{Slot: -1, Hostname: "minus"}})[0], "placing minus"},
			"long host name":             {f.Add(t.Context(), []Spec{{Slot: 3, Hostname: long}})[0], "at most 64 bytes"},
		} {
			if c.err == nil || !strings.Contains(c.err.Error(), c.says) {
				t.Errorf("%s: %v, want something with %q", name, c.err, c.says)
			}
		}
		if f.Present(3) || f.NetworkInode(3) != 0 {
			t.Error("an instance that could not be placed is there")
		}
		// What failed can be tried again.
		if err := f.Add(t.Context(), []Spec{{Slot: 3, Hostname: "short"}})[0]; err != nil {
			t.Error(err)
		}
		if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("a second fabric in the same namespace: %v", err)
		}
	})
}

func TestAddConverges(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 2)
		inode := f.NetworkInode(1)
		added(t, f, 5)
		if inode == 0 || f.NetworkInode(1) != inode {
			t.Errorf("slot 1 was placed anew: %d, then %d", inode, f.NetworkInode(1))
		}
		// The links of an add that was killed half-way are in the way; they are removed, and the next try works.
		var b batch
		near, far := dataNetwork.pair(6)
		b.veth(near, far, int(f.instances[0].namespaces.net.Fd()))
		_ = f.ours.router.do(&b)
		_ = f.Add(t.Context(), []Spec{{Slot: 6, Hostname: "i6"}})
		if err := f.Add(t.Context(), []Spec{{Slot: 6, Hostname: "i6"}})[0]; err != nil {
			t.Error(err)
		}
		if err := f.Remove(1, 3, 9); err != nil {
			t.Fatal(err)
		}
		if f.Present(1) || !f.Present(2) {
			t.Error("removed the wrong ones")
		}
		if err := f.SetEnabled(0, false); err != nil { // doesn't keep others waiting
			t.Fatal(err)
		}
		added(t, f, 5)
		_, data := f.Addresses(3)
		tcp, _ := echo(t, f, 3, data)
		if err := reach(t, f, 1, "tcp", tcp); err != nil {
			t.Errorf("instances that were removed and added again: %v", err)
		}
	})
}
