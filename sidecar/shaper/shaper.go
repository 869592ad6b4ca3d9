// Package shaper delays, loses, changes and limits the packets of a data network as a state asks for. There are two ways:
// netem, the kernel's own (sidecar/shaper/netem), and user space for kernels without it (sidecar/shaper/userspace). Both
// pass the same table of tests (sidecar/shaper/conformance).
package shaper

import (
	"context"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

// Shaper shapes the packets of one fabric.
type Shaper interface {
	// Name is "netem" or "user space".
	Name() string
	// Apply puts a whole state in force in place of the one before, and returns once it is. Asked for the same again it does
	// nothing. Policy and Inbound are not its business, except for packets that a NAT has translated.
	Apply(ctx context.Context, state *links.State) error
	// Health is what has happened since New.
	Health() Health
	Close() error
}

// Health says how well the shaping kept up.
type Health struct {
	// Packets counts those that were shaped.
	Packets int64
	// Lost counts packets that went missing though nobody had asked for it: the shaper could not keep up. Packets that
	// found the queue of their bandwidth full are not among them.
	Lost int64
	// Late counts packets that left more than LateAfter behind their time.
	Late int64
	// CPU is the time that the shaping itself took; 0 where the kernel does it.
	CPU time.Duration
}

// LateAfter is by how much a packet may miss its time without being called late.
const LateAfter = 5 * time.Millisecond
