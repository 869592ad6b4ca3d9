package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// longestReason bounds what an activity may say, in bytes: it is carried in every later input.
const longestReason = 2000

// attempt carries the stage out once. Final means that another attempt would end the same way.
func (e *execution) attempt(ctx workflow.Context, s pipelines.Stage) (result stage.Result, final bool) {
	e.attempts[s.Name]++
	e.placed = e.placed || places(s.Kind)
	timeout := timeoutOf(s)
	started := workflow.Now(ctx)
	in := e.input(s, started.Add(timeout))
	e.show(s.Name, PhaseRunning, stage.Result{Attempt: in.Attempt, Started: started})
	e.mark(ctx, stage.StatusRunning, s.Name)

	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, stageOptions(e.in, timeout)), string(s.Kind), in).Get(ctx, &result)
	if outOfTime(err) && ctx.Err() == nil {
		result, err = e.lookAgain(ctx, in, err)
	}
	if err != nil {
		result = e.unanswered(ctx, s, err)
	}
	switch {
	case ctx.Err() != nil && result.Verdict != stage.Passed:
		result.Verdict = stage.Cancelled
		e.cutShort(true, "while stage %q was running", s.Name)
	case ctx.Err() == nil && result.Verdict == stage.Cancelled:
		result.Verdict = stage.Invalid
		result.Reason = "the activity was cancelled, though nobody cancelled the run: " + result.Reason
	}
	if err != nil && s.Kind == pipelines.KindRun && result.Verdict != stage.Cancelled {
		result.Reason += e.halt(ctx, in)
	}
	complete(&result, in, started, workflow.Now(ctx))
	return result, err != nil && !worthRetrying(err)
}

// input is what the stage's activity is asked. Results so far go to collect only: nobody else needs them, and in a long
// pipeline they would fill the history.
func (e *execution) input(s pipelines.Stage, deadline time.Time) stage.Input {
	p := e.in.Pipeline
	in := stage.Input{
		Run: e.in.Run, Pipeline: p.Name, Seed: p.Seed,
		Stage: s, Attempt: e.attempts[s.Name],
		Groups: p.Groups, Artifacts: e.artifacts,
		Parameters: p.Parameters, Cell: p.Cell, Env: p.Env,
		Deadline: deadline,
	}
	switch s.Kind {
	case pipelines.KindCollect:
		in.Stages = outlines(e.results)
	case pipelines.KindSchedule:
		in.Together = p.Together()
	}
	return in
}

// outlines are results without what no collect stage asks for: they stand in the history again with every one of those.
func outlines(results []stage.Result) []stage.Result {
	list := make([]stage.Result, len(results))
	for i, r := range results {
		list[i] = stage.Result{Stage: r.Stage, Kind: r.Kind, Verdict: r.Verdict, Attempt: r.Attempt, Started: r.Started, Ended: r.Ended}
	}
	return list
}

// lookAgain asks once more after an attempt's time was used up. When the worker was away for longer than the stage may
// take (a laptop asleep overnight), the instances have ended meanwhile, and the second look finds what they came to;
// when the activity hangs, it hangs again for no longer than Grace.
func (e *execution) lookAgain(ctx workflow.Context, in stage.Input, first error) (stage.Result, error) {
	var result stage.Result
	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, lookOptions(e.in)), string(in.Stage.Kind), in).Get(ctx, &result)
	if outOfTime(err) {
		err = first // the longer of the two says more
	}
	return result, err
}

// unanswered makes a result out of an activity's error: the ground's fault, since the subject said nothing.
func (e *execution) unanswered(ctx workflow.Context, s pipelines.Stage, err error) stage.Result {
	result := stage.Result{Verdict: stage.Invalid, Reason: explain(err)}
	switch {
	case ctx.Err() != nil:
		result.Reason = "the run was cancelled"
	case timedOut(err):
		result.Reason = fmt.Sprintf("no answer within %s: %s", timeoutOf(s)+Grace, result.Reason)
	}
	return result
}

// halt ends the instances of a run stage whose activity never answered, so that they don't run into the next attempt.
// What it returns is added to the reason.
func (e *execution) halt(ctx workflow.Context, in stage.Input) string {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	ctx = workflow.WithActivityOptions(ctx, housekeeping(e.in.Queue, haltTimeout, heartbeatTimeout(e.in)))
	if err := workflow.ExecuteActivity(ctx, stage.ActivityHalt, in).Get(ctx, nil); err != nil {
		return "; its instances could not be ended: " + explain(err)
	}
	return ""
}

// complete fills in what the workflow knows better than the activity, and refuses a verdict that no stage can have.
func complete(r *stage.Result, in stage.Input, started, ended time.Time) {
	r.Stage, r.Kind, r.Attempt = in.Stage.Name, in.Stage.Kind, in.Attempt
	if r.Started.IsZero() {
		r.Started = started
	}
	if r.Ended.IsZero() {
		r.Ended = ended
	}
	if !slices.Contains([]stage.Verdict{stage.Passed, stage.Failed, stage.Invalid, stage.Cancelled}, r.Verdict) {
		r.Reason = strings.TrimSuffix(fmt.Sprintf("the activity answered with %q, which is no verdict of a stage: %s", r.Verdict, r.Reason), ": ")
		r.Verdict = stage.Invalid
	}
	r.Reason = shorten(r.Reason, longestReason)
	r.Failing = r.Failing[:min(len(r.Failing), 10)]
}

// shorten cuts a text to so many bytes, at a whole character.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// timedOut says whether an activity was given up while it was silent or at work.
func timedOut(err error) bool {
	var timeout *temporal.TimeoutError
	return errors.As(err, &timeout)
}

// outOfTime says whether an activity was given up because no time was left, be it at work or between two tries: after an
// error, or when its worker was found dead.
func outOfTime(err error) bool {
	var activity *temporal.ActivityError
	return timedOut(err) || errors.As(err, &activity) && activity.RetryState() == enumspb.RETRY_STATE_TIMEOUT
}

// worthRetrying says whether an activity's error may be gone at another attempt of the stage.
func worthRetrying(err error) bool {
	var application *temporal.ApplicationError
	var panicked *temporal.PanicError
	if errors.As(err, &panicked) {
		return false
	}
	return !errors.As(err, &application) || !application.NonRetryable()
}

// explain says what an activity's error was, without the Temporal words around it.
func explain(err error) string {
	var panicked *temporal.PanicError
	var application *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	switch {
	case errors.As(err, &panicked):
		return "the activity panicked: " + panicked.Error()
	case errors.As(err, &timeout):
		return explainTimeout(timeout)
	case errors.As(err, &application):
		return application.Message()
	}
	var activity *temporal.ActivityError
	if errors.As(err, &activity) && activity.Unwrap() != nil {
		return activity.Unwrap().Error()
	}
	return err.Error()
}

func explainTimeout(t *temporal.TimeoutError) string {
	var text string
	switch t.TimeoutType() {
	case enumspb.TIMEOUT_TYPE_HEARTBEAT:
		text = "the worker was silent for too long"
	case enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START:
		text = "no worker took it up"
	default:
		text = "the worker did not finish it in time"
	}
	if cause := t.Unwrap(); cause != nil {
		text += " (" + explain(cause) + ")"
	}
	return text
}
