package report

import (
	"bytes"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// failedRun is a record with something of everything.
func failedRun() runs.Record {
	assertions := []stage.Assertion{
		{Expr: "metrics.rtt.p95 < 2.0", Position: "pipeline.yaml:40:9", Explanation: "metrics.rtt.p95 = 2.41"},
		{Expr: "metrics.lost.sum == 0", Position: "pipeline.yaml:41:9", Held: true, Explanation: "metrics.lost.sum = 0"},
	}
	return runs.Record{
		ID: "dht-20260301-120000-k3fa", Pipeline: "dht", Digest: "abc", Seed: 7, Commit: "0123", Status: stage.StatusEnded,
		Verdict: stage.Failed, Reason: `failed: stage "lookups": 2 of 50 instances did not succeed (eu/3, us/7); eu/3: panicked: <boom>`,
		Started: start, Ended: at(22), Parameters: map[string]any{"peers": 50, "rtt": "80ms"},
		Stages: []stage.Result{
			{Stage: "build", Kind: pipelines.KindBuild, Verdict: stage.Passed, Attempt: 1, Started: at(0), Ended: at(2), Artifacts: map[string]stage.Artifact{"a": {Cached: true}, "b": {}}},
			{Stage: "place", Kind: pipelines.KindSchedule, Verdict: stage.Passed, Attempt: 2, Started: at(2), Ended: at(2.5), Placed: 3, Kept: 47},
			{Stage: "wan", Kind: pipelines.KindNetwork, Verdict: stage.Invalid, Attempt: 1, Started: at(2.5), Ended: at(3), Reason: "link eu → us is not as asked"},
			{Stage: "lookups", Kind: pipelines.KindRun, Verdict: stage.Failed, Attempt: 1, Started: at(3), Ended: at(21), Reason: "2 of 50 instances did not succeed",
				Outcomes: map[string]pipelines.Outcomes{"eu": {Succeeded: 24, Crashed: 1}, "us": {Succeeded: 24, Failed: 1}}, Failing: []string{"eu/3", "us/7"}},
			{Stage: "again", Kind: pipelines.KindRun, Verdict: stage.Skipped, Reason: "stage lookups did not pass", Started: at(21), Ended: at(21)},
			{Stage: "gather", Kind: pipelines.KindCollect, Verdict: stage.Failed, Attempt: 1, Started: at(21), Ended: at(22), Reason: "1 of 2 assertions broken", Assertions: assertions},
		},
		Groups: map[string]runs.Group{
			"eu": {Instances: 25, Outcomes: pipelines.Outcomes{Succeeded: 24, Crashed: 1}, PeakMemory: pipelines.Summary{Max: 12.5 * (1 << 20)}, CPU: pipelines.Summary{Max: 0.25}, Seconds: pipelines.Summary{Max: 17.9}},
			"us": {Instances: 25, Outcomes: pipelines.Outcomes{Succeeded: 24, Failed: 1}},
		},
		Metrics: map[string]pipelines.Summary{
			"rtt":  {Count: 1000, Sum: 123.456, Min: 0.000012, Max: 2.5, Mean: 0.12345, P50: 0.1, P90: 1.1, P95: 2.41, P99: 2.49},
			"lost": {Count: 2, Sum: 12345678901, Max: 12345.678},
		},
		Assertions: assertions,
	}
}

func TestSummary(t *testing.T) {
	out, rec := &terminal.Terminal{}, failedRun()
	golden.Compare(t, "testdata/summary.golden", Stages(out, rec.Stages)+"\n"+Broken(out, rec)+"\n"+Verdict(out, rec)+"\n"+Groups(out, rec.Groups)+"\n"+Metrics(out, rec.Metrics, Parts(rec, nil)))
}

func TestNotes(t *testing.T) {
	for want, r := range map[string]stage.Result{
		"2 artifacts, built before":       {Kind: pipelines.KindBuild, Verdict: stage.Passed, Artifacts: map[string]stage.Artifact{"a": {Cached: true}, "b": {Cached: true}}},
		"1 artifact":                      {Kind: pipelines.KindBuild, Verdict: stage.Passed, Artifacts: map[string]stage.Artifact{"a": {}}},
		"50 placed":                       {Kind: pipelines.KindSchedule, Verdict: stage.Passed, Placed: 50},
		"2 succeeded · 1 silent":          {Kind: pipelines.KindRun, Verdict: stage.Passed, Outcomes: map[string]pipelines.Outcomes{"a": {Succeeded: 2, Silent: 1}}},
		"1 assertion held · attempt 3":    {Kind: pipelines.KindCollect, Verdict: stage.Passed, Attempt: 3, Assertions: []stage.Assertion{{Held: true}}},
		"":                                {Kind: pipelines.KindNetwork, Verdict: stage.Passed, Attempt: 1},
		"disk is full":                    {Kind: pipelines.KindBuild, Verdict: stage.Invalid, Reason: "disk\nis\x1b full"},
		"1 line could not be read · more": {Kind: pipelines.KindCollect, Verdict: stage.Passed, Notes: []string{"1 line could not be read", "more"}},
	} {
		if got := Note(r); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
}

func TestSentence(t *testing.T) {
	for _, c := range []struct {
		rec  runs.Record
		want string
	}{
		{runs.Record{Verdict: stage.Passed, Started: at(0), Ended: at(1.5)}, "passed in 1.5s"},
		{runs.Record{Verdict: stage.Failed, Reason: "failed: it broke", Started: at(0), Ended: at(1.5)}, "failed in 1.5s: it broke"},
		{runs.Record{Verdict: stage.Invalid, Reason: "disk is full"}, "invalid: disk is full"},
		{runs.Record{Status: stage.StatusRunning}, "running"},
		{runs.Record{Status: stage.StatusHolding, Reason: `holds at stage "go"`}, `holds at stage "go"`},
		{runs.Record{Verdict: stage.Cancelled, Reason: "cancelled"}, "cancelled"},
	} {
		if got := Sentence(c.rec); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestVerdictIsWrappedOnATerminal(t *testing.T) {
	live := &terminal.Terminal{Live: true, Window: func() (int, int) { return 50, 24 }}
	text := Verdict(live, failedRun())
	if strings.Count(text, "\n") < 3 {
		t.Errorf("one line of %d cells", terminal.Width(text))
	}
	for line := range strings.Lines(text) {
		if terminal.Width(strings.TrimRight(line, "\n")) > 50 {
			t.Errorf("%q is too wide", line)
		}
	}
}

func TestJUnit(t *testing.T) {
	passed := failedRun()
	passed.ID, passed.Verdict, passed.Stages = "dht-2", stage.Passed, passed.Stages[:1]
	early := runs.Record{ID: "dht-3", Pipeline: "dht", Verdict: stage.Cancelled, Reason: "cancelled before any stage"}
	var b bytes.Buffer
	if err := JUnit(&b, failedRun(), passed, early); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/junit.golden", b.String())
	var back junitSuites
	if err := xml.Unmarshal(b.Bytes(), &back); err != nil || len(back.Suites) != 3 {
		t.Fatalf("%v: %+v", err, back)
	}
	for i, want := range []struct{ failures, errors, skipped int }{{3, 1, 1}, {0, 0, 0}, {0, 1, 0}} {
		s := back.Suites[i]
		if s.Failures != want.failures || s.Errors != want.errors || s.Skipped != want.skipped || s.Tests != len(s.Cases) {
			t.Errorf("suite %d: %d failures, %d errors, %d skipped of %d", i, s.Failures, s.Errors, s.Skipped, s.Tests)
		}
	}
}

func TestRuns(t *testing.T) {
	records := []runs.Record{
		{ID: "a-2", Pipeline: "a", Status: stage.StatusRunning, Started: at(0)},
		failedRun(),
		{ID: "a-1", Pipeline: "a", Status: stage.StatusEnded, Verdict: stage.Passed, Reason: "all well", Started: at(0), Ended: at(0.4)},
	}
	text := Runs(&terminal.Terminal{}, records, at(63))
	for _, want := range []string{"● running", "1m03s", "✘ failed", "✔ passed", "400ms"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "all well") {
		t.Error("a passed run needs no reason")
	}
}

func TestStates(t *testing.T) {
	states := []workflows.StageState{
		{Name: "build", Phase: "ended", Verdict: stage.Passed, Attempt: 1, Started: at(0), Ended: at(2)},
		{Name: "go", Phase: "running", Attempt: 2, Started: at(2)},
		{Name: "gather", Phase: "pending"},
	}
	reports := []stage.Progress{
		{Stage: "go", Attempt: 1, Note: "of the attempt before"},
		{Stage: "go", Attempt: 2, Total: 5, Running: 3, Succeeded: 1, Failed: 1, Note: "under way", FirstFailure: "a/1: boom"},
	}
	golden.Compare(t, "testdata/states.golden", States(&terminal.Terminal{}, states, reports, at(5)))
}

func TestCells(t *testing.T) {
	text := Cells(&terminal.Terminal{}, []stage.Cell{
		{Run: "m.1", Values: map[string]any{"version": "v1", "rtt": "20ms"}, Verdict: stage.Passed},
		{Run: "m.2", Values: map[string]any{"version": "v2", "rtt": "20ms"}, Verdict: stage.Failed, Reason: "boom"},
	})
	for _, want := range []string{"m.1  ✔ passed  rtt=20ms version=v1", "m.2  ✘ failed  rtt=20ms version=v2  boom"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if Cells(&terminal.Terminal{}, nil)+Stages(&terminal.Terminal{}, nil)+Groups(&terminal.Terminal{}, nil) != "" {
		t.Error("a table of nothing")
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 5: "5", -3: "-3", 0.12345: "0.1235", 1234.567: "1234.6", 0.0000123: "1.23e-05", 123456789012: "1.23e+11", 2.5: "2.5",
	} {
		if got := Number(v); got != want {
			t.Errorf("Number(%v) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0 B", 1023: "1023 B", 1 << 20: "1.0 MiB", 1.5 * (1 << 30): "1.5 GiB", 1 << 50: "1024.0 TiB"} {
		if got := Bytes(v); got != want {
			t.Errorf("Bytes(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestComparison(t *testing.T) {
	o := comparison.Outcome{Findings: []comparison.Finding{
		{Figure: "lookup_seconds.p95", Before: 2, After: 2.4, Change: 0.2, Shift: 0.4, Low: 0.3, High: 0.5, Effect: 0.8, P: 0.000001, Tolerance: 0.1, Judgement: comparison.Regressed},
		{Figure: "upload_bits.p50", Before: 1e7, After: 2e7, Change: 1, Low: 9e6, High: 1.1e7, P: 0.01, Tolerance: 0.1, Judgement: comparison.Better},
		{Figure: "zero.p50", After: 1, P: 1, Judgement: comparison.Untested},
		{Figure: "rtt.p50", Before: 1, After: 1.01, Change: 0.01, Low: -0.05, High: 0.05, P: 0.7, Judgement: comparison.Same},
	}}
	golden.Compare(t, "testdata/comparison.golden", Comparison(&terminal.Terminal{}, o))
}
