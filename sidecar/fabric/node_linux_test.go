package fabric_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/fabric/fabrictest"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
)

// echo serves TCP and UDP at an address of a slot until the test ends.
func echo(t *testing.T, c *fabrictest.Cluster, slot int, at netip.Addr) (tcp, udp netip.AddrPort) {
	t.Helper()
	var stream net.Listener
	var packets net.PacketConn
	err := c.Inside(slot, func() (err error) {
		if stream, err = net.Listen("tcp", netip.AddrPortFrom(at, 0).String()); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp", netip.AddrPortFrom(at, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close(); packets.Close() })
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(buffer[:n], from)
		}
	}()
	return stream.Addr().(*net.TCPAddr).AddrPort(), packets.LocalAddr().(*net.UDPAddr).AddrPort()
}

func dial(c *fabrictest.Cluster, slot int, network string, to netip.AddrPort) (conn net.Conn, err error) {
	err = c.Inside(slot, func() (err error) {
		conn, err = net.DialTimeout(network, to.String(), time.Second)
		return err
	})
	return conn, err
}

// exchange sends a word and waits until it comes back.
func exchange(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("groundplan")); err != nil {
		return err
	}
	back := make([]byte, 10)
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if string(back) != "groundplan" {
		return fmt.Errorf("came back as %q", back)
	}
	return nil
}

func reach(c *fabrictest.Cluster, slot int, network string, to netip.AddrPort) error {
	conn, err := dial(c, slot, network, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	return exchange(conn)
}

func inCluster(t *testing.T, o fabrictest.Options, work func(t *testing.T, c *fabrictest.Cluster)) {
	t.Helper()
	launchtest.InSidecar(t, func(t *testing.T) {
		t.Helper()
		work(t, fabrictest.New(t, o))
	})
}

func TestNodesReachEachOther(t *testing.T) {
	for name, o := range map[string]fabrictest.Options{
		"over IPv4": {Nodes: 3, PerNode: 3, Isolate: true},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, o, func(t *testing.T, c *fabrictest.Cluster) {
				for to := range 9 {
					f := c.At(to).Fabric
					_, data := f.Addresses(to)
					for _, at := range []netip.Addr{data, f.Address6(to)} {
						tcp, udp := echo(t, c, to, at)
						for from := range 9 {
							if from == to {
								continue
							}
							if err := errors.Join(reach(c, from, "tcp", tcp), reach(c, from, "udp", udp)); err != nil {
								t.Errorf("%d → %s: %v", from, at, err)
							}
						}
					}
				}
			})
		})
	}
}

func TestNodesOnOtherUnderlays(t *testing.T) {
	for name, o := range map[string]fabrictest.Options{
		"IPv6":        {Nodes: 2, PerNode: 1, Six: true, MTU: 1400},
		"short":       {Nodes: 2, PerNode: 1, MTU: 1350},
		"jumbo":       {Nodes: 2, PerNode: 1, MTU: 9000},
		"alternating": {Nodes: 2, PerNode: 4, Alternate: true},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, o, func(t *testing.T, c *fabrictest.Cluster) {
				f := c.Nodes[0].Fabric
				_, data := f.Addresses(1)
				for _, at := range []netip.Addr{data, f.Address6(1)} {
					tcp, udp := echo(t, c, 1, at)
					if err := reach(c, 0, "tcp", tcp); err != nil {
						t.Errorf("%s: %v", at, err)
					}
					headers := 28
					if at.Is6() {
						headers = 48
					}
					for longer, want := range []bool{true, false} {
						if err := whole(c, 0, udp, f.MTU()-headers+longer); (err == nil) != want {
							t.Errorf("%s: a packet of %d bytes: %v", at, f.MTU()+longer, err)
						}
					}
				}
			})
		})
	}
}

// whole sends a UDP packet of that size, which must not be taken apart, and waits until it comes back.
func whole(c *fabrictest.Cluster, slot int, to netip.AddrPort, size int) error {
	conn, err := dial(c, slot, "udp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	_ = raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		if to.Addr().Is6() {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		}
	})
	if err != nil {
		return err
	}
	if _, err := conn.Write(make([]byte, size)); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, err = conn.Read(make([]byte, size))
	return err
}

func TestPodsAreIsolated(t *testing.T) {
	for _, isolate := range []bool{true, false} {
		t.Run(fmt.Sprint(isolate), func(t *testing.T) {
			inCluster(t, fabrictest.Options{Nodes: 1, PerNode: 2, Isolate: isolate}, func(t *testing.T, c *fabrictest.Cluster) {
				// The cluster's network comes back up, as if its agent had mended it: what is cut off stays so.
				err := c.Inside(0, func() error {
					eth0, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					if up := eth0.Attrs().Flags&net.FlagUp != 0; up == isolate {
						t.Errorf("eth0 is up: %v", up)
					}
					return netlink.LinkSetUp(eth0)
				})
				if err != nil {
					t.Fatal(err)
				}
				pod, door := fabrictest.Outside(0)
				outside := host(t, c.Nodes[0], door)
				began := time.Now()
				err = reach(c, 0, "tcp", outside)
				if (err == nil) == isolate {
					t.Errorf("out by the cluster's network: %v", err)
				}
				if isolate && (!errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > 500*time.Millisecond) {
					t.Errorf("it is told so by %v, after %v", err, time.Since(began))
				}
				listening, _ := echo(t, c, 0, pod)
				err = fabrictest.OnThread(func() error {
					if err := unix.Setns(int(c.Nodes[0].Host.Fd()), unix.CLONE_NEWNET); err != nil {
						return err
					}
					conn, err := net.DialTimeout("tcp", listening.String(), 300*time.Millisecond)
					if err == nil {
						conn.Close()
					}
					return err
				})
				if (err == nil) == isolate {
					t.Errorf("in by the cluster's network: %v", err)
				}
				_, data := c.Nodes[0].Fabric.Addresses(1)
				tcp, _ := echo(t, c, 1, data)
				own, _ := echo(t, c, 0, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
				if err := errors.Join(reach(c, 0, "tcp", tcp), reach(c, 0, "tcp", own)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// host serves TCP at an address of a node until the test ends.
func host(t *testing.T, n *fabrictest.Node, at netip.Addr) netip.AddrPort {
	t.Helper()
	var l net.Listener
	err := fabrictest.OnThread(func() (err error) {
		if err := unix.Setns(int(n.Host.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		l, err = net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// A connection outlives the fabrics at both its ends, and what was changed stays changed.
func TestFabricIsTakenOver(t *testing.T) {
	inCluster(t, fabrictest.Options{Nodes: 2, PerNode: 2, Isolate: true}, func(t *testing.T, c *fabrictest.Cluster) {
		near, far := c.Nodes[0], c.Nodes[1]
		_, data := near.Fabric.Addresses(2)
		tcp, _ := echo(t, c, 2, data)
		conn, err := dial(c, 0, "tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		to := netip.MustParsePrefix("10.0.9.9/16")
		for _, err := range []error{
			near.Fabric.SetDataAddress(1, to), far.Fabric.MoveRemote(1, to), far.Fabric.SetEnabled(3, false),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			if err := exchange(conn); err != nil {
				t.Fatal(err)
			}
		}
		// The counters of a link that was made anew would begin at 0.
		counted := func() (tunnel, eth1 uint64) {
			_ = near.Fabric.InRouter(func() error { tunnel = packets("tunnel0"); return nil })
			_ = near.Fabric.Inside(0, func() error { eth1 = packets("eth1"); return nil })
			return tunnel, eth1
		}
		tunnel, eth1 := counted()
		for range 3 {
			for _, n := range c.Nodes {
				if err := n.Fabric.Close(); err != nil {
					t.Fatal(err)
				}
				if err := exchange(conn); err != nil {
					t.Errorf("without a fabric: %v", err)
				}
				n.Open()
				if err := exchange(conn); err != nil {
					t.Errorf("before the pods are added: %v", err)
				}
				n.Fill()
				if err := exchange(conn); err != nil {
					t.Errorf("taken over: %v", err)
				}
			}
		}
		if a, b := counted(); tunnel < 20 || a < tunnel || eth1 < 20 || b < eth1 {
			t.Errorf("a link was made anew: %d packets and %d by the tunnel, %d and %d by eth1", tunnel, a, eth1, b)
		}
		if own, enabled, ok := near.Fabric.Seated(1); own != to || !enabled || !ok {
			t.Errorf("the one that has moved is at %s (%v, %v)", own, enabled, ok)
		}
		if _, enabled, _ := far.Fabric.Seated(3); enabled {
			t.Error("the one that was taken off the network is back")
		}
		moved, _ := echo(t, c, 1, to.Addr())
		if err := far.Fabric.MoveRemote(1, to); err != nil {
			t.Fatal(err)
		}
		if err := reach(c, 2, "tcp", moved); err != nil {
			t.Errorf("where it has moved: %v", err)
		}
	})
}

// packets is how many have come by a link.
func packets(name string) uint64 {
	l, err := netlink.LinkByName(name)
	if err != nil || l.Attrs().Statistics == nil {
		return 0
	}
	return l.Attrs().Statistics.RxPackets
}

func TestAddressesMoveBetweenNodes(t *testing.T) {
	inCluster(t, fabrictest.Options{Nodes: 3, PerNode: 1}, func(t *testing.T, c *fabrictest.Cluster) {
		own := func(slot int) netip.Addr { _, a := c.Nodes[0].Fabric.Addresses(slot); return a }
		move := func(slot int, to netip.Prefix) {
			t.Helper()
			for i, n := range c.Nodes {
				var err error
				switch {
				case i != slot:
					err = n.Fabric.MoveRemote(slot, to)
				case to.IsValid():
					err = n.Fabric.SetDataAddress(slot, to)
				default:
					err = n.Fabric.SetDataAddress(slot, netip.PrefixFrom(own(slot), 16))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		reachable := func(what string, from, at int, address netip.Addr, want bool) {
			t.Helper()
			tcp, _ := echo(t, c, at, address)
			if err := reach(c, from, "tcp", tcp); (err == nil) != want {
				t.Errorf("%s: %v", what, err)
			}
		}
		// To the address of one on another node, which gets none of the packets then.
		move(1, netip.PrefixFrom(own(2), 16))
		reachable("in the place of another", 0, 1, own(2), true)
		reachable("for whom that place is its own", 2, 1, own(2), false) // it takes them for itself
		move(1, netip.Prefix{})
		reachable("back home", 0, 1, own(1), true)
		reachable("the one whose place it was", 0, 2, own(2), true)
		reachable("the one whose place it was", 1, 2, own(2), true)
		for _, bad := range []netip.Prefix{netip.MustParsePrefix("192.168.7.7/16"), netip.MustParsePrefix("10.0.0.0/16")} {
			if err := c.Nodes[0].Fabric.MoveRemote(1, bad); err == nil {
				t.Errorf("%s was taken", bad)
			}
		}
		if err := c.Nodes[0].Fabric.MoveRemote(0, netip.PrefixFrom(own(2), 16)); err == nil {
			t.Error("its own instance was moved as if it were elsewhere")
		}
	})
}
