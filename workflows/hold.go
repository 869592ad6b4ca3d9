package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// answer makes the run answer queries and updates, from its first moment to its last.
func (e *execution) answer(ctx workflow.Context) error {
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (State, error) { return e.state, nil }); err != nil {
		return fmt.Errorf("answering queries: %w", err)
	}
	err := workflow.SetUpdateHandlerWithOptions(ctx, UpdateDecide, e.decide, workflow.UpdateHandlerOptions{Validator: e.mayDecide})
	if err != nil {
		return fmt.Errorf("answering updates: %w", err)
	}
	return nil
}

// mayDecide refuses a decision that nothing waits for.
func (e *execution) mayDecide(_ workflow.Context, d Decision) error {
	holding := e.state.Holding
	switch {
	case holding == nil:
		return fmt.Errorf("run %s holds at no stage (it is %s), so there is nothing to decide", e.in.Run.ID, e.state.Status)
	case !slices.Contains([]string{DecideRetry, DecideSkip, DecideAbort}, d.Action):
		return fmt.Errorf("%q is no decision: it must be retry, skip or abort", d.Action)
	case d.Stage != "" && d.Stage != holding.Stage:
		return fmt.Errorf("run %s holds at stage %q, not at %q", e.in.Run.ID, holding.Stage, d.Stage)
	case e.decision != "":
		return fmt.Errorf("it was decided already to %s stage %q", e.decision, holding.Stage)
	}
	return nil
}

// decide takes a decision that mayDecide let through; it returns at once, the run goes on by itself.
func (e *execution) decide(_ workflow.Context, d Decision) error {
	e.decision = d.Action
	return nil
}

// hold keeps the placement and waits for a decision about a stage that did not pass. It answers with what was decided;
// DecideAbort when nobody did in time, or another stage aborted the run before this one's turn to hold came.
func (e *execution) hold(ctx workflow.Context, s pipelines.Stage, result stage.Result) string {
	e.show(s.Name, PhaseHolding, result)
	err := workflow.Await(ctx, func() bool { return e.state.Holding == nil })
	if err == nil && e.aborted != "" {
		return DecideAbort
	}
	if err == nil {
		err = e.awaitDecision(ctx, s, result)
	}
	if err != nil {
		e.cutShort(true, "while it held at stage %q", s.Name)
		return DecideAbort
	}
	if e.decision == "" {
		return DecideAbort
	}
	return e.decision
}

// awaitDecision holds until there is a decision or holdFor is over; it answers with an error when the run is cancelled.
func (e *execution) awaitDecision(ctx workflow.Context, s pipelines.Stage, result stage.Result) error {
	holdFor := time.Duration(s.HoldFor)
	if holdFor <= 0 {
		holdFor = DefaultHoldFor
	}
	until := workflow.Now(ctx).Add(holdFor)
	e.decision = ""
	e.state.Status = stage.StatusHolding
	e.state.Holding = &Holding{Stage: s.Name, Reason: result.Reason, Until: until}
	e.mark(ctx, stage.StatusHolding, s.Name)
	e.recordHold(ctx, s, result) // a decision may come meanwhile
	_, err := workflow.AwaitWithTimeout(ctx, max(until.Sub(workflow.Now(ctx)), 0), func() bool { return e.decision != "" })
	e.state.Status, e.state.Holding = stage.StatusRunning, nil
	e.mark(ctx, stage.StatusRunning, s.Name)
	return err
}
