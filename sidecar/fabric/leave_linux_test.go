package fabric_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric/fabrictest"
)

// ways is all that a node's router knows about the way to other nodes: neighbours, entries of the tunnel and routes.
func ways(t *testing.T, n *fabrictest.Node) (all []string) {
	t.Helper()
	err := n.Fabric.InRouter(func() error {
		tunnel, err := netlink.LinkByName("tunnel0")
		if err != nil {
			return err
		}
		for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
			known, err := netlink.NeighList(tunnel.Attrs().Index, family)
			if err != nil {
				return err
			}
			for _, k := range known {
				if k.State&netlink.NUD_PERMANENT != 0 {
					all = append(all, fmt.Sprintf("%d: %v is %v", family, k.IP, k.HardwareAddr))
				}
			}
		}
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			routes, err := netlink.RouteList(tunnel, family)
			if err != nil {
				return err
			}
			for _, r := range routes {
				all = append(all, fmt.Sprintf("%v via %v", r.Dst, r.Gw))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// A node that holds nothing of the run any more is forgotten, whether or not a fabric was there when it left.
func TestNodesLeave(t *testing.T) {
	inCluster(t, fabrictest.Options{Nodes: 3, PerNode: 2, Isolate: true}, func(t *testing.T, c *fabrictest.Cluster) {
		near, all := c.Nodes[0], slices.Clone(c.Peers)
		three := ways(t, near)
		told := func(peers []control.Peer) {
			t.Helper()
			if err := near.Fabric.SetPeers(peers); err != nil {
				t.Fatal(err)
			}
		}
		told(all[:2])
		two := ways(t, near)
		if per := len(three) - len(two); len(two) < 5 || per != len(two) {
			t.Errorf("with three nodes it knows %q, with two %q", three, two)
		}
		told(all)
		if again := ways(t, near); !slices.Equal(again, three) {
			t.Errorf("the third has come back: %q, want %q", again, three)
		}
		// An IPv6 route that no IPv4 one tells of any more.
		err := near.Fabric.InRouter(func() error {
			tunnel, err := netlink.LinkByName("tunnel0")
			if err != nil {
				return err
			}
			routes, err := netlink.RouteList(tunnel, unix.AF_INET)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Dst != nil && r.Dst.IP.String() == "10.0.0.6" {
					return netlink.RouteDel(&r)
				}
			}
			return fmt.Errorf("there is no route to 10.0.0.6: %v", routes)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := near.Fabric.Close(); err != nil {
			t.Fatal(err)
		}
		c.Peers = all[:2]
		near.Open()
		if after := ways(t, near); !slices.Equal(after, two) {
			t.Errorf("the third has left meanwhile: %q, want %q", after, two)
		}
		c.Peers = all
		near.Fill()
	})
}
