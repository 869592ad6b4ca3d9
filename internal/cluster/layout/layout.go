// Package layout says what a development cluster consists of: its machines, their names and addresses, what runs on them
// and how it is configured. It is pure: nothing here looks at the machine or changes it.
package layout

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"regexp"
)

// Cluster is one cluster. Everything else about it follows from these values.
type Cluster struct {
	// Name is in the names of everything that the cluster leaves on the host.
	Name string `json:"name"`
	// Block is the second byte of all its addresses: it has 172.<Block>.0.0/16 for itself.
	Block int `json:"block"`
	// Nodes is how many nodes there are, each with a kubelet and a containerd.
	Nodes int `json:"nodes"`
	// Fake is how many nodes exist in the API only: kwok plays them.
	Fake int `json:"fake,omitzero"`
}

// Limits of what a cluster can be.
const (
	// MaxNodes is what the addresses of pods suffice for.
	MaxNodes = 60
	// MaxFake keeps within what one kwok plays on a machine of this size.
	MaxFake = 5000
	// MaxPods is what one node takes: its /23 of addresses holds them twice, for those that come while others go.
	MaxPods = 200
	// FakePods is what one fake node takes.
	FakePods = 1000
)

// blocks are the second bytes that clusters take theirs from: private addresses outside 10.0.0.0/8, which instances'
// data networks have, and outside 172.17.0.0/16, which Docker has.
const (
	firstBlock = 18
	blocks     = 14
)

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9]{0,9}$`)

// CheckName refuses a name that the host's names of links and folders have no room for.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%q can't name a cluster: take a letter and up to nine letters and digits, all of them small", name)
	}
	return nil
}

// Blocks are the blocks of addresses that a cluster of that name may take, the one to try first in front.
func Blocks(name string) []int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash never refuses
	tries := make([]int, blocks)
	for i := range tries {
		tries[i] = firstBlock + (int(h.Sum32()%blocks)+i)%blocks
	}
	return tries
}

// Range is every address of the cluster.
func (c Cluster) Range() netip.Prefix { return netip.PrefixFrom(c.address(0, 0), 16) }

// Services are the addresses of Services.
func (c Cluster) Services() netip.Prefix { return netip.PrefixFrom(c.address(128, 0), 18) }

// APIService is the address of the Service `kubernetes`. The control plane has it itself: no proxy is needed to reach it.
func (c Cluster) APIService() netip.Addr { return c.address(128, 1) }

// DNSService is the address that pods are told to ask for names.
func (c Cluster) DNSService() netip.Addr { return c.address(128, 10) }

// Host is the host's end of the one cable into the cluster.
func (c Cluster) Host() netip.Prefix { return netip.PrefixFrom(c.address(255, 1), 30) }

// Uplink is the control plane's end of that cable. The API server and the registry are reached at it, from the host and
// from every node alike, so that an image has one name everywhere.
func (c Cluster) Uplink() netip.Prefix { return netip.PrefixFrom(c.address(255, 2), 30) }

// ControlPlane is the control plane's address among the machines.
func (c Cluster) ControlPlane() netip.Prefix { return netip.PrefixFrom(c.address(0, 2), 24) }

// Registry is the address of the registry of images.
func (c Cluster) Registry() netip.AddrPort { return netip.AddrPortFrom(c.Uplink().Addr(), 5000) }

// Redis is the address of Redis. The host has no way to it.
func (c Cluster) Redis() netip.AddrPort { return netip.AddrPortFrom(c.ControlPlane().Addr(), 6379) }

// API is the URL of the API server.
func (c Cluster) API() string { return "https://" + c.Uplink().Addr().String() }

// PauseImage holds every pod's namespaces.
func (c Cluster) PauseImage() string { return c.Registry().String() + "/cluster/pause:1" }

// HostLink is the name of the host's end of the cable: the one thing of the cluster among the host's links.
func (c Cluster) HostLink() string { return "gp-" + c.Name }

// Group is the control group, in every hierarchy, of all that belongs to the cluster.
func (c Cluster) Group() string { return "groundplan-" + c.Name }

func (c Cluster) address(third, fourth int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, byte(c.Block), byte(third), byte(fourth)})
}

// Machine is one machine of the cluster: namespaces of its own for network, mounts and host name.
type Machine struct {
	Name string
	// Address is its address among the machines.
	Address netip.Prefix
	// Pods are the addresses of its pods; the control plane has none.
	Pods netip.Prefix
}

// Switch is the name of what joins the machines: a network namespace with nothing but a bridge.
const Switch = "switch"

// Control is the control plane's machine.
func (c Cluster) Control() Machine { return Machine{Name: "control", Address: c.ControlPlane()} }

// Machines are the nodes' machines.
func (c Cluster) Machines() []Machine {
	machines := make([]Machine, c.Nodes)
	for i := range machines {
		machines[i] = Machine{
			Name:    fmt.Sprintf("node-%d", i+1),
			Address: netip.PrefixFrom(c.address(0, 11+i), 24),
			Pods:    netip.PrefixFrom(c.address(2*(i+1), 0), 23),
		}
	}
	return machines
}

// IsNode says whether pods run on it.
func (m Machine) IsNode() bool { return m.Pods.IsValid() }

// Route is a way that a machine knows.
type Route struct{ To, Via netip.Prefix }

// Routes are all the ways that a machine knows beside its own cable: none leads outside.
func (c Cluster) Routes(m Machine) []Route {
	var routes []Route
	if m.IsNode() {
		for _, at := range []netip.Addr{c.Uplink().Addr(), c.APIService()} {
			routes = append(routes, Route{To: netip.PrefixFrom(at, 32), Via: c.ControlPlane()})
		}
	}
	for _, other := range c.Machines() {
		if other.Name != m.Name {
			routes = append(routes, Route{To: other.Pods, Via: other.Address})
		}
	}
	return routes
}
