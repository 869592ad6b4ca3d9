package prober

import (
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

// PacketRate is how many packets a second all probes of a proof send together at most: what a small machine shapes in
// user space without being late, and some to spare.
const PacketRate = 15_000

// What a proof spends on a pair.
const (
	seriesTime   = 1500 * time.Millisecond
	seriesRate   = 300 // packets a second of a series, where nothing speaks for fewer
	fewest       = 15  // packets of a series
	floodPackets = 150 // at least, where the rate allows it
	// damageSize is the size of probes on links that damage packets: most of them are hit behind the headers then.
	damageSize = 400
)

// seriesOptions plan the series by which a path is judged. So that its packets neither wait for each other nor for those
// of the other probes that share their bandwidth, it leaves the half of that free. spaced is for latency and jitter, and
// dense for what happens to a share of the packets; where one serves both they are the same.
func seriesOptions(p links.Path, sharing int) (spaced, dense SeriesOptions) {
	dense = SeriesOptions{Size: MinSize, Interval: time.Second / seriesRate, Patience: patience(p)}
	if p.Corrupt > 0 {
		dense.Size = damageSize
	}
	if p.Bandwidth > 0 {
		dense.Interval = max(dense.Interval, 2*time.Duration(max(sharing, 1))*serialization(p, dense.Size))
	}
	dense.Packets = max(fewest, int(seriesTime/dense.Interval))
	spaced = dense
	// Jitter never reorders: a packet that follows closely on one with more of it is as late as that one.
	if apart := min(2*p.Jitter, 100*time.Millisecond); apart > spaced.Interval {
		spaced.Interval = apart
		spaced.Packets = max(fewest, int(seriesTime/spaced.Interval))
	}
	return spaced, dense
}

// chancy says whether something happens to a share of the packets.
func chancy(p links.Path) bool {
	return p.Loss > 0 || p.Duplicate > 0 || p.Reorder > 0 || p.Corrupt > 0
}

// serialization is how long a packet takes through a path's bandwidth.
func serialization(p links.Path, size int) time.Duration {
	if p.Bandwidth <= 0 {
		return 0
	}
	return time.Duration(float64(8*size) / float64(p.Bandwidth) * float64(time.Second))
}

// patience is how long packets are waited for: what is asked, and for what may be wrong.
func patience(p links.Path) time.Duration {
	tail := 5 * p.Jitter
	if p.Distribution == "pareto" {
		tail = 15 * p.Jitter
	}
	return p.Latency + min(tail, 3*time.Second) + 2*serialization(p, damageSize) + 250*time.Millisecond
}

// throughputOptions plan the probe of a path's bandwidth, with packets of at most that size; impossible says why there
// can't be one.
func throughputOptions(p links.Path, most int) (o ThroughputOptions, impossible string) {
	switch rate := p.Bandwidth; {
	case rate >= 50e6:
		o.For = 150 * time.Millisecond
	case rate >= 5e6:
		o.For = 400 * time.Millisecond
	case rate >= 500e3:
		o.For = 800 * time.Millisecond
	default:
		o.For = seriesTime
	}
	o.For = min(max(o.For, 10*p.Jitter), seriesTime)
	if p.Loss > 0.5 {
		return o, "bandwidth not measured: too much is lost"
	}
	// What is lost doesn't count, so that much more has to be sent.
	o.Rate = int64(float64(p.Bandwidth) / (1 - p.Loss))
	o.Size = min(max(int(float64(o.Rate)*o.For.Seconds()/8/floodPackets), MinSize), most)
	o.Patience = patience(p)
	if o.packetRate() > PacketRate {
		return o, "bandwidth not measured: it is more than probes can send"
	}
	return o, ""
}
