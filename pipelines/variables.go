package pipelines

import "math"

// Variables is what `when` and `assert` see of a run, beside what Resolved already holds.
type Variables struct {
	// Stages is stage → outcome: "passed", "failed", "invalid" or "skipped".
	Stages map[string]string `json:"stages,omitempty"`
	// Metrics is name → summary over all instances, and "<group>.<name>" → summary over one group;
	// either with ".<phase>.<event>" behind it, phase being one of Phases → summary over what was measured then.
	Metrics map[string]Summary `json:"metrics,omitempty"`
	// Outcomes is group → how its instances ended, over all run stages.
	Outcomes map[string]Outcomes `json:"outcomes,omitempty"`
}

// Phases of a run stage, seen from one of its events: from the opening of the gate until the event begins, while it is in
// force, and from when it is over until the stage is.
const (
	PhaseBefore = "before"
	PhaseDuring = "during"
	PhaseAfter  = "after"
)

// Phases lists them in order.
var Phases = []string{PhaseBefore, PhaseDuring, PhaseAfter}

// Summary is what is kept of a metric's values, in the metric's own unit.
type Summary struct {
	Count int64   `json:"count"`
	Sum   float64 `json:"sum"`
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
}

// Figure is one figure of a summary by its name in expressions: count, sum, min, max, mean, p50, p90, p95 or p99; not a
// number for any other name.
func (s Summary) Figure(name string) float64 {
	switch name {
	case "count":
		return float64(s.Count)
	case "sum":
		return s.Sum
	case "min":
		return s.Min
	case "max":
		return s.Max
	case "mean":
		return s.Mean
	case "p50":
		return s.P50
	case "p90":
		return s.P90
	case "p95":
		return s.P95
	case "p99":
		return s.P99
	}
	return math.NaN()
}

// Outcomes counts how instances ended.
type Outcomes struct {
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Crashed   int `json:"crashed"`
	Silent    int `json:"silent"`
	// Killed counts those that an event killed and that were not started again.
	Killed int `json:"killed,omitempty"`
}
