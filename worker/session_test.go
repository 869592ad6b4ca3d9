package worker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// One home and its owner serve all of these: each run has an id of its own.
func TestSession(t *testing.T) {
	home := runs.Home(t.TempDir())
	s := openSession(t, testConfig(home))
	if !s.Owner() || !s.Embedded() {
		t.Fatal("the first session of a home does not own embedded services")
	}
	for name, test := range map[string]func(*testing.T, *Session, runs.Home){
		"a run passes":               testPasses,
		"a run id is used once":      testIDs,
		"progress is the heartbeat":  testProgress,
		"a cancelled run":            testCancel,
		"a run ended by force":       testTerminated,
		"a run holds":                testHold,
		"unknown runs":               testUnknown,
		"a matrix":                   testMatrix,
		"a second session":           testSecond,
		"the list":                   testList,
		"resume of a failed run":     testResume,
		"resume from a stage":        testResumeFrom,
		"resume of a cancelled run":  testResumeCancelled,
		"resume that is not for now": testResumeRefused,
		"resume of a matrix":         testResumeMatrix,
		"a fork":                     testFork,
		"what may go":                testRetain,
	} {
		t.Run(name, func(t *testing.T) { test(t, s, home) })
	}
}

func testPasses(t *testing.T, s *Session, _ runs.Home) {
	output := wait(t, start(t, s, "passes", five))
	if output.Verdict != stage.Passed || len(output.Results) != 5 {
		t.Errorf("got %+v", output)
	}
	state, err := s.Run("passes").State(t.Context())
	if err != nil || state.Status != stage.StatusEnded || len(state.Stages) != 5 {
		t.Errorf("its state is %+v, %v", state, err)
	}
}

func testIDs(t *testing.T, s *Session, home runs.Home) {
	h := start(t, s, "twice", "stuck-run")
	again := StartOptions{Run: stage.Run{ID: "twice", Ground: GroundLocal}, Pipeline: pipeline(five)}
	if _, err := s.Start(t.Context(), again); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "groundplan watch twice") {
		t.Errorf("a run under way: %v", err)
	}
	if err := h.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, h)
	if _, err := s.Start(t.Context(), again); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "groundplan resume twice") {
		t.Errorf("a run that ended: %v", err)
	}
	// A run that only its folder tells of: the database is another one, or has forgotten it.
	if err := (acts{home}).record(t.Context(), stage.Record{Run: stage.Run{ID: "forgotten"}, Status: stage.StatusEnded}); err != nil {
		t.Fatal(err)
	}
	again.Run.ID = "forgotten"
	if _, err := s.Start(t.Context(), again); !errors.Is(err, ErrExists) {
		t.Errorf("a run that has a folder: %v", err)
	}
	if err := s.Run("forgotten").Resume(t.Context(), ""); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "90 days") {
		t.Errorf("resuming it: %v", err)
	}
}

func testProgress(t *testing.T, s *Session, _ runs.Home) {
	h := start(t, s, "progress", "ok-build stuck-run")
	var got []stage.Progress
	until(t, "the heartbeat is seen", func() bool {
		var err error
		if got, err = h.Progress(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(got) > 0
	})
	if want := (stage.Progress{Stage: "stuck-run", Attempt: 1, Total: 7, Running: 7}); !slices.Equal(got, []stage.Progress{want}) {
		t.Errorf("got %+v", got)
	}
	if err := h.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, h)
}

func testCancel(t *testing.T, s *Session, home runs.Home) {
	h := start(t, s, "cancelled", "ok-build stuck-run ok-collect")
	until(t, "the stage runs", func() bool { return len(starts(t, home, "cancelled")) == 2 })
	if err := h.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	output := wait(t, h)
	t.Logf("ended %v after it was cancelled", time.Since(began))
	if output.Verdict != stage.Cancelled || !slices.ContainsFunc(output.Results, func(r stage.Result) bool { return r.Stage == "ok-build" }) {
		t.Errorf("got %+v", output)
	}
}

func testTerminated(t *testing.T, s *Session, _ runs.Home) {
	h := start(t, s, "terminated", "stuck-run")
	if err := s.client.TerminateWorkflow(t.Context(), "terminated", "", "test"); err != nil {
		t.Fatal(err)
	}
	if output := wait(t, h); output.Verdict != stage.Cancelled || !strings.Contains(output.Reason, "force") {
		t.Errorf("got %+v", output)
	}
}

func testHold(t *testing.T, s *Session, home runs.Home) {
	p := pipeline("ok-schedule stuck-run")
	p.Stages[1].Name = "fail-run-held"
	p.Stages[1].OnFailure = pipelines.OnFailureHold
	h, err := s.Start(t.Context(), StartOptions{Run: stage.Run{ID: "holds", Ground: GroundLocal}, Pipeline: p})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it holds", func() bool {
		state, err := h.State(t.Context())
		return err == nil && state.Status == stage.StatusHolding
	})
	if err := h.Resume(t.Context(), ""); !errors.Is(err, ErrRunning) {
		t.Errorf("resuming a held run: %v", err)
	}
	if err := h.Decide(t.Context(), workflows.Decision{Action: "dance"}); err == nil {
		t.Error("an unknown decision was accepted")
	}
	if err := h.Decide(t.Context(), workflows.Decision{Action: workflows.DecideSkip}); err != nil {
		t.Fatal(err)
	}
	if output := wait(t, h); output.Verdict != stage.Failed {
		t.Errorf("got %+v", output)
	}
	if err := h.Decide(t.Context(), workflows.Decision{Action: workflows.DecideSkip}); err == nil {
		t.Error("a decision about a run that ended was accepted")
	}
}

func testUnknown(t *testing.T, s *Session, _ runs.Home) {
	h := s.Run("nobody")
	ctx := t.Context()
	_, state := h.State(ctx)
	_, progress := h.Progress(ctx)
	_, wait := h.Wait(ctx)
	for name, err := range map[string]error{
		"state": state, "progress": progress, "wait": wait,
		"cancel": h.Cancel(ctx), "decide": h.Decide(ctx, workflows.Decision{}), "resume": h.Resume(ctx, ""),
	} {
		if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func startMatrix(t *testing.T, s *Session, id string, cells ...string) *Handle {
	t.Helper()
	m := &Matrix{MaxParallel: 2}
	for _, stages := range cells {
		m.Cells = append(m.Cells, map[string]any{"stages": stages})
	}
	h, err := s.Start(t.Context(), StartOptions{Run: stage.Run{ID: id, Ground: GroundLocal}, Pipeline: pipeline(cells[0]), Matrix: m})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func testMatrix(t *testing.T, s *Session, _ runs.Home) {
	output := wait(t, startMatrix(t, s, "matrix", "ok-build", "fail-run", "ok-collect"))
	var verdicts []stage.Verdict
	for _, c := range output.Cells {
		verdicts = append(verdicts, c.Verdict)
	}
	if output.Verdict != stage.Failed || !slices.Equal(verdicts, []stage.Verdict{stage.Passed, stage.Failed, stage.Passed}) {
		t.Errorf("got %+v", output)
	}
}

func testSecond(t *testing.T, s *Session, home runs.Home) {
	began := time.Now()
	second := openSession(t, testConfig(home))
	t.Logf("opened in %v", time.Since(began))
	if second.Owner() {
		t.Error("there are two owners")
	}
	if second.Info() != s.Info() || second.Info().Temporal == "" || second.Info().PID == 0 {
		t.Errorf("one says %+v, the other %+v", s.Info(), second.Info())
	}
	if output := wait(t, start(t, second, "second", five)); output.Verdict != stage.Passed {
		t.Errorf("got %+v", output)
	}
	found, err := Find(t.Context(), testConfig(home))
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	if output := wait(t, found.Run("second")); output.Verdict != stage.Passed {
		t.Errorf("got %+v", output)
	}
}

func testList(t *testing.T, s *Session, home runs.Home) {
	wait(t, start(t, s, "list-passed", "ok-build"))
	wait(t, start(t, s, "list-failed", "fail-run"))
	wait(t, startMatrix(t, s, "list-matrix", "ok-build", "ok-build"))
	h := start(t, s, "list-running", "stuck-run")
	defer func() {
		if err := h.Cancel(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	ids := func(f Filter) []string {
		t.Helper()
		rows, err := s.List(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, r := range rows {
			if strings.HasPrefix(r.ID, "list-") {
				ids = append(ids, r.ID)
			}
		}
		slices.Sort(ids)
		return ids
	}
	all := []string{"list-failed", "list-matrix", "list-passed", "list-running"}
	until(t, "all runs are visible", func() bool { return slices.Equal(ids(Filter{}), all) })
	until(t, "the ended runs are seen to have ended", func() bool { return len(ids(Filter{Verdict: stage.Passed})) == 2 })
	for name, c := range map[string]struct {
		filter Filter
		want   []string
	}{
		"passed":         {Filter{Verdict: stage.Passed}, []string{"list-matrix", "list-passed"}},
		"failed":         {Filter{Verdict: stage.Failed}, []string{"list-failed"}},
		"running":        {Filter{Status: stage.StatusRunning}, []string{"list-running"}},
		"ended":          {Filter{Status: stage.StatusEnded}, []string{"list-failed", "list-matrix", "list-passed"}},
		"pipeline":       {Filter{Pipeline: "test"}, all},
		"other pipeline": {Filter{Pipeline: "other"}, nil},
		"cells":          {Filter{Cells: true, Verdict: stage.Passed}, []string{"list-matrix", "list-matrix.1", "list-matrix.2", "list-passed"}},
	} {
		if got := ids(c.filter); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	newest, err := s.List(t.Context(), Filter{Limit: 2})
	if err != nil || len(newest) != 2 || newest[0].Started.Before(newest[1].Started) {
		t.Errorf("the newest two are %+v, %v", newest, err)
	}
}
