package activities

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/activities/stage"
)

// errWorkerStops ends the context of an attempt whose worker is on its way out.
var errWorkerStops = errors.New("the worker is stopping")

// TypeWorkerStops is the type of the application error that an activity returns because its worker is on its way out:
// the next attempt, by another worker, goes on with what is there.
const TypeWorkerStops = "WorkerStops"

// body carries out a stage: it returns what is known, or an error when nothing is.
type body func(ctx context.Context, report func(stage.Progress)) (stage.Result, error)

// attempt carries out one try of a stage's activity around work: it heartbeats what work reports, returns at once when
// the worker stops, and calls halt, when there is one, if somebody cancelled the stage.
//
// What the caller gets is one of
//   - a result with a verdict: what is known;
//   - a temporal.CanceledError: somebody cancelled it, and what it ran is gone;
//   - any other error: not known, try again. Whatever it had started goes on by itself.
func (a *Activities) attempt(ctx context.Context, in stage.Input, work body, halt func(context.Context) error) (stage.Result, error) {
	started := time.Now()
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopped := activity.GetWorkerStopChannel(ctx)
	unwatch := watch(stopped, func() { cancel(errWorkerStops) })
	defer unwatch()

	a.begins(ctx, in)
	heart := startHeart(ctx, in)
	result, err := work(inner, heart.report)
	heart.stop()
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		result, err = invalid("the disk is full: %v", err), nil
	}
	if err == nil {
		result = complete(result, in, started)
		a.ends(ctx, in, result)
		return result, nil
	}
	switch cause := context.Cause(inner); {
	case errors.Is(cause, errWorkerStops):
		return stage.Result{}, temporal.NewApplicationErrorWithOptions(errWorkerStops.Error(), TypeWorkerStops,
			temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign})
	case cause != nil && temporal.IsCanceledError(cause):
		return stage.Result{}, cancelled(ctx, halt)
	}
	return stage.Result{}, fmt.Errorf("stage %q: %w", in.Stage.Name, err)
}

// watch calls then once when stopped closes, unless the returned function came first.
func watch(stopped <-chan struct{}, then func()) (unwatch func()) {
	over := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-stopped:
			then()
		case <-over:
		}
	}()
	return func() { close(over); <-ended }
}

// haltWithin bounds halting what a cancelled stage runs.
const haltWithin = 30 * time.Second

// cancelled halts, and says that the stage was cancelled. The context is over by then, so that halting gets its own.
func cancelled(ctx context.Context, halt func(context.Context) error) error {
	if halt == nil {
		return temporal.NewCanceledError()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), haltWithin)
	defer cancel()
	if err := halt(ctx); err != nil {
		return temporal.NewCanceledError(fmt.Sprintf("halting what the stage ran: %v", err))
	}
	return temporal.NewCanceledError()
}

// complete fills in what every result has.
func complete(result stage.Result, in stage.Input, started time.Time) stage.Result {
	result.Stage, result.Kind, result.Attempt = in.Stage.Name, in.Stage.Kind, in.Attempt
	if result.Started.IsZero() {
		result.Started = started
	}
	if result.Ended.IsZero() {
		result.Ended = time.Now()
	}
	if result.Verdict == "" {
		result.Verdict, result.Reason = stage.Invalid, "the stage ended without a verdict: this is a fault of groundplan"
	}
	return result
}

// invalid is a result that says why the ground isn't fit.
func invalid(format string, args ...any) stage.Result {
	return stage.Result{Verdict: stage.Invalid, Reason: fmt.Sprintf(format, args...)}
}
