// Package fabric is the network of one run: for every instance a network and a UTS namespace with two interfaces, eth0
// to the sync gateway (control) and eth1 to the other instances (data).
//
// All of it lives in anonymous namespaces that only this process's file descriptors hold. Control ends in the
// process's own network namespace, which doesn't forward, so instances reach the gateway over it and nobody else. Data
// ends in a second one, the router, which does. Both route: a /32 and a permanent neighbour per instance instead of a
// bridge, so there is no ARP, no limit of 1,023 ports and no flooding. What it doesn't carry is broadcast and multicast.
// Packets to data addresses that nobody has are dropped silently, as on a network whose far end is switched off.
//
// Beside its IPv4 address each instance has an IPv6 one on data, which follows from its slot: no router
// advertisements, no link-local addresses, no duplicate address detection. A kernel without IPv6 will do.
//
// Packets in the router that bear the mark ShaperMark take a detour: out of shape0 into a third namespace, the shaper's,
// whose end shape1 belongs to a program that reads what arrives there and puts it back when it is due. It then comes into
// the router by shape0, and goes where it was going. Nothing else listens at shape1: unread packets are gone.
//
// There is no way out of it: no namespace has an interface that the host knows of, nor a default route.
//
// On a node of a cluster (Options.Node) a fabric is one part of a run's network, and others have made the instances'
// network namespaces, for pods. It has a router and a shaper of its own, which are pinned: they, the links into pods and
// the routes between nodes stay when the process ends, and the next fabric over the same pins takes them over as they
// are. There is no control network. A link tunnel0 (VXLAN) leads to the routers of the other nodes; which addresses are
// behind which of them is told by SetPeers, nothing is ever learned, and what nobody has is still dropped.
package fabric

import (
	"errors"
	"net/netip"
	"os"
)

// Options say what a fabric is to be like.
type Options struct {
	// Subnet is the data network, an IPv4 prefix of at least a /24; the zero value is DefaultSubnet.
	Subnet netip.Prefix
	// Node has it be a node's part of the network of a run; nil: it is the whole network, in namespaces of its own.
	Node *Node
}

// Node is where a part of a run's network is.
type Node struct {
	// Pin is the folder in which the fabric's namespaces are kept by name; it is made when it isn't there. Another fabric
	// with the same one takes over what it finds.
	Pin string
	// Host is the network namespace of the host; nil: the process's own.
	Host *os.File
	// Underlay is the address of the host that the other nodes' tunnels lead to.
	Underlay netip.Addr
	// VNI tells the run's packets from those of others between the same nodes: 1 to 1<<24-1, the same on all of them.
	VNI uint32
	// Port is the UDP port of the tunnels, the same on all nodes; 0: DefaultPort.
	Port uint16
	// Isolate cuts pods off from every network but this one: what they send elsewhere is refused, and nothing comes in.
	// Without it the pods' other networks must not overlap with the data network.
	Isolate bool
}

// DefaultPort is the UDP port of the tunnels between nodes. It is not that which VXLAN is registered with: the cluster's
// own network may use it.
const DefaultPort = 14789

// Spec is an instance to be connected.
type Spec struct {
	// Slot is where it is plugged in, from 0: its addresses and the names of its links come from it.
	Slot int
	// Hostname is what os.Hostname returns inside, at most 64 bytes. Pods have one already.
	Hostname string
	// Namespace is the network namespace of the instance's pod; nil where the fabric makes them itself. It stays the
	// caller's.
	Namespace *os.File
}

// ShaperMark is the mark of packets in the router that are to take the way through the shaper.
const ShaperMark = 0x67

// ErrAbsent is what methods return for a slot that nobody was added to.
var ErrAbsent = errors.New("no instance is in that slot")
