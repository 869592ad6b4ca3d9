package prober

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// ErrClock says that somebody set the clock while a series was measured, so that its latencies are worth nothing.
var ErrClock = errors.New("the clock was set while a series was measured")

// maxStep is by how much the two clocks may drift apart during a series: more than the clock is ever slewed.
const maxStep = 2 * time.Millisecond

// Measure sends a series from one endpoint to the other and waits for it.
func Measure(ctx context.Context, from, to *Endpoint, o SeriesOptions) (Series, error) {
	s, err := measure(ctx, from, to, o)
	if err != nil {
		return s, fmt.Errorf("probing %s → %s: %w", from.address, to.address, err)
	}
	return s, nil
}

func measure(ctx context.Context, from, to *Endpoint, o SeriesOptions) (Series, error) {
	if err := o.complete(); err != nil {
		return Series{}, err
	}
	to.receiving.Lock()
	defer to.receiving.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	record := newRecord(rand.Uint64(), o.Packets)
	over := make(chan time.Time)
	received := make(chan error, 1)
	go func() {
		received <- to.receive(ctx, over, record.take)
	}()
	sendErr := sendSeries(ctx, from, to.port(), o, record)
	if sendErr == nil {
		sendErr = pause(ctx, o.Patience)
	}
	close(over)
	err := errors.Join(sendErr, <-received)
	if step := time.Since(began) - time.Duration(time.Now().UnixNano()-began.UnixNano()); err == nil && step.Abs() > maxStep {
		err = fmt.Errorf("%w, by %v", ErrClock, -step)
	}
	return record.series(), err
}

// sendSeries sends the packets of a series at their times.
func sendSeries(ctx context.Context, from *Endpoint, to netip.AddrPort, o SeriesOptions, record *record) error {
	payload := make([]byte, o.Size-from.headers())
	began := time.Now()
	for i := range o.Packets {
		if wait := time.Duration(i)*o.Interval - time.Since(began); wait > 0 {
			if err := pause(ctx, wait); err != nil {
				return err
			}
		}
		fill(payload, record.key, uint32(i))
		at, err := from.send(payload, to)
		if err != nil {
			return fmt.Errorf("sending packet %d of %d: %w", i+1, o.Packets, err)
		}
		record.sent[i] = at
	}
	return nil
}

// pause sleeps, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// record is what is known of a series while it goes on. The sender writes sent, the receiver all else; they are brought
// together when both have ended.
type record struct {
	key                   uint64
	sent, came            []int64
	last                  int64 // the largest number that came
	ahead                 int64 // by how much the receiver's clock is ahead of the sender's, in nanoseconds
	duplicates, reordered int
	corrupted             int
	overrun               overrun
}

func newRecord(key uint64, packets int) *record {
	return &record{key: key, sent: make([]int64, packets), came: make([]int64, packets), last: -1}
}

func (r *record) take(a arrival) bool {
	r.overrun.note(a.overrun)
	number, intact, ok := read(a.payload, r.key)
	if !ok || int(number) >= len(r.came) {
		return true
	}
	if !intact {
		r.corrupted++
	}
	switch {
	case r.came[number] != 0:
		r.duplicates++
		return true
	case int64(number) < r.last:
		r.reordered++
	}
	r.came[number] = a.at
	r.last = max(r.last, int64(number))
	return true
}

func (r *record) series() Series {
	s := Series{Duplicates: r.duplicates, Reordered: r.reordered, Corrupted: r.corrupted, Overrun: r.overrun.count}
	for i, sent := range r.sent {
		if sent == 0 {
			continue
		}
		s.Sent++
		if came := r.came[i]; came != 0 {
			s.Received++
			s.Latencies = append(s.Latencies, time.Duration(came-sent-r.ahead))
		}
	}
	return s
}

// overrun turns a socket's counter into what was lost since the first packet.
type overrun struct {
	base  uint32
	based bool
	count int
}

func (o *overrun) note(counter uint32) {
	if !o.based {
		o.base, o.based = counter, true
	}
	o.count = int(counter - o.base)
}
