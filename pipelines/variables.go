package pipelines

// Variables is what `when` and `assert` see of a run, beside what Resolved already holds.
type Variables struct {
	// Stages is stage → outcome: "passed", "failed", "invalid" or "skipped".
	Stages map[string]string `json:"stages,omitempty"`
	// Metrics is name → summary over all instances, and "<group>.<name>" → summary over one group;
	// either with ".during.<event>" behind it → summary over what was measured while the event lasted.
	Metrics map[string]Summary `json:"metrics,omitempty"`
	// Outcomes is group → how its instances ended, over all run stages.
	Outcomes map[string]Outcomes `json:"outcomes,omitempty"`
}

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

// Outcomes counts how instances ended.
type Outcomes struct {
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Crashed   int `json:"crashed"`
	Silent    int `json:"silent"`
	// Killed counts those that an event killed and that were not started again.
	Killed int `json:"killed,omitempty"`
}
