package userspace

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

func TestBandwidth(t *testing.T) {
	for _, rate := range []int64{1e6, 1e7, 1e8, 1e10} {
		for _, size := range []int{60, 1500} {
			d := newDesk(t, fake{all: links.Path{Bandwidth: rate, Bucket: "b", Queue: 2000}})
			d.series(1000, size, 0)
			takes := time.Duration(int64(size) * 8e9 / rate)
			for i, o := range d.out {
				if want := time.Duration(i) * takes; o.at < want || o.at > want+time.Duration(i) {
					t.Fatalf("%d bit/s, %d bytes: packet %d left at %v, want %v", rate, size, i, o.at, want)
				}
			}
			if len(d.out) != 1000 {
				t.Errorf("%d of 1000 left", len(d.out))
			}
		}
	}
}

// A thread that wakes up late doesn't cost bandwidth, and drops nothing.
func TestBandwidthOfALateThread(t *testing.T) {
	d := newDesk(t, fake{all: links.Path{Bandwidth: 12e6, Queue: 10, Bucket: "b"}}) // 1 ms a packet
	for i := range 100 {
		d.engine.arrive(frame(uint32(i), 0, 1, 1500), int64(i)*int64(time.Millisecond))
	}
	d.take(int64(time.Second))
	d.take(int64(time.Second))
	if len(d.out) != 100 || d.engine.late.Load() != 100 || !slices.IsSorted(d.numbers()) {
		t.Errorf("%d left, %d late", len(d.out), d.engine.late.Load())
	}
}

func TestTheQueueIsAsLongAsAsked(t *testing.T) {
	for queue, want := range map[int]int{1: 2, 10: 11, 0: links.DefaultQueue + 1} {
		d := newDesk(t, fake{all: links.Path{Bandwidth: 1e6, Queue: queue, Bucket: "b"}})
		d.series(2000, 100, 0)
		if len(d.out) != want || d.engine.lost.Load() != 0 {
			t.Errorf("queue of %d: %d left, want %d; %d lost", queue, len(d.out), want, d.engine.lost.Load())
		}
	}
}

// Two paths with the same bucket share it; the same bucket of another instance is another one.
func TestBucketsAreShared(t *testing.T) {
	d := newDesk(t, fake{all: links.Path{Bandwidth: 8e6, Bucket: "row"}}) // 0.1 ms for 100 bytes
	for i := range 10 {
		d.engine.arrive(frame(uint32(i), 0, 1+i%2, 100), 0)
		d.engine.arrive(frame(uint32(100+i), 5, 1, 100), 0)
	}
	d.run(math.MaxInt64)
	for _, o := range d.out {
		if want := time.Duration(o.number%100) * 100 * time.Microsecond; o.at != want {
			t.Errorf("packet %d left at %v, want %v", o.number, o.at, want)
		}
	}
}

func TestAnotherBandwidthHoldsForWhatWaits(t *testing.T) {
	const ms = int64(time.Millisecond)
	begin := func() *desk {
		d := newDesk(t, fake{all: links.Path{Bandwidth: 1e5, Bucket: "b"}}) // 10 ms for 125 bytes
		for i := range 11 {
			d.engine.arrive(frame(uint32(i), 0, 1, 125), 0)
		}
		d.run(25 * time.Millisecond) // 0, 10 and 20 ms: three are out, the fourth is due at 30
		return d
	}
	last := func(d *desk) time.Duration { d.run(math.MaxInt64); return d.out[len(d.out)-1].at }
	d := begin()
	d.engine.replace(fake{all: links.Path{Bandwidth: 1e6, Bucket: "b"}}, subnet6, 25*ms)
	if got, want := last(d), 25*time.Millisecond+500*time.Microsecond+7*time.Millisecond; len(d.out) != 11 || got != want {
		t.Errorf("ten times as fast: %d left, the last at %v, want %v", len(d.out), got, want)
	}
	d = begin()
	d.engine.replace(fake{}, subnet6, 25*ms)
	if got := last(d); len(d.out) != 11 || got != 25*time.Millisecond || !slices.IsSorted(d.numbers()) {
		t.Errorf("no limit: %d left, the last at %v", len(d.out), got)
	}
	d = begin()
	d.engine.replace(fake{all: links.Path{Bandwidth: 1e5, Bucket: "b"}}, subnet6, 25*ms)
	if got := last(d); len(d.out) != 11 || got != 100*time.Millisecond {
		t.Errorf("the same: %d left, the last at %v", len(d.out), got)
	}
	d = begin()
	d.engine.replace(fake{all: links.Path{Bandwidth: 1e6, Bucket: "other"}}, subnet6, 25*ms)
	if got := last(d); len(d.out) != 11 || got != 32*time.Millisecond {
		t.Errorf("another row: %d left, the last at %v", len(d.out), got)
	}
}
