package prober

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ThroughputOptions say what is sent.
type ThroughputOptions struct {
	// Rate is what the link should carry, in bits per second of whole IP packets. It is sent a quarter more.
	Rate int64
	// Size is that of the IP packets in bytes, between MinSize and MaxSize; 0 is MaxSize.
	Size int
	// For is how long is sent; 0 is half a second.
	For time.Duration
	// Patience is how long packets may be under way, besides the time that they wait for the link's bandwidth; 0 is half a
	// second.
	Patience time.Duration
}

// excess is by how much more is sent than the link should carry.
const excess = 1.25

func (o *ThroughputOptions) complete() error {
	if o.Size == 0 {
		o.Size = MaxSize
	}
	if o.For == 0 {
		o.For = 500 * time.Millisecond
	}
	if o.Patience == 0 {
		o.Patience = 500 * time.Millisecond
	}
	if o.Rate <= 0 || o.For < 0 || o.Patience < 0 {
		return errors.New("a rate has to be above 0, and times can't be negative")
	}
	return checkSize(o.Size)
}

// packetRate is how many packets a second it sends.
func (o ThroughputOptions) packetRate() float64 {
	return float64(o.Rate) * excess / float64(8*o.Size)
}

// Throughput sends more than the link should carry from one endpoint to the other, and measures how much comes. It returns
// when what it sent has gone through, unless the link is much slower than it should be.
func Throughput(ctx context.Context, from, to *Endpoint, o ThroughputOptions) (Rate, error) {
	r, err := throughput(ctx, from, to, o)
	if err != nil {
		return r, fmt.Errorf("measuring the throughput of %s → %s: %w", from.address, to.address, err)
	}
	return r, nil
}

func throughput(ctx context.Context, from, to *Endpoint, o ThroughputOptions) (Rate, error) {
	if err := o.complete(); err != nil {
		return Rate{}, err
	}
	to.receiving.Lock()
	defer to.receiving.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	total := max(2, int(o.packetRate()*o.For.Seconds()))
	poured := torrent{key: rand.Uint64(), total: total}
	over := make(chan time.Time)
	received := make(chan error, 1)
	go func() {
		received <- to.receive(ctx, over, poured.take)
	}()
	took, sendErr := flood(ctx, from, to.port(), o, poured.key, total)
	if sendErr == nil {
		timer := time.AfterFunc(o.Patience+o.drain(), func() { close(over) })
		err := <-received
		if timer.Stop() {
			close(over)
		}
		return rate(poured.came, total, took, 8*o.Size), err
	}
	cancel()
	return Rate{}, errors.Join(sendErr, <-received)
}

// drain is how long what was sent too much waits for the bandwidth.
func (o ThroughputOptions) drain() time.Duration {
	return time.Duration(float64(o.For) * (excess - 1) * 1.2)
}

// torrent is what comes of a flood.
type torrent struct {
	key   uint64
	total int
	came  []int64
}

func (t *torrent) take(a arrival) bool {
	if number, _, ok := read(a.payload, t.key); ok && int(number) < t.total {
		t.came = append(t.came, a.at)
	}
	return len(t.came) < t.total
}

// flood sends packets at the rate asked for, on a thread of its own that wakes up in time, and says how long it took.
func flood(ctx context.Context, from *Endpoint, to netip.AddrPort, o ThroughputOptions, key uint64, total int) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // else it wakes up 50 µs late
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }()
	payload := make([]byte, o.Size-from.headers())
	interval := float64(time.Second) / o.packetRate()
	began := time.Now()
	for i := range total {
		if wait := time.Duration(float64(i)*interval) - time.Since(began); wait > 0 {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			sleep := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&sleep, nil) // woken early it sends a packet early
		}
		fill(payload, key, uint32(i))
		if _, err := from.send(payload, to); err != nil {
			return 0, fmt.Errorf("sending packet %d of %d: %w", i+1, total, err)
		}
	}
	return time.Since(began), nil
}

// rate computes what came after the first quarter, in which a link may let through more at once. It is the median over
// several stretches, so that a machine that stood still for a moment, and then caught up, doesn't change it.
func rate(came []int64, sent int, took time.Duration, bits int) Rate {
	r := Rate{Sent: float64(sent-1) * float64(bits) / math.Max(took.Seconds(), 1e-9)}
	middle := slices.Sorted(slices.Values(came[len(came)/4:]))
	r.Packets = len(middle) - 1
	if r.Packets < 1 {
		r.Packets = 0
		return r
	}
	stretches := min(max(r.Packets/stretch, 1), 9)
	rates := make([]float64, stretches)
	for i := range rates {
		first, last := i*r.Packets/stretches, (i+1)*r.Packets/stretches
		took := math.Max(float64(middle[last]-middle[first])/1e9, 1e-9)
		rates[i] = float64((last-first)*bits) / took
	}
	slices.Sort(rates)
	r.Received = rates[stretches/2]
	return r
}

// stretch is how many packets a part of a transfer has at least whose rate is computed by itself.
const stretch = 20
