package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// RunPipeline carries one resolved pipeline through.
//
// Order. A stage's turn comes once all it needs have ended; stages with no path between them run side by side.
//
// Who runs. As in GitHub Actions, a stage without `when` runs unless the run has been aborted: a need that was skipped
// by its own `when`, or whose failure was set aside by `continue` or a decision to skip, does not keep it back. A `when`
// that looks at `stages`, or is just `true`, decides alone, also after an abort (so that a collect stage can save the
// outputs of a failed run). Any other `when` is asked only where a stage without one would run.
//
// Verdict. The first stage, in the order in which they ended, whose newest attempt did not pass gives the run its
// verdict: what ended later may be a consequence. A run that was cancelled before its stages had ended is cancelled.
//
// Failure. A stage's invalid attempts are retried as `retry` says, failed ones only with `on: [failed]`. Then
// `onFailure` decides: abort (nothing but a `when` that decides alone begins any more; what runs side by side ends by
// itself), continue, or hold: the placement stays, and the run waits for UpdateDecide until holdFor is over, and then
// aborts. One stage holds at a time.
//
// History. A long run continues as new between stages, when the server suggests it, so that its history stays far below
// the limit at which it would be terminated without releasing anything.
//
// End. Whatever happens, the placement is released and the record written before the workflow closes. A cancelled run
// closes as Canceled, with its Output as the details of the error (see OutputOf); every other one as Completed.
func RunPipeline(ctx workflow.Context, in Input) (Output, error) {
	e := newExecution(ctx, in)
	if err := e.answer(ctx); err != nil {
		return Output{}, err
	}
	if err := check(in); err != nil {
		return e.end(ctx, stage.Invalid, "invalid: "+err.Error())
	}
	e.recordStart(ctx)
	if err := e.takeOver(ctx); err != nil {
		return e.end(ctx, stage.Invalid, fmt.Sprintf("invalid: what run %s came to could not be taken over: %s", in.Run.From, explain(err)))
	}
	e.runStages(ctx)
	if e.cut && ctx.Err() == nil {
		_ = e.recording.Get(ctx, nil) // the next execution writes it again
		return Output{}, workflow.NewContinueAsNewError(ctx, WorkflowPipeline, e.next())
	}
	e.skipRest(ctx)
	verdict, reason := e.verdict()
	return e.end(ctx, verdict, reason)
}

// OutputOf returns what a cancelled run came to, from the error that its workflow closed with; false when err is
// something else, or the run was ended before it could say.
func OutputOf(err error) (Output, bool) {
	var cancelled *temporal.CanceledError
	var out Output
	if !errors.As(err, &cancelled) || !cancelled.HasDetails() || cancelled.Details(&out) != nil {
		return Output{}, false
	}
	return out, true
}

// execution is one run being carried through. Its coroutines take turns, so that nothing in it needs a lock.
type execution struct {
	in    Input
	state State
	row   map[string]int // stage → its place in state.Stages

	results   []stage.Result // the newest attempt of each stage, in the order in which they ended
	tries     []stage.Result // the attempts before those
	artifacts map[string]stage.Artifact
	attempts  map[string]int // stage → the number of its newest attempt

	awaits    map[string][]string // stage → the stages that end before its turn comes
	begun     bool                // a stage had its turn in this execution
	cut       bool                // the history is long: no stage begins any more in this execution
	started   time.Time
	aborted   string // the stage that aborted the run
	cancelled string // what cancelling the run cut short, as the end of a sentence
	underway  bool   // that was something under way, not only waiting for its turn
	placed    bool   // something may be placed
	decision  string // what was decided about the stage that holds, until it is taken up
	recording workflow.Future
	marked    map[string]string // search attribute → value
}

func newExecution(ctx workflow.Context, in Input) *execution {
	e := &execution{
		in:        in,
		state:     State{Status: stage.StatusRunning},
		row:       map[string]int{},
		artifacts: map[string]stage.Artifact{},
		attempts:  map[string]int{},
		marked:    map[string]string{},
		started:   in.Started,
	}
	if e.started.IsZero() {
		e.started = workflow.Now(ctx)
	}
	for i, s := range in.Pipeline.Stages {
		e.row[s.Name] = i
		e.state.Stages = append(e.state.Stages, StageState{Name: s.Name, Kind: s.Kind, Phase: PhasePending})
	}
	e.takeEarlier(workflow.GetInfo(ctx).ContinuedExecutionRunID != "")
	e.awaits = awaits(in.Pipeline.Stages, e.ended)
	return e
}

// takeEarlier takes over what an earlier execution of the run came to; continued: that one has not ended the run, but
// handed it on.
func (e *execution) takeEarlier(continued bool) {
	if continued {
		e.aborted = e.in.Aborted
	}
	for _, t := range e.in.Tries {
		e.attempts[t.Stage] = max(e.attempts[t.Stage], t.Attempt)
	}
	held := map[string]int{}
	for _, r := range e.in.Earlier {
		e.attempts[r.Stage] = max(e.attempts[r.Stage], r.Attempt)
		undone := r.Verdict == stage.Cancelled || r.Verdict == stage.Skipped && !continued
		if _, known := e.row[r.Stage]; !known || undone {
			continue // nothing was done, so nothing holds: its turn comes again
		}
		held[r.Stage] = r.Attempt
		e.keep(r)
		e.show(r.Stage, PhaseEnded, r)
		e.placed = e.placed || places(r.Kind)
	}
	for _, t := range e.in.Tries {
		if held[t.Stage] != t.Attempt || t.Attempt == 0 {
			e.tries = append(e.tries, t)
		}
	}
}

// runStages returns when every stage has ended.
func (e *execution) runStages(ctx workflow.Context) {
	all := workflow.NewWaitGroup(ctx)
	for _, s := range e.in.Pipeline.Stages {
		if e.ended(s.Name) {
			continue
		}
		all.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer all.Done()
			e.carryOut(ctx, s)
		})
	}
	all.Wait(ctx)
}

// carryOut takes one stage from waiting for its turn to its end.
func (e *execution) carryOut(ctx workflow.Context, s pipelines.Stage) {
	turn := func() bool {
		return e.cut || !slices.ContainsFunc(e.awaits[s.Name], func(need string) bool { return !e.ended(need) })
	}
	if err := workflow.Await(ctx, turn); err != nil {
		e.skip(ctx, s, "the run was cancelled")
		return
	}
	e.cut = e.cut || e.begun && workflow.GetInfo(ctx).GetContinueAsNewSuggested()
	if e.cut {
		return
	}
	e.begun = true
	for {
		result := e.takeTurn(ctx, s)
		if e.goesOn(ctx, s, result) {
			e.show(s.Name, PhaseEnded, result)
			return
		}
	}
}

// takeTurn decides whether the stage runs, and runs it until it passed or its retries are used up.
func (e *execution) takeTurn(ctx workflow.Context, s pipelines.Stage) stage.Result {
	why, err := e.keptBack(ctx, s)
	switch {
	case ctx.Err() != nil:
		return e.skip(ctx, s, "the run was cancelled")
	case err != nil:
		now := workflow.Now(ctx)
		result := stage.Result{Stage: s.Name, Kind: s.Kind, Verdict: stage.Invalid, Attempt: e.attempts[s.Name], Started: now, Ended: now,
			Reason: fmt.Sprintf("`when: %s` could not be evaluated: %s", s.When, explain(err))}
		e.keep(result)
		return result
	case why != "":
		return e.skip(ctx, s, why)
	}
	for try := 1; ; try++ {
		result, final := e.attempt(ctx, s)
		e.keep(result)
		if final || try >= s.Retry.Attempts || !retried(s.Retry, result.Verdict) {
			return result
		}
		e.show(s.Name, PhaseBackoff, result)
		if err := workflow.Sleep(ctx, backoff(s.Retry, try)); err != nil {
			e.cutShort(true, "while stage %q waited to be tried again", s.Name)
			return result
		}
	}
}

// goesOn says whether the stage has ended for good; false: it was decided to run it again.
func (e *execution) goesOn(ctx workflow.Context, s pipelines.Stage, result stage.Result) bool {
	if result.Verdict != stage.Failed && result.Verdict != stage.Invalid || e.cancelled != "" {
		return true
	}
	switch s.OnFailure {
	case pipelines.OnFailureContinue:
		return true
	case pipelines.OnFailureHold:
		switch e.hold(ctx, s, result) {
		case DecideRetry:
			return false
		case DecideSkip:
			return true
		}
	}
	if e.aborted == "" {
		e.aborted = s.Name
	}
	return true
}

// skip ends a stage that doesn't run.
func (e *execution) skip(ctx workflow.Context, s pipelines.Stage, why string) stage.Result {
	if ctx.Err() != nil {
		e.cutShort(false, "before stage %q began", s.Name)
	}
	now := workflow.Now(ctx)
	result := stage.Result{Stage: s.Name, Kind: s.Kind, Verdict: stage.Skipped, Reason: why, Started: now, Ended: now}
	e.keep(result)
	e.show(s.Name, PhaseEnded, result)
	return result
}

// keep makes result the stage's newest; the one before becomes a try.
func (e *execution) keep(result stage.Result) {
	for i, r := range e.results {
		if r.Stage == result.Stage {
			e.tries = append(e.tries, r)
			e.results = append(e.results[:i:i], e.results[i+1:]...)
			break
		}
	}
	e.results = append(e.results, result)
	for _, name := range workflow.DeterministicKeys(result.Artifacts) {
		e.artifacts[name] = result.Artifacts[name]
	}
}

// cutShort notes what cancelling the run ended: the first that was under way, else the first that waited for its turn.
func (e *execution) cutShort(underway bool, what, stageName string) {
	if e.cancelled == "" || underway && !e.underway {
		e.cancelled, e.underway = fmt.Sprintf(what, stageName), underway
	}
}

func (e *execution) ended(name string) bool {
	return e.state.Stages[e.row[name]].Phase == PhaseEnded
}

// places says whether a stage of that kind leaves something that has to be released.
func places(k pipelines.Kind) bool {
	return k == pipelines.KindSchedule || k == pipelines.KindNetwork || k == pipelines.KindRun
}
