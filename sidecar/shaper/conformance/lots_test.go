package conformance

import (
	"math"
	"testing"
)

func TestIntervalHoldsWhatItSays(t *testing.T) {
	for _, c := range []struct {
		n int
		p float64
	}{{20, .5}, {1000, .5}, {1000, .001}, {20_000, .001}, {3000, .05}, {3000, .999}} {
		b := interval(c.n, c.p)
		inside, wider := 0.0, 0.0
		for k := max(b.least-1, 0); k <= min(b.most+1, c.n); k++ {
			wider += chance(c.n, k, c.p)
			if k >= b.least && k <= b.most {
				inside += chance(c.n, k, c.p)
			}
		}
		if inside < 1-2*doubt-1e-9 {
			t.Errorf("%d packets with %g: %v holds only %g", c.n, c.p, b, inside)
		}
		if mean := float64(c.n) * c.p; float64(b.least) > mean || float64(b.most) < mean {
			t.Errorf("%d packets with %g: %v doesn't hold the mean %g", c.n, c.p, b, mean)
		}
		if deviation := math.Sqrt(float64(c.n) * c.p * (1 - c.p)); float64(b.most-b.least) > 9*deviation+4 {
			t.Errorf("%d packets with %g: %v is wider than nine standard deviations %g", c.n, c.p, b, deviation)
		}
		if wider < inside {
			t.Errorf("%d packets with %g: chances don't add up", c.n, c.p)
		}
	}
}

func TestDrawnTellsRightFromWrong(t *testing.T) {
	for _, c := range []struct {
		got, n      int
		least, most float64
		ok          bool
	}{
		{0, 100, 0, 0, true}, {1, 100, 0, 0, false}, {100, 100, 1, 1, true}, {99, 100, 1, 1, false},
		{50, 1000, .05, .05, true}, {100, 1000, .05, .05, false}, {10, 1000, .05, .05, false},
		{90, 1000, .08, .1, true}, {45, 1000, .08, .1, false},
	} {
		if err := drawn("loss", c.got, c.n, c.least, c.most); (err == nil) != c.ok {
			t.Errorf("%d of %d at %g to %g: %v", c.got, c.n, c.least, c.most, err)
		}
	}
}
