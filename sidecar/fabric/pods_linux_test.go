package fabric_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/fabric/fabrictest"
)

// A run that is resumed has other pods, and some of them on other nodes.
func TestPodsAreReplaced(t *testing.T) {
	inCluster(t, fabrictest.Options{Nodes: 2, PerNode: 2, Isolate: true}, func(t *testing.T, c *fabrictest.Cluster) {
		near, far := c.Nodes[0], c.Nodes[1]
		_, zero := near.Fabric.Addresses(0)
		near.Replace(0)
		near.Fill()
		tcp, _ := echo(t, c, 0, zero)
		for _, from := range []int{1, 2} {
			if err := reach(c, from, "tcp", tcp); err != nil {
				t.Errorf("%d → the new pod: %v", from, err)
			}
		}
		// While no fabric was there.
		if err := near.Fabric.Close(); err != nil {
			t.Fatal(err)
		}
		near.Replace(0)
		near.Open()
		near.Fill()
		tcp, _ = echo(t, c, 0, zero)
		if err := reach(c, 2, "tcp", tcp); err != nil {
			t.Errorf("the pod that is new to the new fabric: %v", err)
		}
		// Slot 1 goes to the other node.
		c.Peers[0].Slots, c.Peers[1].Slots = [][2]int{{0, 0}}, [][2]int{{1, 3}}
		for _, n := range c.Nodes {
			if err := n.Fabric.SetPeers(c.Peers); err != nil {
				t.Fatal(err)
			}
		}
		if near.Fabric.Present(1) || !near.Fabric.Remote(1) || far.Fabric.Remote(1) {
			t.Error("it isn't known that slot 1 has gone to the other node")
		}
		near.Slots, far.Slots = []int{0}, []int{1, 2, 3}
		far.Pods[1] = c.Pod(far, 5)
		far.Fill()
		_, one := near.Fabric.Addresses(1)
		var l net.Listener
		err := far.Fabric.Inside(1, func() (err error) {
			l, err = net.Listen("tcp", netip.AddrPortFrom(one, 0).String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		conn, err := dial(c, 0, "tcp", l.Addr().(*net.TCPAddr).AddrPort())
		if err != nil {
			t.Fatalf("the one on its new node: %v", err)
		}
		conn.Close()
	})
}

func TestDestroy(t *testing.T) {
	inCluster(t, fabrictest.Options{Nodes: 2, PerNode: 2, Isolate: true}, func(t *testing.T, c *fabrictest.Cluster) {
		for i, destroy := range []func(*fabrictest.Node) error{
			func(n *fabrictest.Node) error { return n.Fabric.Destroy() },
			func(n *fabrictest.Node) error { return errors.Join(n.Fabric.Close(), fabric.Destroy(n.Pin)) },
		} {
			n := c.Nodes[i]
			for range 2 { // the second time there is nothing
				if err := destroy(n); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.Stat(n.Pin); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the pins are there yet: %v", err)
			}
			for _, slot := range n.Slots {
				if err := c.Inside(slot, func() error { _, err := net.InterfaceByName("eth1"); return err }); err == nil {
					t.Errorf("slot %d has its link yet", slot)
				}
			}
			n.Open()
			n.Fill()
		}
		_, data := c.Nodes[0].Fabric.Addresses(2)
		tcp, _ := echo(t, c, 2, data)
		if err := reach(c, 0, "tcp", tcp); err != nil {
			t.Errorf("after all was made anew: %v", err)
		}
	})
}

func TestWhatANodeRefuses(t *testing.T) {
	inCluster(t, fabrictest.Options{Nodes: 1, PerNode: 1}, func(t *testing.T, c *fabrictest.Cluster) {
		n := c.Nodes[0]
		good := fabric.Node{Pin: t.TempDir(), Host: n.Host, Underlay: n.Address, VNI: 1}
		for says, change := range map[string]func(*fabric.Node){
			"a folder to pin":                func(n *fabric.Node) { n.Pin = "" },
			"a VNI is between":               func(n *fabric.Node) { n.VNI = 1 << 24 },
			"isn't one that others could":    func(n *fabric.Node) { n.Underlay = netip.Addr{} },
			"no link here has the node's":    func(n *fabric.Node) { n.Underlay = netip.MustParseAddr("192.0.2.1") },
			"another run on this node has":   func(n *fabric.Node) { n.VNI = 4711 },
			"that leaves less than the 1280": func(o *fabric.Node) { o.Underlay = short(t, n) },
		} {
			o := good
			change(&o)
			f, err := fabric.New(fabric.Options{Node: &o})
			if err == nil {
				_ = f.Destroy()
			}
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%v, want %q", err, says)
			}
			if o.Pin != "" {
				if err := fabric.Destroy(o.Pin); err != nil {
					t.Error(err)
				}
			}
		}
		err := n.Fabric.Add(t.Context(), []fabric.Spec{{Slot: 7, Hostname: "stray"}})[0]
		if err == nil || !strings.Contains(err.Error(), "placing stray: its pod's network namespace isn't known") {
			t.Errorf("%v", err)
		}
		if err := n.Fabric.Start(0, exec.Command("true")); err == nil {
			t.Error("a program was started in a pod")
		}
	})
}

// short gives a node a second link, for short packets, and says its address.
func short(t *testing.T, n *fabrictest.Node) netip.Addr {
	err := fabrictest.OnThread(func() error {
		if err := unix.Setns(int(n.Host.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		a := netlink.NewLinkAttrs()
		a.Name, a.MTU = "short0", 1300
		link := &netlink.Veth{LinkAttrs: a, PeerName: "short1"}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 2), Mask: net.CIDRMask(24, 32)}})
	})
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddr("192.0.2.2")
}

// A node learns where 10,000 instances are that 100 nodes hold.
func TestTenThousandElsewhere(t *testing.T) {
	inCluster(t, fabrictest.Options{Nodes: 2, PerNode: 1}, func(t *testing.T, c *fabrictest.Cluster) {
		const nodes, slots = 100, 10_000
		of := func(slot func(node, i int) int) []control.Peer {
			peers := slices.Clone(c.Peers)
			for n := range nodes {
				p := control.Peer{Name: fmt.Sprint("far", n), Address: netip.AddrFrom4([4]byte{192, 168, 9, byte(n + 1)})}
				for i := range slots / nodes {
					at := 2 + slot(n, i)
					p.Slots = append(p.Slots, [2]int{at, at})
				}
				peers = append(peers, p)
			}
			return peers
		}
		_, data := c.Nodes[0].Fabric.Addresses(1)
		tcp, _ := echo(t, c, 1, data)
		for _, way := range []struct {
			name string
			slot func(node, i int) int
		}{
			{"one after the other", func(node, i int) int { return node*slots/nodes + i }},
			{"taking turns", func(node, i int) int { return i*nodes + node }},
			{"the same again", func(node, i int) int { return i*nodes + node }},
		} {
			peers := of(way.slot)
			began := time.Now()
			if err := c.Nodes[0].Fabric.SetPeers(peers); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d instances on %d nodes, %s: %v", slots, nodes, way.name, time.Since(began).Round(100*time.Microsecond))
			if err := reach(c, 0, "tcp", tcp); err != nil {
				t.Error(err)
			}
		}
		began := time.Now()
		for i := range 100 {
			if err := c.Nodes[0].Fabric.MoveRemote(2+i, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 200, byte(i + 1)}), 16)); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("100 of them move: %v", time.Since(began).Round(100*time.Microsecond))
	})
}
