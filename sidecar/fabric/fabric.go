// Package fabric is the network of one run: for every instance a network and a UTS namespace with two interfaces, eth0
// to the sync gateway (control) and eth1 to the other instances (data).
//
// All of it lives in anonymous namespaces that only this process's file descriptors hold. Control ends in the
// process's own network namespace, which doesn't forward, so instances reach the gateway over it and nobody else. Data
// ends in a second one, the router, which does. Both route: a /32 and a permanent neighbour per instance instead of a
// bridge, so there is no ARP, no limit of 1,023 ports and no flooding. What it doesn't carry is broadcast and multicast.
// Packets to data addresses that nobody has are dropped silently, as on a network whose far end is switched off.
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

// ErrAbsent is what methods return for a slot that nobody was added to.
var ErrAbsent = errors.New("no instance is in that slot")
