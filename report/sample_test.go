package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// start is when the runs of the tests began, and made when their reports are written.
var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	made  = start.Add(time.Hour)
)

func after(d time.Duration) time.Time { return start.Add(d) }

// sample is a run to write into a folder.
type sample struct {
	t      testing.TB
	home   runs.Home
	id     string
	record runs.Record
	groups []pipelines.Group
	stages []pipelines.Stage
}

// newSample is a run of a few stages; peers of so many instances.
func newSample(t testing.TB, home runs.Home, id string, peers int) *sample {
	s := &sample{t: t, home: home, id: id}
	s.groups = []pipelines.Group{{Name: "clients", Artifact: "lookup", Instances: peers, Outcome: "report"}, {Name: "servers", Artifact: "lookup", Instances: max(peers/10, 1), Outcome: "report"}}
	for _, x := range []struct {
		name string
		kind pipelines.Kind
	}{{"build", pipelines.KindBuild}, {"place", pipelines.KindSchedule}, {"wan", pipelines.KindNetwork}, {"lookup", pipelines.KindRun}, {"gather", pipelines.KindCollect}} {
		s.stages = append(s.stages, pipelines.Stage{Name: x.name, Kind: x.kind})
	}
	s.stages[3].Run = &pipelines.Run{Case: "lookup"}
	s.stages[0].Build = map[string]pipelines.Source{"lookup": {}}
	s.record = runs.Record{
		ID: id, Pipeline: "lookup", Description: "Looks names up over a slow network.", File: "plans/lookup/pipeline.yaml", Digest: strings.Repeat("ab", 32), Seed: 7,
		Parameters: map[string]any{"peers": peers, "rate": "20Mbit", "note": "it's \"quoted\""}, Ground: "local", Commit: "0123456789abcdef-dirty",
		Status: stage.StatusEnded, Verdict: stage.Passed, Reason: "passed: 5 stages", Started: start, Ended: after(40 * time.Second), Seconds: 40,
		Versions: map[string]string{"groundplan": "v0.1.0", "kernel": "6.12"},
	}
	s.record.Stages = []stage.Result{
		{Stage: "build", Kind: pipelines.KindBuild, Verdict: stage.Passed, Attempt: 1, Started: after(0), Ended: after(4 * time.Second), Artifacts: map[string]stage.Artifact{"lookup": {Name: "lookup"}}},
		{Stage: "place", Kind: pipelines.KindSchedule, Verdict: stage.Passed, Attempt: 1, Started: after(4 * time.Second), Ended: after(5 * time.Second), Placed: peers},
		{Stage: "wan", Kind: pipelines.KindNetwork, Verdict: stage.Passed, Attempt: 1, Started: after(5 * time.Second), Ended: after(8 * time.Second), Notes: []string{"20 links between instances were probed"}},
		{Stage: "lookup", Kind: pipelines.KindRun, Verdict: stage.Passed, Attempt: 2, Started: after(20 * time.Second), Ended: after(38 * time.Second), Outcomes: map[string]pipelines.Outcomes{"clients": {Succeeded: peers}}},
		{Stage: "gather", Kind: pipelines.KindCollect, Verdict: stage.Passed, Attempt: 1, Started: after(38 * time.Second), Ended: after(40 * time.Second)},
	}
	s.record.Tries = []stage.Result{{Stage: "lookup", Kind: pipelines.KindRun, Verdict: stage.Invalid, Reason: "the machine was too busy", Attempt: 1, Started: after(8 * time.Second), Ended: after(18 * time.Second)}}
	return s
}

func (s *sample) folder() runs.Folder { return s.home.Run(s.id) }

func (s *sample) write(path string, v any) {
	s.t.Helper()
	if err := runs.WriteJSON(path, v); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sample) text(path, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// rows writes what became of the instances: how gives outcome, reason and last lines.
func (s *sample) rows(how func(group string, index int) (string, string, []string)) {
	s.t.Helper()
	var b bytes.Buffer
	slot := 0
	for _, g := range s.groups {
		for i := range g.Instances {
			outcome, reason, lines := how(g.Name, i)
			slot++
			if outcome == "" {
				continue
			}
			row := control.Instance{
				Group: g.Name, Index: i, Stage: "lookup", Attempt: "lookup-2", Started: after(20 * time.Second), Ended: after(20*time.Second + time.Duration(1000+slot*37%9000)*time.Millisecond),
				Outcome: outcome, Reason: reason, LastLines: lines, PeakMemory: int64(7+slot%5) << 20, CPU: float64(slot%90) / 100,
			}
			if outcome != control.OutcomeSucceeded {
				row.Exit = 1
			}
			line, err := json.Marshal(row)
			if err != nil {
				s.t.Fatal(err)
			}
			b.Write(append(line, '\n'))
		}
	}
	s.text(s.folder().Stage("lookup"), b.String())
}

// measure writes metrics, samples and a few results.
func (s *sample) measure() {
	s.t.Helper()
	of := func(scale float64, n int64) pipelines.Summary {
		return pipelines.Summary{Count: n, Sum: scale * float64(n), Min: scale / 30, Max: scale * 40, Mean: scale, P50: scale * 0.8, P90: scale * 2, P95: scale * 5, P99: scale * 20}
	}
	s.record.Metrics = map[string]pipelines.Summary{
		"lookup_seconds": of(0.08, 4000), "clients.lookup_seconds": of(0.08, 4000), "lookup_seconds.during.split": of(0.4, 300),
		"sent_bytes": of(3<<20, 55), "clients.sent_bytes": of(1<<20, 50), "servers.sent_bytes": of(20<<20, 5), "hops": of(3, 50), "clients.hops": of(3, 50),
	}
	samples := map[string][]pipelines.Summary{}
	for i := range 40 {
		samples["clients.sent_bytes"] = append(samples["clients.sent_bytes"], of(float64(i+1)*1e5, 1))
		samples["servers.sent_bytes"] = append(samples["servers.sent_bytes"], of(float64(i+9)*1e6, 1))
	}
	s.write(s.folder().Samples(), samples)
	for i := range 5 {
		var b strings.Builder
		for j := range 40 {
			fmt.Fprintf(&b, `{"ts":%d,"type":"point","name":"lookup_seconds,peer=%d","measures":{"value":%g}}`+"\n", after(25*time.Second).UnixNano(), j, 0.004*float64(1+(i*40+j)*(i*40+j)))
		}
		// In an attempt that another has taken the place of.
		fmt.Fprintf(&b, `{"ts":%d,"type":"point","name":"lookup_seconds","measures":{"value":1e9}}`+"\n", after(10*time.Second).UnixNano())
		s.text(filepath.Join(s.folder().Outputs("clients", i), "results.out"), b.String())
	}
	group := runs.Group{Instances: 50, Outcomes: pipelines.Outcomes{Succeeded: 50}, PeakMemory: of(9<<20, 50), CPU: of(0.4, 50), Seconds: of(6, 50)}
	s.record.Groups = map[string]runs.Group{"clients": group, "servers": group}
}

// events writes a log with an event that lasted.
func (s *sample) events() {
	s.t.Helper()
	for _, e := range []runs.Event{
		{Time: after(0), Kind: "stage-started", Stage: "build", Attempt: "build-1", Text: `stage "build" started (attempt 1)`},
		{Time: after(20 * time.Second), Kind: "stage-opened", Stage: "lookup", Text: "the gate has opened"},
		{Time: after(24 * time.Second), Kind: runs.KindEventBegan, Stage: "lookup", Attempt: "lookup-2", Event: "split", At: 4 * time.Second, Text: "split: the network is cut in two"},
		{Time: after(29 * time.Second), Kind: runs.KindEventEnded, Stage: "lookup", Attempt: "lookup-2", Event: "split", At: 9 * time.Second, Text: "split: healed"},
		{Time: after(40 * time.Second), Kind: "run-ended", Text: "the run ended"},
	} {
		if err := s.folder().AppendEvent(e); err != nil {
			s.t.Fatal(err)
		}
	}
}

// prove writes what links were found to do; the last of them is outside the tolerance when bad.
func (s *sample) prove(bad bool) {
	s.t.Helper()
	p := control.Proof{Shaper: "netem", Seed: 7, Tolerance: 0.1}
	for i := range 6 {
		pair := control.Pair{
			From: fmt.Sprintf("clients/%d", i), To: "servers/0", Packets: 50, OK: true,
			Asked:    control.Figures{Latency: pipelines.Duration(50 * time.Millisecond), Loss: 0.01, Bandwidth: 20e6, Policy: "accept"},
			Achieved: control.Figures{Latency: pipelines.Duration(50*time.Millisecond + time.Duration(i)*time.Millisecond/10), Loss: 0.011, Bandwidth: 19.6e6, Policy: "accept"},
		}
		if bad && i == 5 {
			pair.OK, pair.Fault = false, "latency 62ms instead of 50ms"
		}
		p.Pairs = append(p.Pairs, pair)
	}
	s.write(s.folder().Proof("wan"), p)
}

// compare writes a comparison in which one figure has regressed.
func (s *sample) compare() {
	s.t.Helper()
	s.write(s.folder().Comparison(), comparison.Outcome{Run: s.id, With: []string{"lookup-3", "lookup-2", "lookup-1"}, Alpha: 0.05, Findings: []comparison.Finding{
		{Figure: "hops.p50", Before: 3, After: 3, P: 1, Tolerance: 0.05, Judgement: comparison.Same, Values: [2]int{150, 50}},
		{Figure: "lookup_seconds.p95", Before: 0.2, After: 0.25, Change: 0.25, Shift: 0.05, Low: 0.03, High: 0.06, Effect: 0.7, P: 0.00004, Tolerance: 0.1, Judgement: comparison.Regressed, Values: [2]int{150, 50}},
		{Figure: "new.p50", Before: 0, After: 4, P: 1, Tolerance: 0.05, Judgement: comparison.Untested},
	}})
}

// save writes record and pipeline.
func (s *sample) save() {
	s.t.Helper()
	p := pipelines.Resolved{Name: s.record.Pipeline, File: s.record.File, Digest: s.record.Digest, Seed: s.record.Seed, Groups: s.groups, Stages: s.stages}
	s.write(s.folder().Pipeline(), p)
	s.write(s.folder().Record(), s.record)
}

// html is the report.
func (s *sample) html() string {
	s.t.Helper()
	return reportOf(s.t, s.home, s.id)
}

func reportOf(t testing.TB, home runs.Home, id string) string {
	t.Helper()
	var b bytes.Buffer
	if err := run(&b, home, id, made); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// passed is a run in which all is well.
func passed(t testing.TB, home runs.Home, id string, peers int) *sample {
	s := newSample(t, home, id, peers)
	s.rows(func(string, int) (string, string, []string) { return control.OutcomeSucceeded, "", nil })
	s.measure()
	s.events()
	s.prove(false)
	s.save()
	return s
}

// failed is a run in which instances crashed, an assertion didn't hold and a figure regressed.
func failed(t testing.TB, home runs.Home, id string, peers int) *sample {
	s := newSample(t, home, id, peers)
	s.record.Started = start // the same for all: before orders by it
	s.rows(func(_ string, i int) (string, string, []string) {
		switch {
		case i%17 == 3:
			return control.OutcomeCrashed, fmt.Sprintf("panicked: no route to 10.0.0.%d", i), []string{"goroutine 1 [running]:", "\tmain.go:12 +0x1d"}
		case i%23 == 5:
			return control.OutcomeFailed, "reported failure: answer is late", []string{`{"ts":1,"event":{"failure_event":{"error":"answer is late"}}}`}
		case i == 8:
			return control.OutcomeSilent, "exited with status 0 without reporting an outcome", nil
		case i == 9:
			return control.OutcomeKilled, "killed by event churn", nil
		case i == 11:
			return "", "", nil
		}
		return control.OutcomeSucceeded, "", nil
	})
	s.measure()
	s.events()
	s.prove(false)
	s.compare()
	s.record.Verdict = stage.Failed
	s.record.Reason = `failed: stage "lookup" (attempt 2) — 5 of 50 instances did not succeed (clients/3, clients/5, …); clients/3: panicked: no route to 10.0.0.3`
	s.record.Stages[3].Verdict = stage.Failed
	s.record.Stages[3].Reason = "5 of 50 instances did not succeed (clients/3, clients/5, …); clients/3: panicked: no route to 10.0.0.3"
	s.record.Stages[4].Verdict, s.record.Stages[4].Reason = stage.Failed, "1 of 2 assertions did not hold"
	s.record.Assertions = []stage.Assertion{{Expr: "metrics.hops.max < 4.0", Position: "pipeline.yaml:40:11", Explanation: "metrics.hops.max = 120"}, {Expr: "true", Held: true}}
	s.record.Stages[4].Regressed = []string{"lookup_seconds.p95 is 0.25 instead of 0.2"}
	s.save()
	return s
}

// invalid is a run whose network was not as asked.
func invalid(t testing.TB, home runs.Home, id string, peers int) *sample {
	s := newSample(t, home, id, peers)
	s.prove(true)
	s.text(s.folder().SidecarLog(), "the first line\nprobing\nclients/5 → servers/0: latency 62ms instead of 50ms\n")
	s.record.Verdict = stage.Invalid
	s.record.Reason = `invalid: stage "wan" — 1 of 6 links is not as asked: clients/5 → servers/0: latency 62ms instead of 50ms`
	s.record.Tries = nil
	s.record.Stages = s.record.Stages[:3]
	s.record.Stages[2].Verdict, s.record.Stages[2].Reason = stage.Invalid, "1 of 6 links is not as asked: clients/5 → servers/0: latency 62ms instead of 50ms"
	s.record.Stages = append(s.record.Stages, stage.Result{Stage: "lookup", Kind: pipelines.KindRun, Verdict: stage.Skipped}, stage.Result{Stage: "gather", Kind: pipelines.KindCollect, Verdict: stage.Skipped})
	s.record.Ended = after(8 * time.Second)
	s.save()
	return s
}

// aHome is an empty state folder.
func aHome(t testing.TB) runs.Home { return runs.Home(t.TempDir()) }
