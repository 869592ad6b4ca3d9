// Package sidecar is the companion of a run's instances: one process that holds their network, their processes and
// their sync service, and outlives the worker that asked for them. Main is all of it.
package sidecar

import (
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/runs"
)

// ShaperVariable is the environment variable that forces a way to shape data networks.
const ShaperVariable = "GROUNDPLAN_SHAPER"

const (
	// DefaultIdleLimit is how long a sidecar stays that nobody calls.
	DefaultIdleLimit = 24 * time.Hour
	// syncPort is where instances find the sync service; SDKs know the number.
	syncPort = 5050
	// forgetsWithin is how long deleting the run's data from Redis may hold up the sidecar's end.
	forgetsWithin = 5 * time.Second
)

// Config says which run's sidecar this is, and what it works with.
type Config struct {
	// Folder is the run's folder; the run's id is its name.
	Folder runs.Folder
	// Redis is the address of the Redis to use, as redis://, rediss:// or unix:// URL; empty: one inside this process.
	Redis string
	// Log takes what the sidecar says; nil: it goes to stderr.
	Log *slog.Logger
	// IdleLimit is how long the sidecar stays when nobody calls; 0: DefaultIdleLimit.
	IdleLimit time.Duration
	// Subnet is the data network; the zero value leaves it to the fabric.
	Subnet netip.Prefix
	// Seed is the run's: with the same one the same packets of a link are lost.
	Seed uint64
	// Shaper forces a way to shape the data network, "netem" or "userspace"; empty: what ShaperVariable says, or what this
	// machine has.
	Shaper string
	// Node is the node of a cluster on which this sidecar holds its part of the run; nil: the run is all on this machine.
	Node *Node
}

// Node is a node of a cluster. There the sidecar works in the node's own namespaces, its programs run in pods, and what it
// holds stays when it ends without a release.
type Node struct {
	Name string
	// Address is the node's, at which the data network of the other nodes reaches it.
	Address netip.Addr
	// Kubelet is the kubelet's root folder.
	Kubelet string
	// Folder is where pods see their folder; empty: where the chart mounts it. See pods.Options.
	Folder string
}

// ErrLeft says that a node's sidecar has ended without releasing its run: all of it stays for the next one.
var ErrLeft = errors.New("the sidecar has left its run as it is")
