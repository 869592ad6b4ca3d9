package comparison

import (
	"math/rand/v2"
	"testing"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// TestKind draws pairs of runs: those of one kind, and no others, can be compared.
func TestKind(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	draw := func() runs.Record {
		pick := func(of ...string) string { return of[random.IntN(len(of))] }
		return runs.Record{
			ID: "r", Status: stage.StatusEnded, Verdict: stage.Passed, Metrics: map[string]pipelines.Summary{"x": {}},
			Pipeline: pick("a", "a on b"), Ground: pick("local", "kubernetes"),
			Parameters: map[string]any{"n": random.IntN(2), pick("m", "m m"): pick("1", `1" "n"="1`)},
			Cell:       map[string]any{"rtt": pick("1ms", "2ms")},
		}
	}
	same := 0
	for range 20_000 {
		a, b := draw(), draw()
		comparable := Hindrance(a, b) == ""
		if comparable != (Kind(a) == Kind(b)) {
			t.Fatalf("comparable: %v, kinds %q and %q", comparable, Kind(a), Kind(b))
		}
		if comparable {
			same++
		}
	}
	if same == 0 {
		t.Error("no pair was comparable")
	}
}
