// Package follow stays with a run until it has ended, showing it and passing on what the person decides meanwhile.
package follow

import (
	"context"
	"fmt"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/progress"
	"github.com/groundplan/groundplan/workflows"
)

// Run is a run that may be under way.
type Run interface {
	State(ctx context.Context) (workflows.State, error)
	Progress(ctx context.Context) ([]stage.Progress, error)
	// Wait returns when the run has ended.
	Wait(ctx context.Context) (workflows.Output, error)
	Cancel(ctx context.Context) error
}

// Options say how a run is followed.
type Options struct {
	// ID and Pipeline name the run; Started is when it began.
	ID, Pipeline string
	Started      time.Time
	// Every is how often the run is asked for its state, Redraw how often it is shown (0: whenever it was asked).
	Every, Redraw time.Duration
	// Interrupts delivers the person's wish to end the run. The first cancels it, the second leaves at once; with
	// LeaveOnInterrupt the first leaves.
	Interrupts       <-chan struct{}
	LeaveOnInterrupt bool
	// LeaveOnHold returns as soon as the run holds; without it the hold is announced and waited through.
	LeaveOnHold bool
	// Leaving is said when an interrupt makes Follow leave, Holding when the run holds.
	Leaving string
	Holding func(workflows.Holding) string
}

// Ending is why Follow returned: exactly one of Output, Held and Left is set.
type Ending struct {
	Output *workflows.Output
	Held   *workflows.Holding
	// Stages is where the stages stood when the run was left to its hold.
	Stages []workflows.StageState
	// Left says that the person left at once: the run goes on, or can be resumed.
	Left bool
}

// Follow shows a run in view until it ended, holds (see Options.LeaveOnHold) or the person leaves. It closes view. An
// error means that the run's end could not be learned.
func Follow(ctx context.Context, run Run, view progress.View, o Options) (Ending, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer view.Close()
	f := &follower{
		run: run, view: view, o: o,
		frame:     progress.Frame{Run: o.ID, Pipeline: o.Pipeline, Started: o.Started},
		frames:    make(chan progress.Frame),
		ended:     make(chan result, 1),
		cancelled: make(chan error, 1),
	}
	go f.wait(ctx)
	go f.poll(ctx)
	return f.loop(ctx)
}

type follower struct {
	run       Run
	view      progress.View
	o         Options
	frame     progress.Frame // the newest
	frames    chan progress.Frame
	ended     chan result
	cancelled chan error
	asked     int // interrupts so far
	held      *workflows.Holding
}

type result struct {
	output workflows.Output
	err    error
}

// wait blocks until the run has ended: nothing is lost between its end and the next poll.
func (f *follower) wait(ctx context.Context) {
	output, err := f.run.Wait(ctx)
	f.ended <- result{output, err}
}

// poll asks for the state again and again. A failed try shows nothing new: services may be on their way back, and wait
// tells when they can't be reached for good.
func (f *follower) poll(ctx context.Context) {
	ticker := time.NewTicker(f.o.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		state, err := f.run.State(ctx)
		if err != nil {
			continue
		}
		reports, err := f.run.Progress(ctx)
		if err != nil {
			reports = nil
		}
		select {
		case <-ctx.Done():
			return
		case f.frames <- progress.Frame{State: state, Progress: reports}:
		}
	}
}

func (f *follower) loop(ctx context.Context) (Ending, error) {
	var redraw <-chan time.Time
	if f.o.Redraw > 0 {
		ticker := time.NewTicker(f.o.Redraw)
		defer ticker.Stop()
		redraw = ticker.C
	}
	for {
		select {
		case r := <-f.ended:
			return f.end(r)
		case fresh := <-f.frames:
			if f.take(fresh) {
				return Ending{Held: f.held, Stages: f.frame.State.Stages}, nil
			}
		case <-redraw:
			f.show()
		case _, open := <-f.o.Interrupts:
			if !open {
				f.o.Interrupts = nil
				continue
			}
			if f.interrupt(ctx) {
				return Ending{Left: true}, nil
			}
		case err := <-f.cancelled:
			if err != nil {
				f.view.Say(fmt.Sprintf("The run could not be cancelled: %v. Press Ctrl-C to leave it.", err))
			}
		case <-ctx.Done():
			return Ending{}, context.Cause(ctx)
		}
	}
}

// take makes a frame the newest one and tells whether to leave because the run holds.
func (f *follower) take(fresh progress.Frame) bool {
	f.frame.State = fresh.State
	f.frame.Progress = merge(f.frame.Progress, fresh.Progress)
	f.show()
	holding := fresh.State.Holding
	if holding == nil {
		f.held = nil
		return false
	}
	news := f.held == nil || *f.held != *holding
	f.held = holding
	if f.o.LeaveOnHold {
		return true
	}
	if news && f.o.Holding != nil {
		f.view.Say(f.o.Holding(*holding))
	}
	return false
}

func (f *follower) show() {
	f.frame.Now = time.Now()
	f.view.Show(f.frame)
}

// interrupt carries out one interrupt and tells whether to leave.
func (f *follower) interrupt(ctx context.Context) bool {
	f.asked++
	if f.asked > 1 || f.o.LeaveOnInterrupt {
		f.view.Say(f.o.Leaving)
		return true
	}
	f.view.Say("Cancelling: ending every instance and releasing the placement. Ctrl-C again leaves at once.")
	go func() { f.cancelled <- f.run.Cancel(ctx) }()
	return false
}

// end shows the last frame, made of the output, so that what happened since the last poll is told too.
func (f *follower) end(r result) (Ending, error) {
	if r.err != nil {
		return Ending{}, fmt.Errorf("waiting for run %s: %w", f.o.ID, r.err)
	}
	f.frame.State.Stages = merged(f.frame.State.Stages, r.output.Results)
	f.frame.State.Status, f.frame.State.Holding, f.frame.State.Output = stage.StatusEnded, nil, &r.output
	f.show()
	return Ending{Output: &r.output}, nil
}

// merge keeps what an earlier poll knew of a stage that reports nothing now: between two heartbeats of different
// attempts, or when the question came too early, nothing should flicker.
func merge(before, now []stage.Progress) []stage.Progress {
	out := append([]stage.Progress(nil), now...)
	known := map[string]bool{}
	for _, p := range now {
		known[p.Stage] = true
	}
	for _, p := range before {
		if !known[p.Stage] {
			out = append(out, p)
		}
	}
	return out
}

// merged brings the rows of stages up to the results they ended with.
func merged(rows []workflows.StageState, results []stage.Result) []workflows.StageState {
	out := append([]workflows.StageState(nil), rows...)
	at := map[string]int{}
	for i, s := range out {
		at[s.Name] = i
	}
	for _, r := range results {
		i, ok := at[r.Stage]
		if !ok {
			i = len(out)
			out = append(out, workflows.StageState{Name: r.Stage, Kind: r.Kind})
		}
		s := &out[i]
		s.Phase, s.Verdict, s.Reason = "ended", r.Verdict, r.Reason
		s.Attempt, s.Started, s.Ended = r.Attempt, r.Started, r.Ended
	}
	return out
}
