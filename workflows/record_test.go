//go:build record

package workflows

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

var (
	record = flag.String("record", "", "record the histories anew on the Temporal server at this address (see workflows/histories)")
	token  = flag.String("token", "", "bearer token for -record")
)

// TestRecordHistories plays the stories of testdata/histories on a real server and keeps their histories.
func TestRecordHistories(t *testing.T) {
	paths, err := filepath.Glob("testdata/histories/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories to record: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			t.Parallel()
			_, s := readStory(t, path)
			newRecording(t, path, s).record()
		})
	}
}

// recording is one story on a real server. Each has a task queue of its own, and run ids that begin with its name.
type recording struct {
	t    *testing.T
	name string
	s    story
	c    client.Client

	lock    sync.Mutex
	answers []answer
}

type bearer string

func (b bearer) GetHeaders(context.Context) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func newRecording(t *testing.T, path string, s story) *recording {
	c, err := client.Dial(client.Options{HostPort: *record, Identity: "recorder", HeadersProvider: bearer(*token), Logger: silent()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := &recording{t: t, name: strings.TrimSuffix(path, ".txt"), s: s, c: c}
	id := filepath.Base(r.name)
	for _, a := range s.answers {
		a.call = strings.Replace(a.call, testRun.ID+".", id+".", 1)
		a.call = strings.Replace(a.call, testSuite+".", id+".", 1)
		r.answers = append(r.answers, a)
	}
	r.s.in.Run.ID = id
	if s.matrix != nil {
		r.s.matrix.Run.ID = id
	}
	if s.suite != nil {
		r.s.suite.Suite.Name = id
	}
	return r
}

func (r *recording) record() {
	queue := "record-" + r.s.in.Run.ID
	w := worker.New(r.c, queue, worker.Options{
		DefaultHeartbeatThrottleInterval: 200 * time.Millisecond, MaxHeartbeatThrottleInterval: 200 * time.Millisecond,
		DisableRegistrationAliasing: true,
	})
	Register(w)
	r.register(w)
	if err := w.Start(); err != nil {
		r.t.Fatal(err)
	}
	defer w.Stop()
	name, input := WorkflowPipeline, any(r.s.in)
	if r.s.matrix != nil {
		name, input = WorkflowMatrix, *r.s.matrix
	}
	if r.s.suite != nil {
		name, input = WorkflowSuite, *r.s.suite
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	defer cancel()
	run, err := r.c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: r.s.in.Run.ID, TaskQueue: queue}, name, input)
	if err != nil {
		r.t.Fatal(err)
	}
	began := time.Now()
	for _, a := range r.s.actions {
		time.Sleep(a.at - time.Since(began))
		r.act(ctx, a)
	}
	var out Output
	err = run.Get(ctx, &out)
	if carried, ok := OutputOf(err); ok {
		out, err = carried, nil
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("%s (after %s)", out.Reason, time.Since(began).Round(10*time.Millisecond))
	r.save(ctx, run.GetID(), run.GetRunID(), r.name+".json")
	for _, cell := range out.Cells {
		if cell.Verdict == stage.Failed { // one child is enough
			r.save(ctx, cell.Run, "", r.name+"-cell.json")
		}
	}
}

func (r *recording) act(ctx context.Context, a action) {
	id := r.s.in.Run.ID
	if a.words[0] == "cancel" {
		if err := r.c.CancelWorkflow(ctx, id, ""); err != nil {
			r.t.Error(err)
		}
		return
	}
	d := Decision{Action: a.words[1]}
	if len(a.words) > 2 {
		d.Stage = a.words[2]
	}
	// A slow machine may not hold yet: a decision that comes too early is refused.
	for try := 0; ; try++ {
		update, err := r.c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
			WorkflowID: id, UpdateName: UpdateDecide, Args: []any{d}, WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if err == nil {
			err = update.Get(ctx, nil)
		}
		if err == nil {
			return
		}
		if try == 100 {
			r.t.Fatalf("%v: %v", a.words, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (r *recording) save(ctx context.Context, id, run, path string) {
	h := &historypb.History{}
	events := r.c.GetWorkflowHistory(ctx, id, run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		h.Events = append(h.Events, event)
	}
	text, err := (temporalproto.CustomJSONMarshalOptions{Indent: " "}).Marshal(h)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("%s: %d events, %d bytes", id, len(h.Events), len(text))
	if err := os.WriteFile(path, append(bytes.TrimSpace(anonymous(text)), '\n'), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

var (
	stackTrace  = regexp.MustCompile(`("stackTrace": )"(\\.|[^"\\])*"`)
	stickyQueue = regexp.MustCompile(`("name": ")[^":]*(:[0-9a-f-]{36}")`)
)

// anonymous takes out of a history what says on which machine it was recorded.
func anonymous(history []byte) []byte {
	history = stackTrace.ReplaceAll(history, []byte(`${1}""`))
	return stickyQueue.ReplaceAll(history, []byte(`${1}recorder${2}`))
}

func (r *recording) register(w worker.Worker) {
	register := func(name string, fn any) { w.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: name}) }
	for _, kind := range []string{stage.ActivityBuild, stage.ActivitySchedule, stage.ActivityNetwork, stage.ActivityRun, stage.ActivityCollect} {
		register(kind, r.stage)
	}
	register(stage.ActivityHalt, func(context.Context, stage.Input) error { return nil })
	register(stage.ActivityRelease, func(context.Context, stage.Release) error { return nil })
	register(stage.ActivityRecord, func(context.Context, stage.Record) error { return nil })
	register(stage.ActivityResolve, func(context.Context, stage.Resolve) (pipelines.Resolved, error) { return r.s.in.Pipeline, nil })
	register(stage.ActivityEvaluate, evaluate)
	suiteActivities(register, r.s.in.Pipeline)
}

// stage answers as the story says, heartbeating until then.
func (r *recording) stage(ctx context.Context, in stage.Input) (stage.Result, error) {
	a := r.next(in)
	for end := time.Now().Add(a.takes); time.Until(end) > 0; {
		activity.RecordHeartbeat(ctx, stage.Progress{Stage: in.Stage.Name, Attempt: in.Attempt})
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return stage.Result{}, ctx.Err()
			}
			<-time.After(100 * time.Millisecond) // its time is used up: the server says so
			return stage.Result{}, ctx.Err()
		case <-time.After(min(100*time.Millisecond, time.Until(end))):
		}
	}
	return reply(a, in)
}

func (r *recording) next(in stage.Input) answer {
	r.lock.Lock()
	defer r.lock.Unlock()
	i := slices.IndexFunc(r.answers, func(a answer) bool { return a.call == in.Stage.Name || a.call == in.Run.ID+"/"+in.Stage.Name })
	if i < 0 {
		return answer{what: "passed"}
	}
	a := r.answers[i]
	r.answers = slices.Delete(r.answers, i, i+1)
	return a
}
