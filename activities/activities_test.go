package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/activities/artifacts"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeGround does what its fields say, and notes what it was asked.
type fakeGround struct {
	act    func(ctx context.Context, report func(stage.Progress)) (stage.Result, error)
	mu     sync.Mutex
	called []string
}

func (g *fakeGround) note(call string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.called = append(g.called, call)
}

func (g *fakeGround) do(ctx context.Context, call string, report func(stage.Progress)) (stage.Result, error) {
	g.note(call)
	if g.act == nil {
		return stage.Result{Verdict: stage.Passed}, nil
	}
	return g.act(ctx, report)
}

func (g *fakeGround) Schedule(ctx context.Context, _ stage.Input, report func(stage.Progress)) (stage.Result, error) {
	return g.do(ctx, "schedule", report)
}

func (g *fakeGround) Network(ctx context.Context, _ stage.Input, report func(stage.Progress)) (stage.Result, error) {
	return g.do(ctx, "network", report)
}

func (g *fakeGround) Run(ctx context.Context, _ stage.Input, report func(stage.Progress)) (stage.Result, error) {
	return g.do(ctx, "run", report)
}

func (g *fakeGround) Gather(ctx context.Context, _ stage.Input, report func(stage.Progress)) error {
	_, err := g.do(ctx, "gather", report)
	return err
}

func (g *fakeGround) Halt(ctx context.Context, _ stage.Run) error {
	g.note("halt")
	return ctx.Err()
}

func (g *fakeGround) HaltStage(ctx context.Context, in stage.Input) error {
	g.note("halt " + in.Stage.Name)
	return ctx.Err()
}

func (g *fakeGround) Pack(_ context.Context, artifact stage.Artifact) (stage.Artifact, string, error) {
	return artifact, "", nil
}

func (g *fakeGround) Release(ctx context.Context, _ stage.Run) error {
	g.note("release")
	return ctx.Err()
}

// bench is a worker's activities with a fake ground.
type bench struct {
	*testing.T
	env        *testsuite.TestActivityEnvironment
	ground     *fakeGround
	activities *Activities
	folder     runs.Folder
	beats      chan stage.Progress
}

func newBench(t *testing.T) *bench {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	b := &bench{T: t, env: suite.NewTestActivityEnvironment(), ground: &fakeGround{}, beats: make(chan stage.Progress, 1000)}
	home := runs.Home(t.TempDir())
	b.folder = home.Run("run-1")
	b.activities = &Activities{Home: home, Grounds: map[string]Ground{"local": b.ground}, Versions: map[string]string{"groundplan": "test"}}
	Register(b.env, b.activities)
	b.env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var p stage.Progress
		if err := details.Get(&p); err != nil {
			t.Error(err)
		}
		b.beats <- p
	})
	return b
}

// input asks for a stage.
func input(s pipelines.Stage) stage.Input {
	s.Name = string(s.Kind) + "-stage"
	return stage.Input{
		Run: stage.Run{ID: "run-1", Ground: "local", Root: "/repository"}, Pipeline: "test", Stage: s, Attempt: 2,
		Groups: []pipelines.Group{{Name: "eu", Instances: 2}, {Name: "us", Instances: 1}}, Deadline: time.Now().Add(time.Hour),
	}
}

func (b *bench) do(name string, in any) (stage.Result, error) {
	b.Helper()
	value, err := b.env.ExecuteActivity(name, in)
	if err != nil {
		return stage.Result{}, err
	}
	var result stage.Result
	if err := value.Get(&result); err != nil {
		b.Fatal(err)
	}
	return result, nil
}

func (b *bench) must(name string, in any) stage.Result {
	b.Helper()
	result, err := b.do(name, in)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	return result
}

func (b *bench) events() string {
	b.Helper()
	events, err := b.folder.ReadEvents()
	if err != nil {
		b.Fatal(err)
	}
	var lines strings.Builder
	for _, e := range events {
		fmt.Fprintf(&lines, "%s: %s\n", e.Kind, e.Text)
	}
	return lines.String()
}

var runStage = pipelines.Stage{Kind: pipelines.KindRun, Run: &pipelines.Run{Groups: []string{"eu", "us"}, Case: "ok", Success: 1}}

func TestEveryNameIsRegistered(t *testing.T) {
	b := newBench(t)
	for _, s := range []pipelines.Stage{
		{Kind: pipelines.KindSchedule, Schedule: &pipelines.Schedule{}}, {Kind: pipelines.KindNetwork, Network: &pipelines.Network{}}, runStage,
		{Kind: pipelines.KindBuild}, {Kind: pipelines.KindCollect, Collect: &pipelines.Collect{}},
	} {
		result := b.must(string(s.Kind), input(s))
		if result.Verdict != stage.Passed || result.Kind != s.Kind || result.Stage != string(s.Kind)+"-stage" || result.Attempt != 2 ||
			result.Started.IsZero() || result.Ended.Before(result.Started) {
			t.Errorf("%s: got %+v", s.Kind, result)
		}
	}
	for _, name := range []string{stage.ActivityHalt, stage.ActivityRelease} {
		if _, err := b.env.ExecuteActivity(name, input(runStage)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if want := []string{"schedule", "network", "run", "gather", "halt run-stage", "release"}; !slices.Equal(b.ground.called, want) {
		t.Errorf("the ground was asked %q, want %q", b.ground.called, want)
	}
}

func TestHaltOfAnotherStageHaltsAll(t *testing.T) {
	b := newBench(t)
	if _, err := b.env.ExecuteActivity(stage.ActivityHalt, input(pipelines.Stage{Kind: pipelines.KindSchedule})); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.ground.called, []string{"halt"}) {
		t.Errorf("the ground was asked %q", b.ground.called)
	}
}

func TestNoSuchGround(t *testing.T) {
	b := newBench(t)
	for _, s := range []pipelines.Stage{runStage, {Kind: pipelines.KindSchedule}, {Kind: pipelines.KindNetwork}, {Kind: pipelines.KindCollect}} {
		in := input(s)
		in.Run.Ground = "kubernetes"
		if result := b.must(string(s.Kind), in); result.Verdict != stage.Invalid || result.Reason != `this worker has no ground "kubernetes"; it has local` {
			t.Errorf("%s: got %+v", s.Kind, result)
		}
	}
	for _, name := range []string{stage.ActivityHalt, stage.ActivityRelease} {
		in := input(runStage)
		in.Run.Ground = "kubernetes"
		if _, err := b.env.ExecuteActivity(name, in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReattach is an activity that is tried again: people go on seeing what the attempt before had reported.
func TestReattach(t *testing.T) {
	b := newBench(t)
	b.env.SetHeartbeatDetails(stage.Progress{Stage: "run-stage", Attempt: 2, Total: 3, Running: 3})
	b.ground.act = func(context.Context, func(stage.Progress)) (stage.Result, error) {
		if p := <-b.beats; p != (stage.Progress{Stage: "run-stage", Attempt: 2, Total: 3, Running: 3}) {
			t.Errorf("the first heartbeat is %+v", p)
		}
		return stage.Result{Verdict: stage.Passed}, nil
	}
	b.must("run", input(runStage))
}

func TestHeart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var sent []string
		h := newHeart(stage.Progress{Stage: "s", Attempt: 1, Total: 3}, func(p stage.Progress) {
			sent = append(sent, fmt.Sprintf("%v: %s/%d %d of %d", time.Since(began), p.Stage, p.Attempt, p.Succeeded, p.Total))
		})
		synctest.Wait()
		h.report(stage.Progress{Total: 3}) // no change
		time.Sleep(30 * time.Millisecond)
		h.report(stage.Progress{Total: 3, Succeeded: 1})
		h.report(stage.Progress{Total: 3, Succeeded: 2})
		time.Sleep(2500 * time.Millisecond)
		h.stop()
		want := []string{"0s: s/1 0 of 3", "100ms: s/1 2 of 3", "1s: s/1 2 of 3", "2s: s/1 2 of 3"}
		if !slices.Equal(sent, want) {
			t.Errorf("sent %q\nwant %q", sent, want)
		}
	})
}

func TestWorkerStops(t *testing.T) {
	b := newBench(t)
	stop := make(chan struct{})
	b.env.SetWorkerStopChannel(stop)
	b.ground.act = func(ctx context.Context, _ func(stage.Progress)) (stage.Result, error) {
		close(stop)
		<-ctx.Done()
		return stage.Result{}, context.Cause(ctx)
	}
	_, err := b.do("run", input(runStage))
	var failed *temporal.ApplicationError
	if !errors.As(err, &failed) || failed.Type() != TypeWorkerStops || failed.NonRetryable() {
		t.Errorf("got %v, want a retryable %s", err, TypeWorkerStops)
	}
	if slices.Contains(b.ground.called, "halt run-stage") {
		t.Error("the instances were halted because their worker stops")
	}
}

// cancelledBy runs a run stage whose context ends for that reason.
func cancelledBy(t *testing.T, cause error) (*bench, error) {
	t.Helper()
	b := newBench(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	b.env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
	b.ground.act = func(ctx context.Context, _ func(stage.Progress)) (stage.Result, error) {
		cancel(cause)
		<-ctx.Done()
		return stage.Result{}, context.Cause(ctx)
	}
	_, err := b.do("run", input(runStage))
	return b, err
}

func TestCancelledByRequest(t *testing.T) {
	b, err := cancelledBy(t, temporal.NewCanceledError())
	if !temporal.IsCanceledError(err) {
		t.Errorf("got %v, want a cancellation", err)
	}
	if !slices.Equal(b.ground.called, []string{"run", "halt run-stage"}) {
		t.Errorf("the ground was asked %q", b.ground.called)
	}
}

// TestTakenAway is an activity whose server has given it to another worker: the instances are that one's now.
func TestTakenAway(t *testing.T) {
	b, err := cancelledBy(t, errors.New("workflow or activity not found"))
	if err == nil || temporal.IsCanceledError(err) {
		t.Errorf("got %v, want an error that is no cancellation", err)
	}
	if !slices.Equal(b.ground.called, []string{"run"}) {
		t.Errorf("the ground was asked %q", b.ground.called)
	}
}

func TestErrorsAndResultsOfTheGround(t *testing.T) {
	b := newBench(t)
	b.ground.act = func(context.Context, func(stage.Progress)) (stage.Result, error) {
		return stage.Result{}, errors.New("connection refused")
	}
	if _, err := b.do("run", input(runStage)); err == nil || !strings.Contains(err.Error(), `stage "run-stage": connection refused`) {
		t.Errorf("got %v", err)
	}
	b.ground.act = func(context.Context, func(stage.Progress)) (stage.Result, error) {
		return stage.Result{Verdict: stage.Failed, Reason: "1 of 3 instances did not succeed", Notes: []string{"mind the gap"}}, nil
	}
	b.must("run", input(runStage))
	b.ground.act = func(context.Context, func(stage.Progress)) (stage.Result, error) {
		return stage.Result{}, fmt.Errorf("noting what is placed: %w", syscall.ENOSPC)
	}
	b.must("run", input(runStage))
	b.ground.act = func(context.Context, func(stage.Progress)) (stage.Result, error) { return stage.Result{}, nil }
	if result := b.must("run", input(runStage)); result.Verdict != stage.Invalid {
		t.Errorf("a result without a verdict became %+v", result)
	}
	want := `stage-started: stage "run-stage" started (attempt 2)
stage-started: stage "run-stage" started (attempt 2)
stage-ended: stage "run-stage" ended: failed: 1 of 3 instances did not succeed
note: mind the gap
stage-started: stage "run-stage" started (attempt 2)
stage-ended: stage "run-stage" ended: invalid: the disk is full: noting what is placed: no space left on device
stage-started: stage "run-stage" started (attempt 2)
stage-ended: stage "run-stage" ended: invalid: the stage ended without a verdict: this is a fault of groundplan
`
	if got := b.events(); got != want {
		t.Errorf("the events are\n%s\nwant\n%s", got, want)
	}
}

// fakeBuilder makes what its fields say.
type fakeBuilder map[string]error

func (f fakeBuilder) Build(_ context.Context, order artifacts.Order) (stage.Artifact, error) {
	order.Note("compiling " + order.Name)
	return stage.Artifact{Name: order.Name, Path: order.Log}, f[order.Name]
}

func TestBuild(t *testing.T) {
	broken := &artifacts.Fault{Reason: "./main.go:3:1: undefined: x"}
	away := &artifacts.Fault{Reason: "dial tcp: connection refused", Invalid: true}
	for _, c := range []struct {
		name    string
		builder fakeBuilder
		verdict stage.Verdict
		reason  string
		made    int
	}{
		{"all", fakeBuilder{}, stage.Passed, "", 3},
		{"one is broken", fakeBuilder{"b": broken}, stage.Failed, "artifact b can't be built: ./main.go:3:1: undefined: x", 2},
		{"one can't be fetched", fakeBuilder{"b": away}, stage.Invalid, "artifact b can't be built: dial tcp: connection refused", 2},
		{
			"both", fakeBuilder{"a": broken, "c": away}, stage.Failed,
			"artifact a can't be built: ./main.go:3:1: undefined: x; artifact c can't be built: dial tcp: connection refused", 1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.activities.Builder = c.builder
			result := b.must("build", input(pipelines.Stage{Kind: pipelines.KindBuild, Build: map[string]pipelines.Source{"a": {}, "b": {}, "c": {}}}))
			if result.Verdict != c.verdict || result.Reason != c.reason || len(result.Artifacts) != c.made {
				t.Errorf("got %+v", result)
			}
			for name, artifact := range result.Artifacts {
				if artifact.Path != b.folder.BuildLog(name) {
					t.Errorf("the log of %s is kept in %s", name, artifact.Path)
				}
			}
		})
	}
	b := newBench(t)
	b.activities.Builder = fakeBuilder{"a": errors.New("disk on fire")}
	if _, err := b.do("build", input(pipelines.Stage{Kind: pipelines.KindBuild, Build: map[string]pipelines.Source{"a": {}}})); err == nil || !strings.Contains(err.Error(), "artifact a: disk on fire") {
		t.Errorf("got %v", err)
	}
}

// leave writes what instances leave behind: outputs, and the rows of run stages.
func (b *bench) leave(results map[string]string, rows ...control.Instance) {
	b.Helper()
	for instance, text := range results {
		path := filepath.Join(string(b.folder), "outputs", instance, "results.out")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	for _, row := range rows {
		data, err := json.Marshal(row)
		if err != nil {
			b.Fatal(err)
		}
		path := b.folder.Stage(row.Stage)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			b.Fatal(err)
		}
		_, err = file.Write(append(data, '\n'))
		if err := errors.Join(err, file.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

// row is one instance's end in one stage.
func row(group string, index int, stageName string, attempt int, outcome string, memory int64) control.Instance {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return control.Instance{
		Group: group, Index: index, Stage: stageName, Attempt: stage.Key(stageName, attempt), Outcome: outcome,
		PeakMemory: memory, CPU: 0.5, Started: start, Ended: start.Add(2 * time.Second),
	}
}

func collectInput(collect pipelines.Collect) stage.Input {
	in := input(pipelines.Stage{Kind: pipelines.KindCollect, Collect: &collect})
	in.Stages = []stage.Result{
		{Stage: "warm-up", Kind: pipelines.KindRun, Attempt: 1, Verdict: stage.Passed},
		{Stage: "lookups", Kind: pipelines.KindRun, Attempt: 2, Verdict: stage.Passed},
	}
	return in
}

// left is a run of two stages: the second was tried twice, and eu/1 crashed in its second try.
func (b *bench) left() {
	point := func(value float64) string {
		return fmt.Sprintf(`{"type":"point","name":"rtt_seconds","measures":{"value":%v}}`+"\n", value)
	}
	b.leave(map[string]string{"eu/0": point(1) + point(2), "eu/1": point(3) + "rubbish\n", "us/0": point(6)},
		row("eu", 0, "warm-up", 1, control.OutcomeSucceeded, 100), row("eu", 1, "warm-up", 1, control.OutcomeSucceeded, 300),
		row("us", 0, "warm-up", 1, control.OutcomeSilent, 50),
		row("eu", 0, "lookups", 1, control.OutcomeFailed, 900), row("eu", 1, "lookups", 1, control.OutcomeFailed, 900),
		row("eu", 0, "lookups", 2, control.OutcomeSucceeded, 200), row("eu", 1, "lookups", 2, control.OutcomeCrashed, 200),
		row("us", 0, "lookups", 2, control.OutcomeSucceeded, 60), row("us", 0, "lookups", 2, control.OutcomeSucceeded, 60))
}

func TestCollect(t *testing.T) {
	b := newBench(t)
	b.left()
	result := b.must("collect", collectInput(pipelines.Collect{Outputs: true, Compare: &pipelines.Compare{With: "last-success"}, Assert: []pipelines.Assertion{
		{Expr: "metrics.rtt_seconds.max == 6.0"},
		{Expr: "metrics.eu.rtt_seconds.sum < 7.0"},
		{Expr: "outcomes.eu.crashed == 1 && outcomes.us.silent == 1"},
		{Expr: "stages.lookups.outcome == 'passed'"},
	}}))
	if result.Verdict != stage.Passed || len(result.Assertions) != 4 {
		t.Errorf("got %+v", result)
	}
	wantNotes := []string{
		"1 line of results.out is not a metric: eu/1 line 2: not a metric: invalid character 'r' looking for beginning of value",
		"compare: too few comparable runs (0 of at least 3 that passed): nothing was compared",
	}
	if !slices.Equal(result.Notes, wantNotes) {
		t.Errorf("notes:\n%s", strings.Join(result.Notes, "\n"))
	}
	if len(b.ground.called) != 1 || b.ground.called[0] != "gather" {
		t.Errorf("the ground was asked %q", b.ground.called)
	}
}

// TestCollectDuringAnEvent has assertions about what was measured while an event lasted, and about those that one killed.
func TestCollectDuringAnEvent(t *testing.T) {
	b := newBench(t)
	point := func(at int, value float64) string {
		return fmt.Sprintf(`{"ts":%d,"type":"point","name":"rtt_seconds","measures":{"value":%v}}`+"\n", at*1e9, value)
	}
	b.leave(map[string]string{"eu/0": point(5, 1) + point(15, 7) + point(25, 2)},
		row("eu", 0, "lookups", 2, control.OutcomeSucceeded, 100), row("eu", 1, "lookups", 2, control.OutcomeKilled, 300),
		row("eu", 1, "warm-up", 1, control.OutcomeSucceeded, 300), row("us", 0, "lookups", 2, control.OutcomeKilled, 100))
	for _, e := range []runs.Event{
		{Time: time.Unix(10, 0), Kind: runs.KindEventBegan, Stage: "lookups", Attempt: "lookups-2", Event: "net-split"},
		{Time: time.Unix(20, 0), Kind: runs.KindEventEnded, Stage: "lookups", Attempt: "lookups-2", Event: "net-split"},
	} {
		if err := b.folder.AppendEvent(e); err != nil {
			t.Fatal(err)
		}
	}
	result := b.must("collect", collectInput(pipelines.Collect{Assert: []pipelines.Assertion{
		{Expr: "metrics.rtt_seconds.during.net-split.p99 == 7.0 && metrics.rtt_seconds.sum == 10.0"},
		{Expr: "metrics.eu.rtt_seconds.during.net-split.count == 1"},
		{Expr: "outcomes.eu.killed == 0 && outcomes.eu.succeeded == 2 && outcomes.us.killed == 1 && outcomes.us.failed == 0"},
	}}))
	if result.Verdict != stage.Passed {
		t.Errorf("got %+v", result)
	}
	var kept map[string]pipelines.Summary
	if err := runs.ReadJSON(b.folder.Metrics(), &kept); err != nil || kept["rtt_seconds.during.net-split"].Max != 7 {
		t.Errorf("kept %v, %v", kept, err)
	}
}

// TestCollectReasons compares what a person reads of collect stages that don't pass with testdata/collect.golden.
func TestCollectReasons(t *testing.T) {
	var got strings.Builder
	pushed := &pipelines.Elasticsearch{Index: "logs"}
	closed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":{"type":"security_exception","reason":"unable to authenticate user [me]"},"status":401}`)
	}))
	defer closed.Close()
	for _, c := range []struct {
		name    string
		collect pipelines.Collect
		address string
	}{
		{"one assertion", pipelines.Collect{Assert: []pipelines.Assertion{{Expr: "metrics.rtt_seconds.max < 2.0"}}}, ""},
		{"two of three", pipelines.Collect{Assert: []pipelines.Assertion{
			{Expr: "metrics.rtt_seconds.max < 2.0"}, {Expr: "metrics.rtt_seconds.count == 4"}, {Expr: "outcomes.eu.succeeded == 2"},
		}}, ""},
		{"a metric that nobody measured", pipelines.Collect{Assert: []pipelines.Assertion{{Expr: "metrics.rtt.max < 2.0"}}}, ""},
		{"no address", pipelines.Collect{Elasticsearch: pushed}, ""},
		{"a server that knows nobody", pipelines.Collect{Elasticsearch: pushed}, strings.Replace(closed.URL, "http://", "http://me:hunter2@", 1)},
		{"no address and an assertion", pipelines.Collect{Elasticsearch: pushed, Assert: []pipelines.Assertion{{Expr: "1 == 2"}}}, ""},
	} {
		b := newBench(t)
		b.activities.Elasticsearch.URL = c.address
		b.left()
		result := b.must("collect", collectInput(c.collect))
		reason := strings.ReplaceAll(result.Reason, string(b.folder), "RUN")
		reason = strings.ReplaceAll(reason, strings.TrimPrefix(closed.URL, "http://"), "SERVER")
		fmt.Fprintf(&got, "%s\n\t%s: %s\n", c.name, result.Verdict, reason)
	}
	golden.Compare(t, "testdata/collect.golden", got.String())
}

// TestRecord writes the record of a whole run and compares it with testdata/run.golden.json.
func TestRecord(t *testing.T) {
	b := newBench(t)
	b.left()
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	in := stage.Record{
		Run:      stage.Run{ID: "run-1", Ground: "local", Commit: "abc-dirty"},
		Pipeline: pipelines.Resolved{Name: "test", Digest: "d1", Seed: 7, Groups: input(runStage).Groups, Parameters: map[string]any{"peers": 3.0}},
		Status:   stage.StatusRunning, Started: started,
	}
	record := func() runs.Record {
		if _, err := b.env.ExecuteActivity(stage.ActivityRecord, in); err != nil {
			t.Fatal(err)
		}
		r, err := b.folder.ReadRecord()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := record(); r.Status != stage.StatusRunning || r.Metrics != nil || r.Groups != nil {
		t.Errorf("at its start: %+v", r)
	}
	b.must("collect", collectInput(pipelines.Collect{Assert: []pipelines.Assertion{{Expr: "metrics.rtt_seconds.max < 2.0"}}}))
	in.Results = collectInput(pipelines.Collect{}).Stages
	in.Results = append(in.Results, stage.Result{Stage: "gather", Kind: pipelines.KindCollect, Verdict: stage.Failed, Assertions: []stage.Assertion{{Expr: "x"}}})
	in.Status, in.Verdict, in.Reason, in.Ended = stage.StatusEnded, stage.Failed, `failed: stage "gather"`, started.Add(90*time.Second)
	r := record()
	record() // tried again
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/run.golden.json", string(data)+"\n")
	if n := strings.Count(b.events(), "run-ended: the run ended: failed: stage \"gather\"\n"); n != 1 {
		t.Errorf("the end was noted %d times:\n%s", n, b.events())
	}
	resolved, err := b.folder.ReadPipeline()
	if err != nil || !reflect.DeepEqual(resolved, in.Pipeline) {
		t.Errorf("the pipeline is %+v, %v", resolved, err)
	}
}

func TestRecordOfABadID(t *testing.T) {
	b := newBench(t)
	_, err := b.env.ExecuteActivity(stage.ActivityRecord, stage.Record{Run: stage.Run{ID: "../../etc"}})
	var failed *temporal.ApplicationError
	if !errors.As(err, &failed) || !failed.NonRetryable() {
		t.Errorf("got %v", err)
	}
}

func TestEvaluateAndResolve(t *testing.T) {
	b := newBench(t)
	run := stage.Run{ID: "evaluated"}
	folder := b.activities.Home.Run(run.ID)
	if err := errors.Join(
		os.MkdirAll(filepath.Dir(folder.Stage("lookups")), 0o700),
		os.WriteFile(folder.Stage("lookups"), []byte(`{"group":"g","index":0,"stage":"lookups","attempt":"lookups-2","outcome":"crashed"}`+"\n"), 0o600),
		runs.WriteJSON(folder.Metrics(), map[string]pipelines.Summary{"lookup_seconds": {Count: 1, P95: 3}}),
	); err != nil {
		t.Fatal(err)
	}
	value, err := b.env.ExecuteActivity(stage.ActivityEvaluate, stage.Evaluate{
		Run:    run,
		Expr:   "stages.lookups.outcome == 'failed' && outcomes.g.crashed == 1 && metrics.lookup_seconds.p95 > 2.0",
		Groups: []pipelines.Group{{Name: "g", Instances: 1}},
		Stages: []stage.Result{{Stage: "lookups", Kind: pipelines.KindRun, Verdict: stage.Failed, Attempt: 2}},
	})
	var holds bool
	if err != nil || value.Get(&holds) != nil || !holds {
		t.Errorf("got %v, %v", holds, err)
	}
	for name, in := range map[string]any{
		stage.ActivityEvaluate: stage.Evaluate{Run: run, Expr: "1 +"},
		stage.ActivityResolve:  stage.Resolve{Bundle: pipelines.Bundle{File: "x.yaml", Files: map[string]string{"x.yaml": "pipeline: ["}}},
	} {
		_, err := b.env.ExecuteActivity(name, in)
		var failed *temporal.ApplicationError
		if !errors.As(err, &failed) || !failed.NonRetryable() || failed.Type() != TypeBadPipeline {
			t.Errorf("%s: got %v, want a final %s", name, err, TypeBadPipeline)
		}
	}
	file := "pipeline: tiny\nmatrix: {axes: {n: [1, 2]}}\ngroups:\n  g: {artifact: a, instances: =matrix.n}\nstages:\n  - build: {a: {executable: {path: bin/a}}}\n  - schedule: {}\n"
	value, err = b.env.ExecuteActivity(stage.ActivityResolve, stage.Resolve{
		Bundle: pipelines.Bundle{File: "x.yaml", Files: map[string]string{"x.yaml": file}}, Cell: map[string]any{"n": 2},
	})
	var resolved pipelines.Resolved
	if err != nil || value.Get(&resolved) != nil || resolved.Instances() != 2 {
		t.Errorf("got %+v, %v", resolved, err)
	}
}
