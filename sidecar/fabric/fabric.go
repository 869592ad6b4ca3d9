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
package fabric

import (
	"errors"
	"net/netip"
)

// Options say what a fabric is to be like.
type Options struct {
	// Subnet is the data network, an IPv4 prefix of at least a /24; the zero value is DefaultSubnet.
	Subnet netip.Prefix
}

// Spec is an instance to be connected.
type Spec struct {
	// Slot is where it is plugged in, from 0: its addresses and the names of its links come from it.
	Slot int
	// Hostname is what os.Hostname returns inside, at most 64 bytes.
	Hostname string
}

// ShaperMark is the mark of packets in the router that are to take the way through the shaper.
const ShaperMark = 0x67

// ErrAbsent is what methods return for a slot that nobody was added to.
var ErrAbsent = errors.New("no instance is in that slot")
