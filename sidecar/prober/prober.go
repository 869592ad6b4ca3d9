// Package prober measures links of a data network from inside instances, and proves that they are as they were asked to
// be.
//
// An Endpoint is a pair of sockets in an instance's network namespace that can be used from anywhere. Between two of them
// Measure sends a series of numbered packets (latency, loss, duplicates, order, damage), Throughput finds the rate that
// gets through, and Knock finds out whether packets are let through, refused or lost. All are one way: sender and
// receiver read the same clock, and the kernel notes when a packet came in, so a prober that is late measures right.
//
// Prove does all that for sampled pairs of instances and holds it against what is asked. Where instances are on several
// nodes, all of these prove together (Together): a pair's sender probes it, the receiver's node tells what has come, and
// the clocks of both are compared between the nodes' routers, where nothing is shaped.
package prober

import (
	"errors"
	"slices"
	"time"
)

// SeriesOptions say what is sent.
type SeriesOptions struct {
	// Packets is how many; at least 1.
	Packets int
	// Interval is the time from one packet to the next. A sender that is late catches up, so that the rate holds.
	Interval time.Duration
	// Size is that of the IP packets in bytes, between MinSize and MaxSize; 0 is MinSize.
	Size int
	// Patience is how long packets are waited for after the last one was sent; 0 is one second.
	Patience time.Duration
}

func (o *SeriesOptions) complete() error {
	if o.Size == 0 {
		o.Size = MinSize
	}
	if o.Patience == 0 {
		o.Patience = time.Second
	}
	switch {
	case o.Packets < 1:
		return errors.New("a series has at least one packet")
	case o.Interval < 0 || o.Patience < 0:
		return errors.New("the interval and the patience of a series can't be negative")
	}
	return checkSize(o.Size)
}

func checkSize(size int) error {
	if size < MinSize || size > MaxSize {
		return errors.New("a probe's size is between MinSize and MaxSize")
	}
	return nil
}

// Series is what came of one.
type Series struct {
	// Sent counts packets, and Received those of them that came at least once, damaged or not.
	Sent, Received int
	// Duplicates counts packets that came again, Reordered those that came after one sent later, and Corrupted those that
	// came damaged. Probes carry no checksum over IPv4, so damaged ones are seen, but for the few that were hit in their
	// headers: those are lost.
	Duplicates, Reordered, Corrupted int
	// Overrun counts packets that reached the receiver and were lost there, because the prober was too slow.
	Overrun int
	// Latencies are one way, one per packet received, in the order of sending.
	Latencies []time.Duration
}

// Lost is the share of packets that didn't come.
func (s Series) Lost() float64 {
	if s.Sent == 0 {
		return 0
	}
	return float64(s.Sent-s.Received) / float64(s.Sent)
}

// Quantile is the latency that a share q of the packets received didn't exceed; 0 when none was.
func (s Series) Quantile(q float64) time.Duration {
	if len(s.Latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.Latencies))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Rate is what came of a throughput probe, in bits per second of whole IP packets.
type Rate struct {
	// Sent is the rate at which the prober managed to send: what got through can't be more.
	Sent float64
	// Received is the rate at which packets came: the median over stretches of the transfer, without its first quarter.
	Received float64
	// Packets counts those that Received was measured over.
	Packets int
}
