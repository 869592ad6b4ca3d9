package node

import (
	"net/netip"
	"time"
)

// Port is where the agent listens on its node's loopback, unless it is told otherwise.
const Port = 5051

// Info is what an agent says of its node.
type Info struct {
	Name string `json:"name"`
	// Address is the node's own, at which the data networks of other nodes reach it.
	Address netip.Addr `json:"address"`
	Version string     `json:"version"`
	Started time.Time  `json:"started"`
	Shaping Shaping    `json:"shaping"`
	Runs    []Run      `json:"runs"`
}

// Shaping is what came of shaping a small data network on this node, when the agent started.
type Shaping struct {
	// Fault is why there can't be any data network, and Netem and UserSpace why it can't be shaped that way; each is empty
	// where it can.
	Fault     string `json:"fault,omitempty"`
	Netem     string `json:"netem,omitempty"`
	UserSpace string `json:"userSpace,omitempty"`
	// Asked is the latency that a link was given in user space, and Achieved what it was found to have, in nanoseconds.
	Asked    time.Duration `json:"asked,omitempty"`
	Achieved time.Duration `json:"achieved,omitempty"`
}

// How a run's sidecar stands.
const (
	StateStarting = "starting" // has not answered yet
	StateRunning  = "running"
	StateWaiting  = "waiting" // has ended, and is started again soon
	StateRemoving = "removing"
)

// Run is a run that has a sidecar on this node.
type Run struct {
	ID    string `json:"id"`
	State string `json:"state"`
	// Since is when it came to that state; Restarts counts how often the sidecar was started again by this agent.
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts,omitempty"`
	// PID is the sidecar's process, and Memory its resident set in bytes; 0 while there is none.
	PID    int   `json:"pid,omitempty"`
	Memory int64 `json:"memory,omitempty"`
	// Fault is how the sidecar ended last, with the last line that it said.
	Fault string `json:"fault,omitempty"`
}

// Ask says what a run's sidecar is to be started with. Asked again it has to be the same.
type Ask struct {
	Seed uint64 `json:"seed"`
}

// What an archive may be narrowed to.
const (
	OnlyOutputs = "outputs" // what instances have written
	OnlyRecords = "records" // what the sidecar has
)

// ArchiveOptions narrow an archive; the zero value is all.
type ArchiveOptions struct {
	// Only is OnlyOutputs, OnlyRecords or empty.
	Only string
	// Group is the group whose outputs to have, without records; empty: all.
	Group string
	// Index is the one instance of Group; nil: all.
	Index *int
}

// ManifestName is the name of the archive's last entry.
const ManifestName = "archive.json"

// Manifest says what became of everything that was to be in an archive.
type Manifest struct {
	Node string `json:"node"`
	// Instances are those whose outputs are in it, as group/index.
	Instances []string `json:"instances,omitempty"`
	// Gone are the instances whose folders are not there any more, as group/index → why.
	Gone map[string]string `json:"gone,omitempty"`
	// Skipped has what was left out, as path → why; at most 1,000, SkippedCount counts all.
	Skipped      map[string]string `json:"skipped,omitempty"`
	SkippedCount int               `json:"skippedCount,omitempty"`
	// Files and Bytes count what is in it, without this entry.
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}
