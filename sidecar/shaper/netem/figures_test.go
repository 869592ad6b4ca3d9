package netem

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

func TestTablesHaveTheirMoments(t *testing.T) {
	for name, want := range map[string]struct{ mean, deviation, least, most float64 }{
		"uniform": {0, 1 / math.Sqrt(3), -1, 1},
		"normal":  {0, 1, -3.7, 3.7},
		"pareto":  {0, 1, -.578, 4},
		"":        {0, 1, -3.7, 3.7}, // normal
	} {
		sum, squares := 0.0, 0.0
		table := tableOf(name)
		for _, v := range table {
			x := float64(v) / tableScale
			sum, squares = sum+x, squares+x*x
		}
		mean := sum / tableSize
		deviation := math.Sqrt(squares/tableSize - mean*mean)
		// The tail of pareto ends at four.
		if math.Abs(mean-want.mean) > .05 || math.Abs(deviation-want.deviation) > .3*want.deviation {
			t.Errorf("%q has mean %.3f and deviation %.3f", name, mean, deviation)
		}
		least, most := float64(slices.Min(table[:]))/tableScale, float64(slices.Max(table[:]))/tableScale
		if math.Abs(least-want.least) > .2 || math.Abs(most-want.most) > .2 {
			t.Errorf("%q goes from %.3f to %.3f", name, least, most)
		}
	}
}

func TestLimitHoldsAllThatMayBeUnderWay(t *testing.T) {
	for _, c := range []struct {
		path  links.Path
		least uint32
	}{
		{links.Path{Latency: time.Second}, 1 << 20},
		{links.Path{Bandwidth: 100e6, Latency: 200 * time.Millisecond, Queue: 1000}, 62_500 + 1000}, // ACKs of 40 bytes
		{links.Path{Bandwidth: 1e6, Queue: 10}, 10},
		{links.Path{Bandwidth: 1e6, Latency: time.Millisecond, Jitter: 10 * time.Millisecond, Queue: 1}, 128},
		{links.Path{Bandwidth: math.MaxInt64, Latency: time.Hour}, generous},
	} {
		if got := limit(c.path); got < c.least || got > generous {
			t.Errorf("%+v: %d, should be at least %d", c.path, got, c.least)
		}
	}
}

func TestShare(t *testing.T) {
	for p, want := range map[float64]uint32{-1: 0, 0: 0, .5: 1 << 31, 1: math.MaxUint32, 2: math.MaxUint32} {
		if got := share(p); got != want {
			t.Errorf("%g is %d, should be %d", p, got, want)
		}
	}
}

// TestGilbert plays the kernel's chain.
func TestGilbert(t *testing.T) {
	for _, c := range []struct{ loss, correlation float64 }{{.1, .5}, {.01, .9}, {.5, .2}} {
		begin, end := gilbert(c.loss, c.correlation)
		if got := begin / (begin + end); math.Abs(got-c.loss) > 1e-9 {
			t.Errorf("%+v: %g are lost", c, got)
		}
		if got := 1 - begin - end; math.Abs(got-c.correlation) > 1e-9 {
			t.Errorf("%+v: the correlation is %g", c, got)
		}
	}
}

// TestCorrelated plays the kernel's correlated numbers, with other random ones than correlated does.
func TestCorrelated(t *testing.T) {
	for _, c := range []struct{ share, correlation float64 }{{.05, .25}, {.5, .5}, {.1, .9}, {.3, 0}} {
		threshold := correlated(c.share, c.correlation)
		state, last, hits := uint64(99), 0.5, 0
		const n = 400_000
		for range n {
			state = state*6364136223846793005 + 1442695040888963407
			last = (1-c.correlation)*float64(state>>11)/(1<<53) + c.correlation*last
			if last <= threshold {
				hits++
			}
		}
		if got := float64(hits) / n; math.Abs(got-c.share) > .1*c.share {
			t.Errorf("%+v: the threshold %.4f makes %.4f", c, threshold, got)
		}
	}
	if correlated(0, .5) != 0 || correlated(1, .5) != 1 {
		t.Error("never and always change")
	}
}

func TestBurst(t *testing.T) {
	for rate, want := range map[int64]int64{0: 3200, 1e6: 3200, 100e6: 50_000} {
		if got := burst(rate); got != want {
			t.Errorf("%d bit/s: %d bytes, should be %d", rate, got, want)
		}
	}
}
