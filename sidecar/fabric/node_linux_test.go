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

var _ = syscall.EPERM
