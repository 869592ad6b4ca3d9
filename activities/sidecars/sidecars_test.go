package sidecars

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// input has the groups g and h with so many instances.
func input(counts ...int) stage.Input {
	var in stage.Input
	for i, count := range counts {
		in.Groups = append(in.Groups, pipelines.Group{Name: string(rune('g' + i)), Artifact: "plan", Instances: count, Testground: true})
	}
	return in
}

func numbered(group string, indices ...int) []string {
	var list []string
	for _, index := range indices {
		list = append(list, fmt.Sprintf("%s/%d", group, index))
	}
	return list
}

// TestOutcomeReasons compares the verdicts on ended run stages with testdata/outcomes.golden.
func TestOutcomeReasons(t *testing.T) {
	panicked := &control.Instance{Group: "g", Index: 3, Reason: "panicked: nil map"}
	several := numbered("g", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	var got strings.Builder
	for _, c := range []struct {
		name    string
		success pipelines.Share
		timeout time.Duration
		counts  control.Counts
		status  control.RunStatus
	}{
		{"all succeeded", 1, 0, control.Counts{Total: 50, Succeeded: 50}, control.RunStatus{}},
		{"two did not", 1, 0, control.Counts{Total: 50, Succeeded: 48, Failed: 1, Crashed: 1}, control.RunStatus{FirstFailure: panicked, Failing: numbered("g", 3, 7)}},
		{"the only one did not", 1, 0, control.Counts{Total: 1, Crashed: 1}, control.RunStatus{FirstFailure: panicked, Failing: numbered("g", 3)}},
		{"more than are named", 1, 0, control.Counts{Total: 50, Succeeded: 30, Silent: 20}, control.RunStatus{FirstFailure: panicked, Failing: several}},
		{"within the share", 0.9, 0, control.Counts{Total: 50, Succeeded: 45, Failed: 5}, control.RunStatus{FirstFailure: panicked, Failing: numbered("g", 3, 4, 5, 6, 7)}},
		{"below the share", 0.9, 0, control.Counts{Total: 50, Succeeded: 44, Failed: 6}, control.RunStatus{FirstFailure: panicked, Failing: numbered("g", 3, 4, 5, 6, 7, 8)}},
		{"timed out", 1, 10 * time.Minute, control.Counts{Total: 50, Succeeded: 38, Failed: 12}, control.RunStatus{TimedOut: true, Unfinished: 12, Failing: several}},
		{"timed out with failures before", 1, 90 * time.Second, control.Counts{Total: 50, Succeeded: 45, Failed: 5}, control.RunStatus{TimedOut: true, Unfinished: 3, FirstFailure: panicked, Failing: numbered("g", 3, 7, 8, 9, 10)}},
		{"timed out within the share", 0.9, time.Hour, control.Counts{Total: 50, Succeeded: 49, Failed: 1}, control.RunStatus{TimedOut: true, Unfinished: 1, Failing: numbered("g", 8)}},
		{"timed out without a timeout of its own", 1, 0, control.Counts{Total: 1, Failed: 1}, control.RunStatus{TimedOut: true, Unfinished: 1, Failing: numbered("g", 0)}},
		{"failed fast", 1, 0, control.Counts{Total: 50, Succeeded: 9, Crashed: 1, Failed: 40}, control.RunStatus{FailedFast: true, Unfinished: 40, FirstFailure: panicked, Failing: several}},
		{"halted", 1, 0, control.Counts{Total: 50, Succeeded: 9, Failed: 41}, control.RunStatus{Halted: true, Unfinished: 41}},
		{"faulty though all succeeded", 1, 0, control.Counts{Total: 50, Succeeded: 50}, control.RunStatus{Fault: "3 processes of stage run can't be killed"}},
		{"faulty before instances had ended", 0.5, 0, control.Counts{Total: 50, Succeeded: 20, Failed: 30}, control.RunStatus{Fault: "signalling that the network is ready: EOF", Unfinished: 30, FirstFailure: panicked, Failing: several}},
		{"faulty while being halted", 1, 0, control.Counts{Total: 50, Succeeded: 9, Failed: 41}, control.RunStatus{Fault: "3 processes of stage run can't be killed", Halted: true, Unfinished: 41}},
	} {
		started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		in := stage.Input{
			Deadline: started.Add(time.Hour),
			Stage:    pipelines.Stage{Timeout: pipelines.Duration(c.timeout), Run: &pipelines.Run{Success: c.success}},
		}
		c.status.Started, c.status.Groups = started, map[string]control.Counts{"g": c.counts}
		result := Outcome(in, c.status)
		fmt.Fprintf(&got, "%s\n\t%s: %s\n", c.name, result.Verdict, result.Reason)
		for _, note := range result.Notes {
			fmt.Fprintf(&got, "\tnote: %s\n", note)
		}
	}
	golden.Compare(t, "testdata/outcomes.golden", got.String())
}

// TestPlacedReasons compares what is said of placements that were not whole with testdata/placed.golden.
func TestPlacedReasons(t *testing.T) {
	var got strings.Builder
	say := func(name, reason string) { fmt.Fprintf(&got, "%s\n\t%s\n", name, reason) }
	in := input(200)
	say("all placed", Placed(in, Names(in), control.Status{New: 3, Kept: 197}).Reason)
	say("three of many", Placed(in, Names(in), control.Status{FaultCount: 3, Faults: map[string]string{
		"g/101": "no space left on device", "g/17": "no space left on device", "g/2": "permission denied",
	}}).Reason)
	say("more than are told", Placed(in, Names(in), control.Status{FaultCount: 30, Faults: map[string]string{
		"g/1": "a", "g/2": "b", "g/3": "c", "g/4": "d",
	}}).Reason)
	say("the only one", Placed(input(1), []string{"g"}, control.Status{FaultCount: 1, Faults: map[string]string{"g/0": "permission denied"}}).Reason)
	golden.Compare(t, "testdata/placed.golden", got.String())
}

func TestParams(t *testing.T) {
	for _, c := range []struct {
		name       string
		group, run map[string]string
		testground bool
		refused    bool
	}{
		{"none", nil, nil, true, false},
		{"plain", map[string]string{"a": "1"}, map[string]string{"b": "2"}, true, false},
		{"= in the run's", nil, map[string]string{"b": "x=y"}, true, true},
		{"| in the group's", map[string]string{"a": "x|y"}, nil, true, true},
		{"the group's is overridden", map[string]string{"a": "x|y"}, map[string]string{"a": "z"}, true, false},
		{"in a name", nil, map[string]string{"a|b": "x"}, true, true},
		{"opted out", map[string]string{"a": "x|y"}, map[string]string{"b": "x=y"}, false, false},
	} {
		in := input(1, 1)
		in.Groups[0].Parameters, in.Groups[0].Testground = c.group, c.testground
		in.Groups[1].Parameters = map[string]string{"other": "|"} // it doesn't take part
		in.Stage.Run = &pipelines.Run{Groups: []string{"g"}, Params: c.run}
		reason := CheckParams(in)
		if refused := reason != ""; refused != c.refused {
			t.Errorf("%s: refused: %v (%s)", c.name, refused, reason)
		}
	}
}

func TestMustSucceed(t *testing.T) {
	for _, c := range []struct {
		share       float64
		total, want int
	}{{1, 50, 50}, {0.99, 1000, 990}, {0.99, 50, 50}, {0.9, 50, 45}, {0.1, 3, 1}, {0, 5, 0}, {0.07, 100, 7}, {0.29, 100, 29}} {
		if got := MustSucceed(c.share, c.total); got != c.want {
			t.Errorf("%v of %d: %d, want %d", c.share, c.total, got, c.want)
		}
	}
}
