// Package links says what is asked of every link of a data network: it lays what the network stage, the instances' own
// plans and the events of a run ask for over each other. It is pure: no clock, no kernel, no randomness. Others put the
// result in force: sidecar/policy in the kernel's packet filter, sidecar/shaper by delaying, losing and limiting.
//
// Layers, lowest first; a field that a layer doesn't set shows the one below:
//
//  1. the network stage: `default`, the region matrix, then `links` row by row;
//  2. what an instance's plan asks for its own outgoing packets: its default, then its longest matching rule;
//  3. the events of `run` in force, in the order in which they began, each with `default`, then `links` row by row.
//
// Each layer is replaced whole, never added to. What is set of groups rather than links is laid over in the same way:
// `inbound` of an event replaces that of the stage for the groups that it names, and `nat` takes them out of the router
// that they were behind.
//
// NATs are of IPv4. Over IPv6 nothing gets past them: what comes from outside is lost, and who is behind one is rejected
// at once, for programs to take IPv4 instead.
package links

import (
	"math"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

// Instance is one instance on the data network.
type Instance struct {
	Slot  int
	Group string
	// Data is its IPv4 address now: its plan may have changed it. Data6 is its IPv6 address, which follows from the slot.
	Data, Data6 netip.Addr
}

// Seats says who sits where. Instances stand in the order of their slots, and the instances of a group follow each other.
type Seats struct {
	Subnet, Subnet6 netip.Prefix
	Groups          []pipelines.Group
	Instances       []Instance
}

// Shape is what one layer sets of a link in one direction; nil and empty fields are not set. The correlations that only
// plans can ask for stand beside the fields of the language.
type Shape struct {
	pipelines.Shape
	DuplicateCorrelation, ReorderCorrelation, CorruptCorrelation *pipelines.Share
}

// Plan is what an instance's plan asks for its own outgoing packets. Of the rules that hold an address the one with the
// longest prefix counts, of equals the last.
type Plan struct {
	Default Shape
	Rules   []Rule
}

// Rule is the shape towards a part of the data network. Its policy replaces that of what it is laid over also when it is
// empty, which stands for accept: a rule is how a plan makes an exception. A rule for IPv4 addresses counts for the IPv6
// addresses of the same instances as well, as if it were as long there; a longer one for IPv6 goes before it.
type Rule struct {
	To    netip.Prefix
	Shape Shape
}

// Event is an event of `run` in force.
type Event struct {
	Name    string
	Network pipelines.Network
}

// Layers is all that is asked.
type Layers struct {
	Stage  pipelines.Network
	Plans  map[int]Plan // by slot
	Events []Event      // in the order in which they began
}

// Policy says what becomes of packets, whatever their shape.
type Policy uint8

// The policies.
const (
	Accept Policy = iota
	Reject        // the sender is told at once: RST for TCP, ICMP for all else
	Drop
)

// Path is what is asked of packets from one instance to one address: all layers together. Shares are between 0 and 1.
type Path struct {
	Latency, Jitter time.Duration
	// Distribution of the jitter: uniform, normal (also when empty) or pareto. Jitter alone never reorders.
	Distribution                    string
	Loss, LossCorrelation           float64
	Duplicate, DuplicateCorrelation float64
	Reorder, ReorderCorrelation     float64 // share of packets that are sent at once, overtaking those delayed
	Corrupt, CorruptCorrelation     float64
	// Bandwidth is in bits per second, counted over IP packets; 0: unlimited.
	Bandwidth int64
	// Queue is how many packets may wait for bandwidth before further ones are dropped; 0: DefaultQueue.
	Queue int
	// Bucket names the row that set Bandwidth: what one instance sends by paths with the same bucket shares it.
	Bucket string
	Policy Policy
	// Private says that the address is behind a NAT which the sender isn't behind: in the packet filter it can't be reached
	// (drop), whatever Policy says; the other fields hold for packets that the NAT lets through.
	Private bool
	// Translated says that packets cross a NAT, so that they take the way through user space even if nothing shapes them:
	// the sender is behind a NAT and the address isn't behind the same one, or the address is a NAT's external one.
	Translated bool
}

// DefaultQueue is how many packets wait for bandwidth where a pipeline doesn't say, as in Linux's own queues.
const DefaultQueue = 1000

// Shaped says whether packets have to be delayed, lost, changed or limited.
func (p Path) Shaped() bool {
	return p.Latency > 0 || p.Jitter > 0 || p.Loss > 0 || p.Duplicate > 0 || p.Reorder > 0 || p.Corrupt > 0 || p.Bandwidth > 0
}

// UserSpace says whether only user space can do what is asked, whoever shapes else: packets cross a NAT, or the kernel's
// netem doesn't do it. Linux refuses a netem that duplicates beside another one on the same link (since 6.1.147), and
// keeps no jitter above 2.1 s.
func (p Path) UserSpace() bool { return p.Translated || p.Duplicate > 0 || p.Jitter > math.MaxInt32 }

// Route is what is asked of packets to a part of the data network. Of the routes of an instance that hold an address
// the one with the longest prefix counts.
type Route struct {
	To   netip.Prefix
	Path Path
}

// Inbound says what becomes of new connections into an instance: Accept, Reject or Drop. Replies always pass.
type Inbound map[int]Policy // by slot; a slot that isn't there accepts

// NATType is one of the language's: full-cone, restricted, port-restricted, symmetric.
type NATType string

// Router is a NAT with instances behind it. They reach each other directly.
type Router struct {
	// External is the router's address on the data network, taken from the subnet's end.
	External netip.Addr
	Type     NATType
	// Timeout is how long a mapping of UDP stays without outgoing packets; 0: sidecar/nat's default.
	Timeout time.Duration
	Slots   []int
}
