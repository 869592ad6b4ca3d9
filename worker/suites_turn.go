package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// PauseSuite has no turn begin by the schedule any more; those under way go on. UnpauseSuite takes that back.
func (s *Session) PauseSuite(ctx context.Context, name, note string) error {
	return s.pauseSuite(ctx, name, note, true)
}

// UnpauseSuite has turns begin by the schedule again. What was due meanwhile is not caught up with.
func (s *Session) UnpauseSuite(ctx context.Context, name, note string) error {
	return s.pauseSuite(ctx, name, note, false)
}

func (s *Session) pauseSuite(ctx context.Context, name, note string, paused bool) error {
	if err := runs.CheckSuite(name); err != nil {
		return err
	}
	// Not by Pause and Unpause: without a note they leave one of their own.
	err := s.changeSchedule(ctx, name, func(schedule *client.Schedule) {
		schedule.State.Paused, schedule.State.Note = paused, note
	})
	if err != nil {
		return err
	}
	suite, err := s.config.Home.ReadSuite(name)
	if errors.Is(err, runs.ErrNoSuite) { // of another machine
		return nil
	}
	if err != nil {
		return err
	}
	suite.Paused, suite.Note = paused, note
	return s.config.Home.WriteSuite(suite)
}

// DeleteSuite removes a suite's schedule. Its turns under way go on, and its history stays.
func (s *Session) DeleteSuite(ctx context.Context, name string) error {
	if err := runs.CheckSuite(name); err != nil {
		return err
	}
	err := s.suiteError(name, retry(ctx, func() error { return s.schedule(name).Delete(ctx) }))
	if err != nil && !errors.Is(err, ErrNoSuite) {
		return err
	}
	if _, missing := s.config.Home.ReadSuite(name); errors.Is(missing, runs.ErrNoSuite) {
		return err
	}
	return s.config.Home.RemoveSuite(name)
}

// BackfillSuite has the turns begin that were due from one time to another, both in the past, and says when they were due.
// overlap is a word of Overlaps.
func (s *Session) BackfillSuite(ctx context.Context, name string, from, to time.Time, overlap string) ([]time.Time, error) {
	const most = 100
	k, err := s.readSchedule(ctx, name)
	if err != nil {
		return nil, err
	}
	due := k.input.Suite.Schedule.Times(from, to, most+1)
	switch {
	case len(due) == 0:
		return nil, nil
	case len(due) > most:
		return nil, fmt.Errorf("more than %d turns of %s were due in that time: ask for a shorter one", most, name)
	}
	asked := stage.Span{From: from.UTC(), To: to.UTC(), Asked: time.Now().UTC()}
	err = s.changeSchedule(ctx, name, func(schedule *client.Schedule) {
		in, err := inputOf(schedule.Action)
		if err != nil {
			return // only why the turns began will be told wrong
		}
		in.Backfills = append(in.Backfills, asked)
		in.Backfills = in.Backfills[max(0, len(in.Backfills)-mostBackfills):]
		schedule.Action.(*client.ScheduleWorkflowAction).Args = []any{in}
	})
	if err != nil {
		return nil, err
	}
	return due, s.schedule(name).Backfill(ctx, client.ScheduleBackfillOptions{
		Backfill: []client.ScheduleBackfill{{Start: from, End: to, Overlap: overlaps[overlap]}},
	})
}

// Turn is one turn of a suite, under way or ended.
type Turn struct {
	session *Session
	suite   string
	id, run string // of the workflow
}

// Turn is the handle of a turn by the id of its workflow, of those that SuiteStatus.UnderWay names.
func (s *Session) Turn(suite, workflow string) *Turn {
	return &Turn{session: s, suite: suite, id: workflow}
}

// TriggerSuite has a turn begin now, whether the suite is paused or not, and returns once it has. overlap is a word of
// Overlaps, or empty for the suite's own; with skip, a turn under way gives ErrSuiteBusy, and with the buffers this waits
// until the new one's turn has come.
func (s *Session) TriggerSuite(ctx context.Context, name, overlap string) (*Turn, error) {
	k, err := s.readSchedule(ctx, name)
	if err != nil {
		return nil, err
	}
	overlap = orElse(overlap, orElse(k.input.Suite.Schedule.Overlap, overlapSkip))
	busy := fmt.Errorf("suite %s: %w: `groundplan suite show %s` shows it, `groundplan suite cancel %s` ends it, and --overlap says what else may happen", name, ErrSuiteBusy, name, name)
	if overlap == overlapSkip && len(k.status.UnderWay) > 0 {
		return nil, busy
	}
	known := map[string]bool{}
	for _, a := range k.description.Info.RecentActions {
		known[actionRun(a)] = true
	}
	if err := awaitFreeSecond(ctx, k); err != nil {
		return nil, err
	}
	asked := time.Now()
	if err := s.schedule(name).Trigger(ctx, client.ScheduleTriggerOptions{Overlap: overlaps[overlap]}); err != nil {
		return nil, fmt.Errorf("triggering the suite %s: %w", name, s.suiteError(name, err))
	}
	buffered := strings.HasPrefix(overlap, "buffer-")
	for wait := pause / 4; buffered || time.Since(asked) < slowTrigger; wait = min(2*wait, time.Second) {
		now, err := s.readSchedule(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, a := range now.description.Info.RecentActions {
			// Temporal calls the time of asking the one at which the turn was due.
			near := !a.ScheduleTime.Before(asked.Truncate(time.Second)) && a.ScheduleTime.Sub(asked) < 10*time.Second
			if !known[actionRun(a)] && near {
				return &Turn{session: s, suite: name, id: a.StartWorkflowResult.WorkflowID, run: actionRun(a)}, nil
			}
		}
		if now.status.Overlapped > k.status.Overlapped && overlap == overlapSkip {
			return nil, busy
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("waiting for the turn of %s to begin: %w", name, err)
		}
	}
	return nil, fmt.Errorf("the turn of %s has not begun within %v: `groundplan suite show %s` tells when it has", name, slowTrigger, name)
}

// slowTrigger is how long a turn that nothing keeps back may take to begin.
const slowTrigger = time.Minute

// awaitFreeSecond waits until no turn bears the time that it is. Temporal names a turn by the second at which it was due,
// and leaves out a second one of the same name.
func awaitFreeSecond(ctx context.Context, k knownSuite) error {
	for {
		now := time.Now().Truncate(time.Second)
		taken := k.input.Suite.Schedule.Due(now)
		for _, a := range k.description.Info.RecentActions {
			taken = taken || a.ScheduleTime.Truncate(time.Second).Equal(now)
		}
		if !taken {
			return nil
		}
		if err := sleep(ctx, time.Until(now.Add(time.Second))+time.Millisecond); err != nil {
			return err
		}
	}
}

// actionRun is the id of the execution that an action started.
func actionRun(a client.ScheduleActionResult) string {
	if a.StartWorkflowResult == nil {
		return ""
	}
	return a.StartWorkflowResult.FirstExecutionRunID
}

// CancelSuite asks the turns of a suite that are under way to end, and returns them; ErrNoTurn when there are none.
func (s *Session) CancelSuite(ctx context.Context, name string) ([]*Turn, error) {
	k, err := s.readSchedule(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(k.status.UnderWay) == 0 {
		return nil, fmt.Errorf("suite %s: %w", name, ErrNoTurn)
	}
	var turns []*Turn
	for _, e := range k.underWay {
		t := &Turn{session: s, suite: name, id: e.GetWorkflowId(), run: e.GetRunId()}
		if err := t.Cancel(ctx); err != nil {
			return turns, err
		}
		turns = append(turns, t)
	}
	return turns, nil
}

// State asks the turn where it stands. It needs a worker, also for a turn that has ended.
func (t *Turn) State(ctx context.Context) (stage.Turn, error) {
	var state stage.Turn
	answer, err := t.session.client.QueryWorkflow(ctx, t.id, t.run, workflows.QueryTurn)
	if err == nil {
		err = answer.Get(&state)
	}
	if err != nil {
		return state, fmt.Errorf("asking a turn of %s where it stands: %w", t.suite, err)
	}
	return state, nil
}

// Wait waits until the turn has ended, over restarts of the services and take-overs, as long as the context allows.
func (t *Turn) Wait(ctx context.Context) (workflows.SuiteOutput, error) {
	var out workflows.SuiteOutput
	err := retry(ctx, func() error {
		out = workflows.SuiteOutput{}
		return t.session.client.GetWorkflow(ctx, t.id, t.run).Get(ctx, &out)
	})
	var ended *temporal.WorkflowExecutionError
	if err == nil || !errors.As(err, &ended) {
		return out, err
	}
	if carried, ok := workflows.SuiteOutputOf(err); ok {
		return carried, nil
	}
	out = workflows.SuiteOutput{Suite: t.suite, Verdict: stage.Invalid, Reason: "invalid: the turn's workflow failed: " + ended.Unwrap().Error()}
	var cancelled *temporal.CanceledError
	var terminated *temporal.TerminatedError
	if errors.As(err, &cancelled) || errors.As(err, &terminated) {
		out.Verdict, out.Reason = stage.Cancelled, "cancelled: the turn was ended by force, and its runs were asked to end"
	}
	return out, nil
}

// Cancel asks the turn to end: the run under way is cancelled, those behind it don't begin.
func (t *Turn) Cancel(ctx context.Context) error {
	err := t.session.client.CancelWorkflow(ctx, t.id, t.run)
	var gone *serviceerror.NotFound
	if err != nil && !errors.As(err, &gone) {
		return fmt.Errorf("cancelling a turn of %s: %w", t.suite, err)
	}
	return nil
}
