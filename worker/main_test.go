package worker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// The test binary is also the owner that tests kill, and a session of somebody else's owner: see kill_test.go.
func TestMain(m *testing.M) {
	if home := os.Getenv("WORKER_TEST_OWNER"); home != "" {
		os.Exit(beOwner(runs.Home(home)))
	}
	if home := os.Getenv("WORKER_TEST_GUEST"); home != "" {
		if err := beGuest(runs.Home(home)); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// acts are stand-ins for the activities. What a stage does is said by its name: `ok…`, `fail…`, `slow…` (until the file
// `go` is in the home), `stuck…` (until it is cancelled). Each start is a line in the home's starts.log.
type acts struct{ home runs.Home }

func (a acts) register(_ Config, r sdkworker.Registry) error {
	workflows.Register(r)
	for _, name := range []string{stage.ActivityBuild, stage.ActivitySchedule, stage.ActivityNetwork, stage.ActivityRun, stage.ActivityCollect} {
		r.RegisterActivityWithOptions(a.carryOut, activity.RegisterOptions{Name: name})
	}
	r.RegisterActivityWithOptions(func(context.Context, stage.Input) error { return nil }, activity.RegisterOptions{Name: stage.ActivityHalt})
	r.RegisterActivityWithOptions(func(context.Context, stage.Release) error { return nil }, activity.RegisterOptions{Name: stage.ActivityRelease})
	r.RegisterActivityWithOptions(a.take, activity.RegisterOptions{Name: stage.ActivityTake})
	r.RegisterActivityWithOptions(a.record, activity.RegisterOptions{Name: stage.ActivityRecord})
	r.RegisterActivityWithOptions(func(_ context.Context, in stage.Resolve) (pipelines.Resolved, error) {
		return pipeline(in.Cell["stages"].(string)), nil
	}, activity.RegisterOptions{Name: stage.ActivityResolve})
	return nil
}

func (a acts) record(_ context.Context, in stage.Record) error {
	folder := a.home.Run(in.Run.ID)
	if err := os.MkdirAll(string(folder), 0o700); err != nil {
		return err
	}
	return folder.WriteRecord(runs.Record{
		ID: in.Run.ID, Pipeline: in.Pipeline.Name, Status: in.Status, Verdict: in.Verdict, Reason: in.Reason,
		Started: in.Started, Ended: in.Ended, Stages: in.Results, Tries: in.Tries, Cells: in.Cells, Suite: in.Run.Suite,
	})
}

func (a acts) take(_ context.Context, in stage.Take) error {
	line := in.Run.ID + " taken:"
	for _, r := range in.Stages {
		line += " " + r.Stage
	}
	return a.append(line)
}

func (a acts) carryOut(ctx context.Context, in stage.Input) (stage.Result, error) {
	if err := a.note(ctx, in); err != nil {
		return stage.Result{}, err
	}
	result := stage.Result{Stage: in.Stage.Name, Kind: in.Stage.Kind, Verdict: stage.Passed, Attempt: in.Attempt, Started: time.Now()}
	kind, _, _ := strings.Cut(in.Stage.Name, "-")
	switch kind {
	case "fail":
		if _, err := os.Stat(filepath.Join(string(a.home), "mended")); err != nil {
			result.Verdict, result.Reason = stage.Failed, "it is not mended"
		}
	case "slow", "stuck":
		if err := a.wait(ctx, in, kind == "slow"); err != nil {
			return result, err
		}
	}
	result.Ended = time.Now()
	return result, nil
}

// wait heartbeats until the file `go` is there.
func (a acts) wait(ctx context.Context, in stage.Input, ends bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		activity.RecordHeartbeat(ctx, stage.Progress{Stage: in.Stage.Name, Attempt: in.Attempt, Total: 7, Running: 7})
		if _, err := os.Stat(filepath.Join(string(a.home), "go")); ends && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return fmt.Errorf("the worker is stopping")
		case <-tick.C:
		}
	}
}

func (a acts) note(ctx context.Context, in stage.Input) error {
	return a.append(fmt.Sprintf("%s %s %d %d", in.Run.ID, in.Stage.Name, in.Attempt, activity.GetInfo(ctx).Attempt))
}

func (a acts) append(line string) error {
	file, err := os.OpenFile(filepath.Join(string(a.home), "starts.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintln(file, line)
	return err
}

// starts gives the lines of starts.log of one run, without its id.
func starts(t *testing.T, home runs.Home, id string) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(string(home), "starts.log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // nothing has started yet
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), id+" "); ok {
			lines = append(lines, rest)
		}
	}
	return lines
}

func touch(t *testing.T, home runs.Home, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(home), name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pipeline is one of the stages named, separated by spaces. The kind is the last part of the name: `ok-build`.
func pipeline(stages string) pipelines.Resolved {
	p := pipelines.Resolved{
		Name: "test", Digest: "0", Seed: 1,
		Groups: []pipelines.Group{{Name: "all", Artifact: "peer", Instances: 1, Outcome: pipelines.OutcomeReport}},
	}
	before := ""
	for name := range strings.FieldsSeq(stages) {
		_, kind, _ := strings.Cut(name, "-")
		kind, _, _ = strings.Cut(kind, "-")
		s := pipelines.Stage{Name: name, Kind: pipelines.Kind(kind), OnFailure: pipelines.OnFailureAbort}
		if before != "" {
			s.Needs = []string{before}
		}
		switch s.Kind {
		case pipelines.KindBuild:
			s.Build = map[string]pipelines.Source{"peer": {Executable: &pipelines.ExecutableSource{Path: "peer"}}}
		case pipelines.KindSchedule:
			s.Schedule = &pipelines.Schedule{Groups: []string{"all"}}
		case pipelines.KindNetwork:
			s.Network = &pipelines.Network{Access: pipelines.AccessNone}
		case pipelines.KindRun:
			s.Run = &pipelines.Run{Groups: []string{"all"}, Case: "ok", Success: 1}
		case pipelines.KindCollect:
			s.Collect = &pipelines.Collect{Outputs: true}
		default:
			panic("the name of stage " + name + " names no kind")
		}
		p.Stages = append(p.Stages, s)
		before = name
	}
	return p
}

const five = "ok-build ok-schedule ok-network ok-run ok-collect"

func testConfig(home runs.Home) Config {
	level := slog.LevelWarn
	if flag.Parsed() && testing.Verbose() { // not parsed: it is one of the processes that tests start
		level = slog.LevelInfo
	}
	return Config{
		Home: home, Register: acts{home}.register,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}
}

func openSession(t testing.TB, config Config) *Session {
	t.Helper()
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSession(t, s) })
	return s
}

// closeSession closes a session and waits until all of it is gone, so that the folder can be removed.
func closeSession(t testing.TB, s *Session) {
	t.Helper()
	s.mu.Lock()
	o := s.owned
	s.mu.Unlock()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if o != nil {
		<-o.gone
	}
}

func start(t testing.TB, s *Session, id, stages string) *Handle {
	t.Helper()
	h, err := s.Start(t.Context(), StartOptions{Run: stage.Run{ID: id, Ground: GroundLocal, Root: "/"}, Pipeline: pipeline(stages)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func wait(t testing.TB, h *Handle) workflows.Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	output, err := h.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// until polls, since what it waits for happens in another process or goroutine that can't tell.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("waited two minutes in vain until %s", what)
}
