package fabric

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestIPv6Addresses(t *testing.T) {
	f := &Fabric{subnet: DefaultSubnet}
	for slot, want := range map[int]string{0: "fd67:7264:706c::a00:2", 253: "fd67:7264:706c::a00:101", -1: "invalid IP", 65023: "invalid IP"} {
		a := f.Address6(slot)
		if a.String() != want {
			t.Errorf("slot %d has %s, want %s", slot, a, want)
		}
		if a.IsValid() && !f.Subnet6().Contains(a) {
			t.Errorf("%s is outside %s", a, f.Subnet6())
		}
	}
}

func TestIPv6ReachesEveryInstanceAtOnce(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		const n = 3
		added(t, f, n)
		for to := range n {
			tcp, udp := echo(t, f, to, f.Address6(to))
			for from := range n {
				for network, address := range map[string]netip.AddrPort{"tcp": tcp, "udp": udp} {
					if err := reach(t, f, from, network, address); err != nil {
						t.Errorf("%d → %d by %s: %v", from, to, network, err)
					}
				}
			}
		}
	})
}

// Nobody asks for neighbours, and nothing but what plans send is on the data network.
func TestIPv6IsQuiet(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 2)
		tap, err := within(t, f, 1, func() (int, error) {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0300)
			return fd, err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(tap)
		patience := unix.NsecToTimeval(int64(300 * time.Millisecond))
		if err := unix.SetsockoptTimeval(tap, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
			t.Fatal(err)
		}
		_, udp := echo(t, f, 1, f.Address6(1))
		if err := reach(t, f, 0, "udp", udp); err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, 2000)
		for {
			n, _, err := unix.Recvfrom(tap, frame, 0)
			if errors.Is(err, unix.EAGAIN) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			const icmp6, solicitation, advertisement = 58, 133, 136
			if n > 54 && frame[12] == 0x86 && frame[20] == icmp6 && frame[54] >= solicitation && frame[54] <= advertisement {
				t.Errorf("a message of neighbour discovery: type %d", frame[54])
			}
		}
	})
}

func TestIPv6SurvivesDisconnectAndMove(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 2)
		tcp, udp := echo(t, f, 1, f.Address6(1))
		c, err := dial(t, f, 0, "tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := f.SetEnabled(1, false); err != nil {
			t.Fatal(err)
		}
		if err := reach(t, f, 0, "udp", udp); err == nil {
			t.Error("a disconnected instance was reached")
		}
		if err := f.SetDataAddress(1, netip.MustParsePrefix("10.0.9.9/16")); err != nil {
			t.Fatal(err)
		}
		if err := f.SetEnabled(1, true); err != nil {
			t.Fatal(err)
		}
		if err := reach(t, f, 0, "udp", udp); err != nil {
			t.Errorf("after the reconnect: %v", err)
		}
		if err := exchange(c, 10*time.Second); err != nil {
			t.Errorf("the connection did not survive: %v", err)
		}
	})
}

// An instance that is root in its namespace may give eth0 an IPv6 address. Nobody answers it there.
func TestControlHasNoIPv6(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 2)
		own := []netip.Prefix{netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("fd00::2/64")}
		for slot, address := range own {
			err := f.Inside(slot, func() error {
				inside, err := openSocket()
				if err != nil {
					return err
				}
				defer inside.Close()
				var b batch
				b.address(controlIndex, address)
				b.neighbour(controlIndex, own[1-slot].Addr(), controlNetwork.near(slot))
				b.route(route{to: netip.PrefixFrom(own[1-slot].Addr(), 128), index: controlIndex})
				return inside.do(&b)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		tcp, _ := echo(t, f, 1, own[1].Addr())
		if err := reach(t, f, 0, "tcp", tcp); err == nil {
			t.Error("reached over the control network by IPv6")
		}
	})
}

func TestEntering(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		added(t, f, 2)
		names := func(enter func(func() error) error) map[string]int {
			found := make(map[string]int)
			err := enter(func() error {
				all, err := net.Interfaces()
				for _, i := range all {
					found[i.Name] = i.Index
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		if in := names(f.InRouter); in["d1"] != f.NearIndex(1) || in["shape0"] != f.ShaperIndex() || in["c1"] != 0 {
			t.Errorf("the router has %v", in)
		}
		if in := names(f.InShaper); in["shape1"] != f.ShaperEndIndex() || len(in) > 8 || in["d1"] != 0 {
			t.Errorf("the shaper has %v", in)
		}
		if in := names(func(work func() error) error { return f.Inside(1, work) }); in["eth1"] != f.DataIndex() || in["eth0"] == 0 {
			t.Errorf("an instance has %v", in)
		}
		own := errors.New("own")
		if err := f.InRouter(func() error { return own }); !errors.Is(err, own) {
			t.Errorf("the work's error is lost: %v", err)
		}
		if err := f.Inside(7, func() error { return nil }); !errors.Is(err, ErrAbsent) {
			t.Errorf("an empty slot: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		for _, enter := range []func(func() error) error{f.InRouter, f.InShaper} {
			if err := enter(func() error { return nil }); !errors.Is(err, net.ErrClosed) {
				t.Errorf("entering a closed fabric: %v", err)
			}
		}
	})
}
