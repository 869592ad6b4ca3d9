package activities

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// measured leaves an earlier run that measured about that many seconds, and returns its id.
func (b *bench) measured(id string, at float64, change func(*runs.Record)) string {
	b.Helper()
	in := collectInput(pipelines.Collect{})
	record := runs.Record{
		ID: id, Pipeline: in.Pipeline, Ground: in.Run.Ground, Parameters: in.Parameters, Cell: in.Cell,
		Status: stage.StatusEnded, Verdict: stage.Passed, Started: time.Now(),
		Metrics: map[string]pipelines.Summary{"rtt_seconds": {Count: 2, P50: at, Max: at}},
	}
	if change != nil {
		change(&record)
	}
	folder := b.activities.Home.Run(id)
	samples := map[string][]pipelines.Summary{"rtt_seconds": {{Count: 1, P50: at}, {Count: 1, P50: at * 1.01}}}
	for _, err := range []error{folder.WriteRecord(record), runs.WriteJSON(folder.Samples(), samples)} {
		if err != nil {
			b.Fatal(err)
		}
	}
	return id
}

func TestCompare(t *testing.T) {
	// The run that collect looks at has measured 1 to 6 seconds.
	for name, c := range map[string]struct {
		earlier float64
		verdict stage.Verdict
		says    string
	}{
		"as ever": {3, stage.Passed, "1 same"},
		"slower":  {0.5, stage.Failed, "1 regressed"},
		"faster":  {60, stage.Passed, "1 better"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.left()
			for i, noise := range []float64{0.98, 1, 1.01, 1.02} {
				b.measured(fmt.Sprintf("before-%d", i), c.earlier*noise, nil)
			}
			b.measured("another-pipeline", 1, func(r *runs.Record) { r.Pipeline = "another" })
			b.measured("failed", 1, func(r *runs.Record) { r.Verdict = stage.Failed })
			result := b.must("collect", collectInput(pipelines.Collect{Compare: &pipelines.Compare{Tolerance: map[string]pipelines.Share{"rtt_seconds.p50": 0.1}}}))
			if result.Verdict != c.verdict || !slices.ContainsFunc(result.Notes, func(n string) bool { return strings.Contains(n, c.says) }) {
				t.Errorf("got %+v", result)
			}
			if failed := result.Verdict == stage.Failed; failed != strings.Contains(result.Reason, "regressed: rtt_seconds.p50 is ") {
				t.Errorf("its reason is %q", result.Reason)
			}
			var kept comparison.Outcome
			if err := runs.ReadJSON(b.folder.Comparison(), &kept); err != nil || len(kept.With) != 4 || len(kept.Findings) != 1 {
				t.Errorf("what was kept: %+v, %v", kept, err)
			}
		})
	}
}

func TestCompareWithOne(t *testing.T) {
	b := newBench(t)
	b.left()
	b.measured("parameters", 3, func(r *runs.Record) { r.Parameters = map[string]any{"peers": 7} })
	for with, want := range map[string]string{
		"nobody":     "compare: there is no run nobody here: nothing was compared",
		"parameters": "compare: their parameters differ (",
	} {
		result := b.must("collect", collectInput(pipelines.Collect{Compare: &pipelines.Compare{With: with}}))
		if result.Verdict != stage.Passed || !slices.ContainsFunc(result.Notes, func(n string) bool { return strings.HasPrefix(n, want) }) {
			t.Errorf("%s: %+v", with, result)
		}
	}
}
