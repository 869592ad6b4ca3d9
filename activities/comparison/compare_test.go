package comparison

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/pipelines"
)

// drawn is a run whose instances measure about a second, by a share of noise between runs and one between instances.
func drawn(random *rand.Rand, name string, at float64) Run {
	const instances, between, within = 20, 0.02, 0.05
	centre := at * (1 + between*random.NormFloat64())
	r := Run{ID: "r", Samples: map[string][]pipelines.Summary{}}
	sum := 0.0
	for range instances {
		v := centre * (1 + within*random.NormFloat64())
		sum += v
		r.Samples[name] = append(r.Samples[name], pipelines.Summary{Count: 1, P50: v, Mean: v})
	}
	r.Metrics = map[string]pipelines.Summary{name: {Count: instances, P50: sum / instances, Mean: sum / instances}}
	return r
}

// judgements counts what a thousand comparisons with 20 earlier runs say.
func judgements(name string, at float64, pairs int) map[Judgement]int {
	random := rand.New(rand.NewPCG(7, 11))
	count := map[Judgement]int{}
	for range pairs {
		var earlier []Run
		for range 20 {
			earlier = append(earlier, drawn(random, name, 1))
		}
		for _, f := range Compare(earlier, drawn(random, name, at), Options{Alpha: 0.01}) {
			count[f.Judgement]++
		}
	}
	return count
}

func TestNoFalseAlarms(t *testing.T) {
	if got := judgements("seconds", 1, 1000); got[Regressed] > 10 {
		t.Errorf("of 1,000 comparisons without a difference: %v", got)
	}
}

func TestFindsTenPerCent(t *testing.T) {
	if got := judgements("seconds", 1.10, 300); got[Regressed] < 255 || got[Better] > 0 {
		t.Errorf("of 300 comparisons with 10 %% more: %v", got)
	}
	if got := judgements("upload_bits", 1.10, 100); got[Better] < 80 || got[Regressed] > 0 {
		t.Errorf("of 100 comparisons with 10 %% more of what is better: %v", got)
	}
}

func TestCompareTwoRuns(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	a, b := drawn(random, "seconds", 1), drawn(random, "seconds", 1.5)
	f := Compare([]Run{a}, b, Options{Alpha: 0.05, Tolerance: map[string]pipelines.Share{"seconds.p50": 0.1}})[0]
	if f.Judgement != Regressed || f.Values != [2]int{20, 20} || f.Effect < 0.9 || f.Low <= 0 || f.Shift < 0.3 {
		t.Errorf("half as much again: %+v", f)
	}
	f = Compare([]Run{a}, b, Options{Alpha: 0.05, Tolerance: map[string]pipelines.Share{"seconds.p50": 0.8}})[0]
	if f.Judgement != Different {
		t.Errorf("within a tolerance of 80 %%: %+v", f)
	}
}

func TestFigures(t *testing.T) {
	run := Run{Metrics: map[string]pipelines.Summary{"a_seconds": {}, "b": {}, "eu.b": {}, "mine": {}}}
	earlier := []Run{{Metrics: map[string]pipelines.Summary{"a_seconds": {}, "b": {}, "eu.b": {}}}}
	for _, c := range []struct {
		tolerance map[string]pipelines.Share
		want      string
	}{
		{nil, "a_seconds.p50 5%, b.p50 5%"},
		{map[string]pipelines.Share{"*.p95": 0.1, "b.p95": 0.2}, "a_seconds.p95 10%, b.p95 20%"},
		{map[string]pipelines.Share{"eu.b.max": 0.1}, "eu.b.max 10%"},
		{map[string]pipelines.Share{"*_seconds.*": 0.1}, "a_seconds.mean 10%, a_seconds.p50 10%, a_seconds.p95 10%, a_seconds.p99 10%"},
	} {
		var found []string
		for _, f := range figures(earlier, run, c.tolerance) {
			found = append(found, fmt.Sprintf("%v %v", f, f.tolerance))
		}
		if got := strings.Join(found, ", "); got != c.want {
			t.Errorf("%v: got %s, want %s", c.tolerance, got, c.want)
		}
	}
}

func TestUntested(t *testing.T) {
	r := Run{Metrics: map[string]pipelines.Summary{"x": {P50: 1}}}
	if f := Compare([]Run{r}, r, Options{Alpha: 0.05})[0]; f.Judgement != Untested {
		t.Errorf("a single value on each side: %+v", f)
	}
}
