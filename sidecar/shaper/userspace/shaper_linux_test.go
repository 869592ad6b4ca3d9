package userspace

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/prober"
)

func open(t testing.TB, r *rig, slot int, six bool) *prober.Endpoint {
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
	s, err := prober.Measure(ctx, from, to, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLatencyOfBothFamilies(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		for _, asked := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond} {
			latency := pipelines.Duration(asked)
			r.ask(t, everywhere(pipelines.Shape{Latency: &latency}))
			for _, six := range []bool{false, true} {
				from, to := open(t, r, 0, six), open(t, r, 1, six)
				s := measure(t, from, to, prober.SeriesOptions{Packets: 200, Interval: time.Millisecond, Size: 200})
				t.Logf("asked %v, IPv6 %v: %d of %d, p0 %v p50 %v p99 %v", asked, six, s.Received, s.Sent, s.Quantile(0), s.Quantile(.5), s.Quantile(.99))
				if s.Received != s.Sent || s.Quantile(0) < asked || s.Duplicates+s.Reordered+s.Corrupted > 0 {
					t.Errorf("asked for %v: %+v", asked, s)
				}
			}
		}
		h := r.shaper.Health()
		t.Logf("%+v", h)
		if h.Packets < 1600 || h.Lost > 0 {
			t.Errorf("%+v", h)
		}
	})
}

var _ = netip.Addr{}
