package fabrictest

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric"
)

// Options say what a cluster is to be like.
type Options struct {
	// Nodes is how many there are, and PerNode how many instances each holds: the first node the first ones.
	Nodes, PerNode int
	// Alternate has instances that follow each other be on different nodes instead.
	Alternate bool
	// MTU of the network between nodes; 0: 1500.
	MTU int
	// Isolate has fabrics cut pods off.
	Isolate bool
	// Six has the nodes know each other by IPv6.
	Six bool
	// Subnet is the data network; the zero value is the fabric's own.
	Subnet netip.Prefix
}

// Cluster is some nodes. All of it goes when the test ends.
type Cluster struct {
	t     testing.TB
	o     Options
	Nodes []*Node
	// Peers are the nodes as they are told of each other.
	Peers []control.Peer
}

// Node is one of them.
type Node struct {
	cluster *Cluster
	// Host is its own network namespace, and Address its address there.
	Host    *os.File
	Address netip.Addr
	Pin     string
	// Slots are those of its instances, and Pods their network namespaces by slot.
	Slots  []int
	Pods   map[int]*os.File
	Fabric *fabric.Fabric
}

// New makes a cluster, with a fabric on each node to which all its instances have been added.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := Bare(t, o)
	for _, n := range c.Nodes {
		n.Open()
		n.Fill()
	}
	return c
}

// Bare makes a cluster without fabrics.
func Bare(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, o: o}
	folder := t.TempDir()
	middle := c.namespace()
	c.within(middle, func() error {
		return errors(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes("bridge0", cmp.Or(o.MTU, 1500))}), up("bridge0"))
	})
	for i := range o.Nodes {
		n := &Node{cluster: c, Host: c.namespace(), Address: c.address(i), Pin: filepath.Join(folder, fmt.Sprint("node", i)), Pods: map[int]*os.File{}}
		c.Nodes = append(c.Nodes, n)
		c.join(middle, n, i)
		peer := control.Peer{Name: fmt.Sprint("node", i), Address: n.Address}
		for slot := range o.Nodes * o.PerNode {
			if c.At(slot) == n {
				n.Slots = append(n.Slots, slot)
				n.Pods[slot] = n.pod(slot)
				peer.Slots = append(peer.Slots, [2]int{slot, slot})
			}
		}
		c.Peers = append(c.Peers, peer)
	}
	t.Cleanup(c.close)
	return c
}

func (c *Cluster) close() {
	for _, n := range c.Nodes {
		if n.Fabric != nil {
			if err := n.Fabric.Destroy(); err != nil {
				c.t.Error(err)
			}
		}
	}
}

func (c *Cluster) address(i int) netip.Addr {
	if c.o.Six {
		return netip.MustParseAddr(fmt.Sprintf("fd00:1::%x", i+1))
	}
	return netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i + 1)})
}

// namespace makes a network namespace that lasts until the test ends.
func (c *Cluster) namespace() *os.File {
	c.t.Helper()
	var made *os.File
	err := OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		if made, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return up("lo")
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { made.Close() })
	return made
}

// join connects a node to the others.
func (c *Cluster) join(middle *os.File, n *Node, i int) {
	c.t.Helper()
	port := fmt.Sprint("port", i)
	c.within(middle, func() error {
		link := &netlink.Veth{LinkAttrs: attributes(port, cmp.Or(c.o.MTU, 1500)), PeerName: "underlay0", PeerNamespace: netlink.NsFd(int(n.Host.Fd())), PeerMTU: uint32(cmp.Or(c.o.MTU, 1500))}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("bridge0")
		if err != nil {
			return err
		}
		return errors(netlink.LinkSetMaster(link, bridge), up(port))
	})
	c.within(n.Host, func() error {
		link, err := netlink.LinkByName("underlay0")
		if err != nil {
			return err
		}
		length := 16
		if c.o.Six {
			length = 64
		}
		own := net.IPNet{IP: n.Address.AsSlice(), Mask: net.CIDRMask(length, n.Address.BitLen())}
		return errors(netlink.AddrAdd(link, &netlink.Addr{IPNet: &own, Flags: unix.IFA_F_NODAD}), up("underlay0"))
	})
}

// pod makes a pod with an eth0 that leads to its node, as a cluster's own network would.
func (n *Node) pod(slot int) *os.File {
	n.cluster.t.Helper()
	made := n.cluster.namespace()
	address := func(end byte) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 20+byte(slot>>14), byte(slot>>6), byte(slot<<2)|end), Mask: net.CIDRMask(30, 32)}}
	}
	name := fmt.Sprint("pod", slot)
	n.cluster.within(n.Host, func() error {
		link := &netlink.Veth{LinkAttrs: attributes(name, 1500), PeerName: "eth0", PeerNamespace: netlink.NsFd(int(made.Fd()))}
		return errors(netlink.LinkAdd(link), netlink.AddrAdd(link, address(1)), up(name))
	})
	n.cluster.within(made, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors(
			os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0),
			netlink.AddrAdd(link, address(2)), up("eth0"),
			netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: address(1).IP}))
	})
	return made
}

// Pod makes a pod on a node that is in no slot yet; number is one that no other pod has.
func (c *Cluster) Pod(n *Node, number int) *os.File { return n.pod(number) }

// Outside is the address of a pod's other network, and Door that of its node there.
func Outside(slot int) (pod, door netip.Addr) {
	of := func(end byte) netip.Addr {
		return netip.AddrFrom4([4]byte{172, 20 + byte(slot>>14), byte(slot >> 6), byte(slot<<2) | end})
	}
	return of(2), of(1)
}

// Replace puts a new pod into a slot; the old one stays until the test ends.
func (n *Node) Replace(slot int) {
	n.cluster.t.Helper()
	n.cluster.within(n.Host, func() error {
		link, err := netlink.LinkByName(fmt.Sprint("pod", slot))
		return errors(err, netlink.LinkDel(link))
	})
	n.Pods[slot] = n.pod(slot)
}

// Open opens a fabric over what the node's folder has, and tells it of the others.
func (n *Node) Open() {
	n.cluster.t.Helper()
	var err error
	n.Fabric, err = fabric.New(fabric.Options{Subnet: n.cluster.o.Subnet, Node: &fabric.Node{
		Pin: n.Pin, Host: n.Host, Underlay: n.Address, VNI: 4711, Isolate: n.cluster.o.Isolate,
	}})
	if err == nil {
		err = n.Fabric.SetPeers(n.cluster.Peers)
	}
	if err != nil {
		n.cluster.t.Fatal(err)
	}
}

// Fill adds the node's instances to its fabric.
func (n *Node) Fill() {
	n.cluster.t.Helper()
	var specs []fabric.Spec
	for _, slot := range n.Slots {
		specs = append(specs, fabric.Spec{Slot: slot, Hostname: fmt.Sprint("i", slot), Namespace: n.Pods[slot]})
	}
	for i, err := range n.Fabric.Add(n.cluster.t.Context(), specs) {
		if err != nil {
			n.cluster.t.Fatalf("slot %d: %v", specs[i].Slot, err)
		}
	}
}

// At is the node that holds a slot; nil until there is one.
func (c *Cluster) At(slot int) *Node {
	i := slot / c.o.PerNode
	if c.o.Alternate {
		i = slot % c.o.Nodes
	}
	if i >= len(c.Nodes) {
		return nil
	}
	return c.Nodes[i]
}

// Inside does work on a thread in the network namespace of a slot's pod, whatever fabric there is.
func (c *Cluster) Inside(slot int, work func() error) error {
	return OnThread(func() error {
		if err := unix.Setns(int(c.At(slot).Pods[slot].Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return work()
	})
}

func (c *Cluster) within(namespace *os.File, work func() error) {
	c.t.Helper()
	err := OnThread(func() error {
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return work()
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// OnThread does work on a thread that ends with it.
func OnThread(work func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if unix.Gettid() == unix.Getpid() {
			done <- OnThread(work)
			runtime.UnlockOSThread()
			return
		}
		done <- work()
	}()
	return <-done
}

func attributes(name string, mtu int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = name, mtu
	return a
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// errors is the first of them.
func errors(all ...error) error { return cmp.Or(all...) }
