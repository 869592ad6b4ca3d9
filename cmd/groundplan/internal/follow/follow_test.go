package follow

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/progress"
	"github.com/groundplan/groundplan/workflows"
)

// fakeRun does what a test tells it.
type fakeRun struct {
	mu        sync.Mutex
	state     workflows.State
	reports   []stage.Progress
	stateErr  error
	cancelErr error
	cancelled int
	end       chan result
}

func newFakeRun() *fakeRun {
	return &fakeRun{end: make(chan result, 1), state: workflows.State{
		Status: stage.StatusRunning, Stages: []workflows.StageState{{Name: "build", Phase: "running", Attempt: 1}},
	}}
}

func (r *fakeRun) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *fakeRun) State(context.Context) (workflows.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.stateErr
}

func (r *fakeRun) Progress(context.Context) ([]stage.Progress, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reports, nil
}

func (r *fakeRun) Wait(ctx context.Context) (workflows.Output, error) {
	select {
	case res := <-r.end:
		return res.output, res.err
	case <-ctx.Done():
		return workflows.Output{}, ctx.Err()
	}
}

func (r *fakeRun) Cancel(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancelled++
	if r.cancelErr == nil {
		r.end <- result{output: workflows.Output{Verdict: stage.Cancelled}}
	}
	return r.cancelErr
}

// fakeView remembers.
type fakeView struct {
	mu     sync.Mutex
	frames []progress.Frame
	said   []string
	closed bool
	shown  chan progress.Frame
}

func newFakeView() *fakeView { return &fakeView{shown: make(chan progress.Frame, 1000)} }

func (v *fakeView) Show(f progress.Frame) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.frames = append(v.frames, f)
	select {
	case v.shown <- f:
	default:
	}
}

func (v *fakeView) Say(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.said = append(v.said, text)
}

func (v *fakeView) Close() { v.closed = true }

func options(interrupts <-chan struct{}) Options {
	return Options{
		ID: "r-1", Pipeline: "p", Every: time.Millisecond, Interrupts: interrupts, Leaving: "leaving",
		Holding: func(h workflows.Holding) string { return "holds at " + h.Stage },
	}
}

func TestEnds(t *testing.T) {
	defer goleak.VerifyNone(t)
	run, view := newFakeRun(), newFakeView()
	run.end <- result{output: workflows.Output{Verdict: stage.Failed, Results: []stage.Result{
		{Stage: "build", Verdict: stage.Passed, Attempt: 1}, {Stage: "go", Verdict: stage.Failed, Attempt: 2, Reason: "boom"},
	}}}
	ending, err := Follow(t.Context(), run, view, options(nil))
	if err != nil || ending.Output == nil || ending.Output.Verdict != stage.Failed {
		t.Fatalf("%+v, %v", ending, err)
	}
	// Though nothing may have been polled, the last frame shows how every stage ended.
	last := view.frames[len(view.frames)-1].State.Stages
	i := slices.IndexFunc(last, func(s workflows.StageState) bool { return s.Name == "go" })
	if i < 0 || last[i].Phase != "ended" || last[i].Reason != "boom" || last[i].Attempt != 2 {
		t.Errorf("%+v", last)
	}
	if !view.closed {
		t.Error("the view is left open")
	}
}

func TestWaitFails(t *testing.T) {
	defer goleak.VerifyNone(t)
	run := newFakeRun()
	broken := errors.New("services are gone")
	run.end <- result{err: broken}
	if _, err := Follow(t.Context(), run, newFakeView(), options(nil)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestKeepsWhatItKnowsWhileTheStateIsAway(t *testing.T) {
	defer goleak.VerifyNone(t)
	run, view := newFakeRun(), newFakeView()
	run.reports = []stage.Progress{{Stage: "build", Attempt: 1, Note: "compiling"}}
	done := make(chan error, 1)
	go func() {
		_, err := Follow(t.Context(), run, view, options(nil))
		done <- err
	}()
	<-view.shown
	run.set(func() { run.reports = nil })
	for range 3 {
		f := <-view.shown
		if len(f.Progress) != 1 || f.Progress[0].Note != "compiling" {
			t.Errorf("progress is %v", f.Progress)
		}
	}
	run.set(func() { run.stateErr = errors.New("away") })
	time.Sleep(5 * time.Millisecond)
	run.end <- result{}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestInterruptCancels(t *testing.T) {
	defer goleak.VerifyNone(t)
	run, view, interrupts := newFakeRun(), newFakeView(), make(chan struct{}, 2)
	interrupts <- struct{}{}
	ending, err := Follow(t.Context(), run, view, options(interrupts))
	if err != nil || ending.Output == nil || ending.Output.Verdict != stage.Cancelled || run.cancelled != 1 {
		t.Fatalf("%+v, %v, cancelled %d times", ending, err, run.cancelled)
	}
	if len(view.said) == 0 {
		t.Error("nothing was said")
	}
}

func TestSecondInterruptLeaves(t *testing.T) {
	defer goleak.VerifyNone(t)
	run, view, interrupts := newFakeRun(), newFakeView(), make(chan struct{}, 2)
	run.cancelErr = errors.New("refused")
	interrupts <- struct{}{}
	interrupts <- struct{}{}
	ending, err := Follow(t.Context(), run, view, options(interrupts))
	if err != nil || !ending.Left {
		t.Fatalf("%+v, %v", ending, err)
	}
	if view.said[len(view.said)-1] != "leaving" {
		t.Errorf("said %q", view.said)
	}
}

func TestLooking(t *testing.T) {
	defer goleak.VerifyNone(t)
	run, interrupts := newFakeRun(), make(chan struct{}, 1)
	interrupts <- struct{}{}
	o := options(interrupts)
	o.LeaveOnInterrupt = true
	ending, err := Follow(t.Context(), run, newFakeView(), o)
	if err != nil || !ending.Left || run.cancelled != 0 {
		t.Errorf("%+v, %v, cancelled %d times", ending, err, run.cancelled)
	}
}

func TestHold(t *testing.T) {
	holding := &workflows.Holding{Stage: "go", Reason: "boom", Until: time.Now().Add(time.Hour)}
	t.Run("leaves", func(t *testing.T) {
		defer goleak.VerifyNone(t)
		run := newFakeRun()
		run.state.Status, run.state.Holding = stage.StatusHolding, holding
		o := options(nil)
		o.LeaveOnHold = true
		ending, err := Follow(t.Context(), run, newFakeView(), o)
		if err != nil || ending.Held == nil || ending.Held.Stage != "go" {
			t.Errorf("%+v, %v", ending, err)
		}
	})
	t.Run("is waited through and said once", func(t *testing.T) {
		defer goleak.VerifyNone(t)
		run, view := newFakeRun(), newFakeView()
		run.state.Holding = holding
		done := make(chan Ending, 1)
		go func() {
			ending, _ := Follow(t.Context(), run, view, options(nil))
			done <- ending
		}()
		for range 5 {
			<-view.shown
		}
		run.set(func() { run.state.Holding = nil })
		run.end <- result{output: workflows.Output{Verdict: stage.Passed}}
		if ending := <-done; ending.Output == nil {
			t.Errorf("%+v", ending)
		}
		if !slices.Equal(view.said, []string{"holds at go"}) {
			t.Errorf("said %q", view.said)
		}
	})
}

func TestContext(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Follow(ctx, newFakeRun(), newFakeView(), options(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
