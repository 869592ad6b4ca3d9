// Package userspace shapes packets in this process, for kernels without netem and for packets that cross a NAT.
//
// It reads what comes out of one end of a link, keeps each packet for as long as its path asks, and sends it back by the
// same end. What doesn't come by isn't shaped: others lead packets here (see sidecar/fabric and sidecar/policy).
//
// A packet is treated in this order: NAT, policy, loss, duplication, corruption, bandwidth, and then latency with jitter
// and reordering. It counts from when the kernel received the packet, so what this process takes is part of the latency,
// as long as it is less. A packet that needn't wait for bandwidth isn't delayed by its own transmission.
package userspace

import (
	"log/slog"
	"time"
)

// Translator takes packets through NATs. It is called by one goroutine, never concurrently.
type Translator interface {
	// Translate changes an IPv4 packet from an instance as the NATs on its way do, in place and without changing its length.
	// to is the slot that it is for now; not ok: it goes no further.
	Translate(packet []byte, from int, now time.Time) (to int, ok bool)
}

// Options say what to shape.
type Options struct {
	// Shaper does work on a thread in the namespace in which the link ends, and ShaperEnd is the index of that end. Nothing
	// of that namespace's own may answer what arrives there.
	Shaper    func(work func() error) error
	ShaperEnd int
	// Router does work on a thread in the namespace of the link's other end, and RouterEnd is the index of that.
	Router    func(work func() error) error
	RouterEnd int
	// Translator takes packets of translated paths through the NATs; nil: there are none.
	Translator Translator
	// Withhold has packets that come before there is a state be lost, and not sent on as if nothing were asked of them.
	Withhold bool
	// Seed begins the random choices. With the same seed the same packets of a flow between two instances are lost.
	Seed uint64
	// Log says what a person should know; nil: nothing is said.
	Log *slog.Logger
}
