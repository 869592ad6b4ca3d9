package prober

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/sidecar/links"
)

// leakless fails a test that leaves goroutines behind, once its rig is gone.
func leakless(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// families runs a test between two endpoints over IPv4 and over IPv6.
func families(t *testing.T, test func(t *testing.T, r *rig, from, to *Endpoint)) {
	r := newRig(t, 2)
	for name, address := range map[string]func(int) netip.Addr{"IPv4": r.address, "IPv6": r.address6} {
		t.Run(name, func(t *testing.T) {
			r.set(straight)
			test(t, r, r.endpoint(t, 0, address(0)), r.endpoint(t, 1, address(1)))
		})
	}
}

func TestASeriesOverAStraightWire(t *testing.T) {
	leakless(t)
	families(t, func(t *testing.T, r *rig, from, to *Endpoint) {
		s, err := Measure(t.Context(), from, to, SeriesOptions{Packets: 200, Interval: 200 * time.Microsecond, Patience: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if s.Sent != 200 || s.Received != 200 || s.Duplicates+s.Reordered+s.Corrupted+s.Overrun != 0 || len(s.Latencies) != 200 {
			t.Errorf("measured %+v", s)
		}
		if slices.Min(s.Latencies) <= 0 {
			t.Errorf("a packet came %v before it was sent", -slices.Min(s.Latencies))
		}
		t.Logf("latency p50 %v, p99 %v", s.Quantile(.5), s.Quantile(.99))
	})
}

// Every fault that the wire makes is counted as what it is.
func TestASeriesCountsWhatHappens(t *testing.T) {
	families(t, func(t *testing.T, r *rig, from, to *Endpoint) {
		const delay = 20 * time.Millisecond
		header := from.headers()
		n := 0
		r.set(func(from, to int, packet []byte) []fate {
			if len(packet) != 300 {
				return straight(from, to, packet)
			}
			n++
			late := fate{after: delay, packet: packet}
			switch n % 10 {
			case 0:
				return nil
			case 3:
				return []fate{late, late}
			case 5:
				damaged := slices.Clone(packet)
				damaged[header+(n*7)%(len(packet)-header)] ^= 1 << (n % 8)
				return []fate{{after: delay, packet: damaged}}
			case 7:
				return []fate{{packet: packet}} // overtakes those that are delayed
			}
			return []fate{late}
		})
		s, err := Measure(t.Context(), from, to, SeriesOptions{Packets: 100, Interval: 4 * time.Millisecond, Size: 300, Patience: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if s.Sent != 100 || s.Received != 90 || s.Duplicates != 10 || s.Corrupted != 10 || s.Overrun != 0 {
			t.Errorf("measured %+v", s)
		}
		if s.Lost() != 0.1 {
			t.Errorf("lost %v", s.Lost())
		}
		// Those that overtake leave the four or five before them behind, which come after one sent later.
		if s.Reordered < 30 || s.Reordered > 70 {
			t.Errorf("%d of 100 came after one sent later", s.Reordered)
		}
		if at := s.Quantile(.5); at < delay {
			t.Errorf("latency p50 %v, with a delay of %v", at, delay)
		}
	})
}

func TestLateComersOfAnEarlierSeriesDoNotCount(t *testing.T) {
	r := newRig(t, 2)
	from, to := r.endpoint(t, 0, r.address(0)), r.endpoint(t, 1, r.address(1))
	r.set(func(_, _ int, packet []byte) []fate { return []fate{{after: 50 * time.Millisecond, packet: packet}} })
	o := SeriesOptions{Packets: 10, Patience: time.Millisecond}
	s, err := Measure(t.Context(), from, to, o)
	if err != nil || s.Received != 0 {
		t.Fatalf("measured %+v, %v", s, err)
	}
	r.set(func(_, _ int, packet []byte) []fate { return nil })
	o.Patience = 200 * time.Millisecond
	s, err = Measure(t.Context(), from, to, o)
	if err != nil || s.Sent != 10 || s.Received != 0 {
		t.Errorf("measured %+v, %v", s, err)
	}
}

func TestProbesEndWithTheirContext(t *testing.T) {
	leakless(t)
	r := newRig(t, 2)
	from, to := r.endpoint(t, 0, r.address(0)), r.endpoint(t, 1, r.address(1))
	r.set(func(int, int, []byte) []fate { return nil })
	for name, probe := range map[string]func(context.Context) error{
		"series": func(ctx context.Context) error {
			_, err := Measure(ctx, from, to, SeriesOptions{Packets: 1000, Interval: time.Minute})
			return err
		},
		"patience": func(ctx context.Context) error {
			_, err := Measure(ctx, from, to, SeriesOptions{Packets: 1, Patience: time.Hour})
			return err
		},
		"throughput": func(ctx context.Context) error {
			_, err := Throughput(ctx, from, to, ThroughputOptions{Rate: 1e6, For: time.Hour})
			return err
		},
		"knock": func(ctx context.Context) error {
			_, err := Knock(ctx, from, to, time.Hour)
			return err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Millisecond, cancel)
		if err := probe(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s ends with %v", name, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	r := newRig(t, 2)
	from, to := r.endpoint(t, 0, r.address(0)), r.endpoint(t, 1, r.address(1))
	for _, o := range []SeriesOptions{{}, {Packets: 1, Size: MinSize - 1}, {Packets: 1, Size: MaxSize + 1}, {Packets: 1, Interval: -1}} {
		if _, err := Measure(t.Context(), from, to, o); err == nil {
			t.Errorf("%+v is measured", o)
		}
	}
	for _, o := range []ThroughputOptions{{}, {Rate: 1, Size: 1}, {Rate: 1, For: -1}} {
		if _, err := Throughput(t.Context(), from, to, o); err == nil {
			t.Errorf("%+v is measured", o)
		}
	}
	if _, err := Open(func(work func() error) error { return r.inside(0, work) }, r.address(1)); err == nil {
		t.Error("opened at an address of another instance")
	}
}

// limit lets packets through at a rate, counted over whole packets.
func limit(rate float64) wire {
	var mu sync.Mutex
	free := time.Now()
	return func(_, _ int, packet []byte) []fate {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		free = free.Add(time.Duration(float64(8*len(packet)) / rate * float64(time.Second)))
		return []fate{{after: free.Sub(now), packet: packet}}
	}
}

func TestThroughputIsThatOfTheWire(t *testing.T) {
	families(t, func(t *testing.T, r *rig, from, to *Endpoint) {
		for _, c := range []struct {
			wire, asked float64
			size        int
		}{{1e6, 1e6, 500}, {10e6, 10e6, 1500}, {3e6, 10e6, 1500}} {
			r.set(limit(c.wire))
			got, err := Throughput(t.Context(), from, to, ThroughputOptions{Rate: int64(c.asked), Size: c.size})
			if err != nil {
				t.Fatal(err)
			}
			if got.Received < 0.95*c.wire || got.Received > 1.05*c.wire {
				t.Errorf("asked for %g over a wire of %g: %+v", c.asked, c.wire, got)
			}
		}
		r.set(straight)
		got, err := Throughput(t.Context(), from, to, ThroughputOptions{Rate: 10e6})
		if err != nil || got.Received < 1.1*10e6 || got.Sent < 1.1*10e6 {
			t.Errorf("an unlimited wire: %+v, %v", got, err)
		}
		r.set(func(int, int, []byte) []fate { return nil })
		got, err = Throughput(t.Context(), from, to, ThroughputOptions{Rate: 10e6, For: 50 * time.Millisecond, Patience: 50 * time.Millisecond})
		if err != nil || got.Received != 0 || got.Packets != 0 {
			t.Errorf("a cut wire: %+v, %v", got, err)
		}
	})
}

// A machine that stands still for a tenth of a second and catches up in no time doesn't change the rate.
func TestAStandstillDoesNotChangeTheRate(t *testing.T) {
	var came []int64
	at := int64(0)
	for i := range 400 {
		at += int64(time.Millisecond)
		came = append(came, at)
		if i == 250 {
			for j := range came[200:] {
				came[200+j] = at
			}
		}
	}
	if got := rate(came, 400, time.Second, 1000); got.Received < 0.99e6 || got.Received > 1.01e6 || got.Packets != 299 {
		t.Errorf("%+v of 1,000,000 bits a second", got)
	}
	for n := range 4 {
		if got := rate(make([]int64, n), 10, time.Second, 1000); got.Packets != max(n-1, 0) && n < 4 {
			t.Errorf("%d packets: %+v", n, got)
		}
	}
}

func TestKnocking(t *testing.T) {
	families(t, func(t *testing.T, r *rig, from, to *Endpoint) {
		const patience = 300 * time.Millisecond
		for _, c := range []struct {
			name     string
			wire     wire
			udp, tcp links.Policy
		}{
			{"straight", straight, links.Accept, links.Accept},
			{"cut", func(int, int, []byte) []fate { return nil }, links.Drop, links.Drop},
			{"cut one way", func(from, to int, packet []byte) []fate {
				if from == 1 {
					return nil
				}
				return straight(from, to, packet)
			}, links.Accept, links.Drop},
		} {
			r.set(c.wire)
			got, err := Knock(t.Context(), from, to, patience)
			if err != nil || got.UDP != c.udp || got.TCP != c.tcp {
				t.Errorf("%s: %+v, %v", c.name, got, err)
			}
		}
	})
}

// Refused by the kernel itself: nobody has the ports any more.
func TestKnockingIsRefused(t *testing.T) {
	families(t, func(t *testing.T, r *rig, from, to *Endpoint) {
		gone := &Endpoint{inside: to.inside, address: to.address, packets: to.packets, stream: to.stream}
		elsewhere := r.endpoint(t, 1, to.address)
		if err := elsewhere.stream.Close(); err != nil {
			t.Fatal(err)
		}
		gone.stream = elsewhere.stream
		policy, err := connect(t.Context(), from, gone)
		if err != nil || policy != links.Reject {
			t.Errorf("TCP to a port that nobody has: %v, %v", policy, err)
		}
	})
}
