package userspace

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/prober"
)

func endpoint(t testing.TB, r *rig, slot int, six bool) *prober.Endpoint {
	t.Helper()
	at := r.seats.Instances[slot].Data
	if six {
		at = r.seats.Instances[slot].Data6
	}
	e, err := prober.Open(r.inside(slot), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func measure(t testing.TB, from, to *prober.Endpoint, o prober.SeriesOptions) prober.Series {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o.Patience = 150 * time.Millisecond
	s, err := prober.Measure(ctx, from, to, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLatencyOfBothFamiliesEachWay(t *testing.T) {
	inRig(t, 40, func(t *testing.T, r *rig) {
		ends := map[bool][2]*prober.Endpoint{}
		for _, six := range []bool{false, true} {
			ends[six] = [2]*prober.Endpoint{endpoint(t, r, 0, six), endpoint(t, r, 39, six)}
		}
		for _, asked := range []time.Duration{50 * time.Millisecond, 0, 10 * time.Millisecond} {
			latency := pipelines.Duration(asked)
			r.ask(t, everywhere(pipelines.Shape{Latency: &latency}))
			for _, six := range []bool{false, true} {
				for way := range 2 {
					s := measure(t, ends[six][way], ends[six][1-way], prober.SeriesOptions{Packets: 100, Interval: time.Millisecond, Size: 200})
					t.Logf("asked %v, IPv6 %v: p0 %v p50 %v p99 %v", asked, six, s.Quantile(0), s.Quantile(.5), s.Quantile(.99))
					if s.Received != s.Sent || s.Quantile(0) < asked || s.Duplicates+s.Reordered+s.Corrupted > 0 {
						s.Latencies = nil
						t.Errorf("asked for %v: %+v", asked, s)
					}
				}
			}
		}
		h := r.shaper.Health()
		t.Logf("%+v", h)
		if h.Packets < 1200 || h.Lost > 0 || h.CPU <= 0 {
			t.Errorf("%+v", h)
		}
		if err := r.shaper.Close(); err != nil {
			t.Fatal(err)
		}
		if last := r.shaper.Health(); last.Packets < h.Packets || last.Lost < h.Lost || last.CPU < h.CPU {
			t.Errorf("after the end: %+v", last)
		}
	})
}

// What the kernel reads of a packet is as it was sent, but for the bit that was to be flipped.
func TestWhatHappensToPackets(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		const n = 4000
		from, to := endpoint(t, r, 0, false), endpoint(t, r, 1, false)
		share := pipelines.Share(0.1)
		latency := pipelines.Duration(5 * time.Millisecond)
		low, high := interval(n, 0.1)
		for what, row := range map[string]struct {
			asked pipelines.Shape
			count func(s prober.Series) int
		}{
			"loss":        {pipelines.Shape{Loss: &share}, func(s prober.Series) int { return s.Sent - s.Received }},
			"duplication": {pipelines.Shape{Duplicate: &share}, func(s prober.Series) int { return s.Duplicates }},
			"reordering":  {pipelines.Shape{Reorder: &share, Latency: &latency}, func(s prober.Series) int { return early(s, 5*time.Millisecond) }},
			"corruption":  {pipelines.Shape{Corrupt: &share}, func(s prober.Series) int { return s.Corrupted + s.Sent - s.Received }},
		} {
			r.ask(t, everywhere(row.asked))
			s := measure(t, from, to, prober.SeriesOptions{Packets: n, Interval: 100 * time.Microsecond, Size: 500})
			got := row.count(s)
			t.Logf("%s: %d of %d", what, got, n)
			if float64(got) > high || float64(got) < low {
				t.Errorf("%s: %d of %d, want %.0f to %.0f", what, got, n, low, high)
			}
			if what != "reordering" && s.Reordered > 0 {
				t.Errorf("%s: %d packets were reordered", what, s.Reordered)
			}
		}
		if h := r.shaper.Health(); h.Lost > 0 {
			t.Errorf("%+v", h)
		}
	})
}

// early is how many packets took less.
func early(s prober.Series, than time.Duration) (n int) {
	for _, took := range s.Latencies {
		if took < than {
			n++
		}
	}
	return n
}

func TestBandwidthOfTCP(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		latency := pipelines.Duration(20 * time.Millisecond)
		_, tcp := r.echo(t, 1)
		for _, asked := range []float64{20e6} {
			rate := pipelines.Bandwidth(asked)
			r.ask(t, everywhere(pipelines.Shape{Latency: &latency, Bandwidth: &rate}))
			got := upload(t, r.dial(t, 0, tcp), 1500*time.Millisecond)
			t.Logf("%.0f bit/s asked, %.0f achieved", asked, got)
			if got > asked || got < asked*0.7 { // it begins slowly, which counts too
				t.Errorf("%.0f bit/s asked, %.0f achieved", asked, got)
			}
		}
	})
}

// The state changes all the time while packets are under way: none goes missing, none comes twice.
func TestChangesLoseNothing(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		from, to := endpoint(t, r, 0, false), endpoint(t, r, 1, false)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		changes := 0
		wg.Go(func() {
			for ; ctx.Err() == nil; changes++ {
				latency, rate := pipelines.Duration(changes%20)*pipelines.Duration(time.Millisecond), pipelines.Bandwidth(1e7*(1+changes%5))
				r.ask(t, everywhere(pipelines.Shape{Latency: &latency, Bandwidth: &rate}))
			}
		})
		s := measure(t, from, to, prober.SeriesOptions{Packets: 3000, Interval: 300 * time.Microsecond, Size: 200})
		cancel()
		wg.Wait()
		t.Logf("%d changes", changes)
		if s.Received != s.Sent || s.Duplicates+s.Corrupted > 0 || changes < 10 {
			s.Latencies = nil
			t.Errorf("%d changes: %+v", changes, s)
		}
	})
}

func TestTheEnd(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		state, err := links.New(r.seats, links.Layers{})
		if err != nil {
			t.Fatal(err)
		}
		before, processors := goleak.IgnoreCurrent(), runtime.GOMAXPROCS(0)
		second, err := New(Options{
			Shaper: r.fabric.InShaper, ShaperEnd: r.fabric.ShaperEndIndex(), Router: r.fabric.InRouter, RouterEnd: r.fabric.ShaperIndex(),
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time there is nothing to do
			if err := second.Apply(t.Context(), state); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
		}
		goleak.VerifyNone(t, before)
		if got := runtime.GOMAXPROCS(0); got != processors {
			t.Errorf("%d processors are left of %d", got, processors)
		}
		if err := second.Apply(t.Context(), state); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a state for a shaper that has ended: %v", err)
		}
		if h := second.Health(); h.Packets != 0 || h.Lost != 0 {
			t.Errorf("%+v", h)
		}
	})
}

func TestWhereThereIsNoLink(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		before := goleak.IgnoreCurrent()
		at := Options{Shaper: r.fabric.InShaper, ShaperEnd: r.fabric.ShaperEndIndex(), Router: r.fabric.InRouter, RouterEnd: r.fabric.ShaperIndex()}
		noEnd, noRouter, closed := at, at, at
		noEnd.ShaperEnd, noRouter.RouterEnd = 77, 77
		closed.Shaper = func(func() error) error { return net.ErrClosed }
		for _, o := range []Options{noEnd, noRouter, closed} {
			if s, err := New(o); err == nil {
				t.Errorf("a shaper where there is no link: %v", s)
			} else {
				t.Log(err)
			}
		}
		goleak.VerifyNone(t, before)
	})
}

// A shaper that can't keep up says so: here nobody reads the ring.
func TestPacketsThatTheRingHasNoRoomForAreCounted(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		var idle *link
		if err := r.fabric.InShaper(func() (err error) { idle, err = openLink(r.fabric.ShaperEndIndex()); return err }); err != nil {
			t.Fatal(err)
		}
		defer idle.close()
		udp, _ := r.echo(t, 1)
		c := r.dial(t, 0, udp)
		const n = ringFrames + 100
		for range n {
			if _, err := c.Write([]byte("groundplan")); err != nil {
				t.Fatal(err)
			}
		}
		dropped, err := idle.overflown()
		if err != nil || dropped < 100 {
			t.Errorf("%d of %d were dropped, %v", dropped, n, err)
		}
		if again, err := idle.overflown(); err != nil || again > dropped/10 {
			t.Errorf("they are counted again: %d, %v", again, err)
		}
		read := 0
		for {
			frame, wall := idle.arrived()
			if frame == nil {
				break
			}
			if age := time.Since(time.Unix(0, wall)); age < 0 || age > time.Minute {
				t.Fatalf("a packet is %v old", age)
			}
			idle.done()
			read++
		}
		if read < ringFrames-1 {
			t.Errorf("%d were in the ring", read)
		}
	})
}

func TestPacketsThatTheKernelRefusesAreCounted(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		s := r.shaper
		p := &packet{frame: make([]byte, 5)} // not even an Ethernet header
		if refused, err := s.link.send([]*packet{p, p}); refused != 2 || err == nil {
			t.Errorf("%d refused: %v", refused, err)
		}
	})
}
