package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

const (
	// loadTimeout is for one try of reading a pipeline, and beginTimeout of beginning a turn, which asks git.
	loadTimeout  = time.Minute
	beginTimeout = 20 * time.Second
	// longestRunReason is in bytes; the whole sentence is in the run's own record.
	longestRunReason = 2000
)

// RunSuite carries one turn of a suite through: its pipelines one after the other, each read from its file when its turn
// comes and run as a child.
//
// A pipeline that does not pass keeps back those after it, unless its `onFailure` is continue; those are named as skipped.
// One whose file is wrong by then is invalid. The turn's verdict is the worst of its runs: cancelled, then invalid, failed
// and passed.
//
// Cancelling the turn cancels the run under way, waits until that has released what it held, and closes as Canceled with
// the SuiteOutput as details. Ending the turn by force cancels the run too.
//
// Its record is written before each run and at the end, and what it brings to tell is handed to a workflow of its own, so
// that a webhook that doesn't answer never holds the next turn up.
func RunSuite(ctx workflow.Context, in SuiteInput) (SuiteOutput, error) {
	t := newTurn(ctx, in)
	if err := workflow.SetQueryHandler(ctx, QueryTurn, func() (stage.Turn, error) { return t.state, nil }); err != nil {
		return SuiteOutput{}, fmt.Errorf("answering queries: %w", err)
	}
	t.mark(ctx, stage.StatusRunning)
	if err := t.begin(ctx); err != nil {
		return t.stillborn(ctx, err)
	}
	for i := range in.Suite.Pipelines {
		t.take(ctx, i)
	}
	return t.end(ctx)
}

// SuiteOutputOf returns what a cancelled turn came to, from the error that its workflow closed with; false when err is
// something else, or the turn was ended before it could say.
func SuiteOutputOf(err error) (SuiteOutput, bool) {
	var cancelled *temporal.CanceledError
	var out SuiteOutput
	if !errors.As(err, &cancelled) || !cancelled.HasDetails() || cancelled.Details(&out) != nil {
		return SuiteOutput{}, false
	}
	return out, true
}

// turn is one turn of a suite being carried through.
type turn struct {
	in      SuiteInput
	state   stage.Turn
	aborted string // why those after it don't run, as the end of a sentence
	// cancelled is what cancelling the turn cut short, as the end of a sentence.
	cancelled string
	marked    map[string]string
}

func newTurn(ctx workflow.Context, in SuiteInput) *turn {
	info := workflow.GetInfo(ctx)
	t := &turn{in: in, marked: map[string]string{}, state: stage.Turn{
		Suite: in.Suite.Name, Execution: info.OriginalRunID, File: in.Suite.File, Ground: in.Ground,
		Due: scheduled(ctx), Started: workflow.Now(ctx).UTC(), Status: stage.StatusRunning,
	}}
	for _, p := range in.Suite.Pipelines {
		t.state.Runs = append(t.state.Runs, stage.TurnRun{Pipeline: p.File, File: p.File})
	}
	return t
}

// scheduled is when Temporal's schedule had the workflow begin; zero where none did.
func scheduled(ctx workflow.Context) time.Time {
	at, _ := workflow.GetTypedSearchAttributes(ctx).GetTime(temporal.NewSearchAttributeKeyTime("TemporalScheduledStartTime"))
	return at.UTC()
}

// begin gives the turn its id and writes its first record.
func (t *turn) begin(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, housekeeping(t.in.Queue, beginTimeout, 0))
	var begun stage.SuiteBegun
	err := workflow.ExecuteActivity(ctx, stage.ActivitySuiteBegin, stage.SuiteBegin{
		Turn: t.state, Root: t.in.Root, Schedule: t.in.Suite.Schedule, Backfills: t.in.Backfills,
	}).Get(ctx, &begun)
	t.state.ID, t.state.Commit, t.state.Trigger, t.state.Due = begun.ID, begun.Commit, begun.Trigger, begun.Due
	return err
}

// stillborn ends a turn that could not begin: it has no record to write.
func (t *turn) stillborn(ctx workflow.Context, err error) (SuiteOutput, error) {
	out := SuiteOutput{Suite: t.state.Suite, Verdict: stage.Invalid, Reason: "invalid: the turn could not begin: " + explain(err)}
	if ctx.Err() != nil {
		out.Verdict, out.Reason = stage.Cancelled, "cancelled: before the turn had begun"
	}
	t.state.Status, t.state.Verdict, t.state.Reason = stage.StatusEnded, out.Verdict, out.Reason
	if ctx.Err() != nil {
		ctx, _ = workflow.NewDisconnectedContext(ctx)
		t.mark(ctx, string(out.Verdict))
		return out, temporal.NewCanceledError(out)
	}
	t.mark(ctx, string(out.Verdict))
	return out, nil
}

// take is the turn of one pipeline.
func (t *turn) take(ctx workflow.Context, i int) {
	row := &t.state.Runs[i]
	if ctx.Err() != nil && t.aborted == "" {
		t.cut("before %s", row.Pipeline)
	}
	if t.aborted != "" {
		row.Verdict, row.Reason = stage.Skipped, "not run: "+t.aborted
		return
	}
	row.Started = workflow.Now(ctx).UTC()
	out := t.run(ctx, i)
	row.Verdict, row.Reason, row.Ended = out.Verdict, shorten(out.Reason, longestRunReason), workflow.Now(ctx).UTC()
	switch {
	case row.Verdict == stage.Passed:
	case ctx.Err() != nil:
		t.cut("while %s ran", row.Pipeline)
	case t.in.Suite.Pipelines[i].OnFailure != pipelines.OnFailureContinue:
		t.aborted = fmt.Sprintf("%s was %s, and its `onFailure` is abort", row.Pipeline, row.Verdict)
	}
}

// cut notes that the turn was cancelled, and where.
func (t *turn) cut(where, pipeline string) {
	t.aborted, t.cancelled = "the turn was cancelled", fmt.Sprintf(where, pipeline)
}

// run reads a pipeline and runs it to its end.
func (t *turn) run(ctx workflow.Context, i int) Output {
	loaded, err := t.load(ctx, i)
	if err != nil {
		return unfinished(ctx, "pipeline", err)
	}
	if loaded.Fault != "" {
		return Output{Verdict: stage.Invalid, Reason: "invalid: " + loaded.Fault}
	}
	row := &t.state.Runs[i]
	row.Pipeline, row.Run = loaded.Pipeline.Name, t.state.Suite+"."+t.state.ID+"."+strconv.Itoa(i+1)
	if _, err := t.record(ctx); err != nil {
		workflow.GetLogger(ctx).Warn("the turn's record could not be written; its end is written again", "error", explain(err))
	}
	out, err := t.child(ctx, row.Run, loaded)
	if err != nil {
		return unfinished(ctx, "pipeline", err)
	}
	return out
}

func (t *turn) load(ctx workflow.Context, i int) (stage.SuiteLoaded, error) {
	p := t.in.Suite.Pipelines[i]
	ctx = workflow.WithActivityOptions(ctx, housekeeping(t.in.Queue, loadTimeout, 0))
	var loaded stage.SuiteLoaded
	err := workflow.ExecuteActivity(ctx, stage.ActivitySuiteLoad, stage.SuiteLoad{
		Root: t.in.Root, File: p.File, Set: p.Set, Compare: t.in.Suite.Compare,
	}).Get(ctx, &loaded)
	return loaded, err
}

// child runs a pipeline, or its matrix, as a child workflow.
func (t *turn) child(ctx workflow.Context, id string, loaded stage.SuiteLoaded) (Output, error) {
	run := stage.Run{
		ID: id, Ground: t.in.Ground, Root: t.in.Root, Commit: t.state.Commit, Suite: t.state.Suite, Turn: t.state.ID,
		Context: t.in.Context, Namespace: t.in.Namespace,
	}
	name, input := WorkflowPipeline, any(Input{Run: run, Pipeline: loaded.Pipeline, Queue: t.in.Queue})
	if loaded.Bundle != nil {
		name, input = WorkflowMatrix, MatrixInput{
			Run: run, Pipeline: loaded.Pipeline, Queue: t.in.Queue,
			Bundle: *loaded.Bundle, Cells: loaded.Cells, MaxParallel: loaded.MaxParallel,
		}
	}
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:          id,
		WaitForCancellation: true,
		// A turn that is ended by force, as `overlap: terminate-other` does, must leave nothing running.
		ParentClosePolicy: enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		// How long a workflow task of a killed worker holds its run up.
		WorkflowTaskTimeout: 5 * time.Second,
	})
	var out Output
	err := workflow.ExecuteChildWorkflow(ctx, name, input).Get(ctx, &out)
	return out, err
}

// record writes the turn as it stands, whether the turn is cancelled meanwhile or not: a write that is left to itself
// could come after the next one.
func (t *turn) record(ctx workflow.Context) (stage.SuiteRecorded, error) {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	ctx = workflow.WithActivityOptions(ctx, housekeeping(t.in.Queue, recordTimeout, 0))
	var recorded stage.SuiteRecorded
	err := workflow.ExecuteActivity(ctx, stage.ActivitySuiteRecord, t.state).Get(ctx, &recorded)
	return recorded, err
}

// end writes the last record, has whoever wants to know be told, and closes the turn.
func (t *turn) end(ctx workflow.Context) (SuiteOutput, error) {
	closed := ctx.Err()
	ctx, _ = workflow.NewDisconnectedContext(ctx) // cancelling it would cancel what tells of the turn
	t.state.Status, t.state.Ended = stage.StatusEnded, workflow.Now(ctx).UTC()
	t.state.Verdict, t.state.Reason = t.verdict()
	out := SuiteOutput{Suite: t.state.Suite, Turn: t.state.ID, Verdict: t.state.Verdict, Reason: t.state.Reason}
	recorded, err := t.record(ctx)
	if err != nil {
		out.Reason += "; its record could not be written: " + explain(err)
	}
	out.News = recorded.News
	if err := t.tell(ctx, out.News); err != nil {
		out.Reason += "; nobody could be told: " + explain(err)
	}
	t.mark(ctx, string(out.Verdict))
	if closed != nil && out.Verdict == stage.Cancelled {
		return out, temporal.NewCanceledError(out)
	}
	return out, nil
}

// verdict is the worst of the runs, and which ones did not pass.
func (t *turn) verdict() (stage.Verdict, string) {
	total := count(len(t.state.Runs), "pipeline")
	of := map[stage.Verdict][]stage.TurnRun{}
	for _, r := range t.state.Runs {
		of[r.Verdict] = append(of[r.Verdict], r)
	}
	bad := slices.Concat(of[stage.Cancelled], of[stage.Invalid], of[stage.Failed])
	switch {
	case t.cancelled != "":
		return stage.Cancelled, fmt.Sprintf("cancelled: %s; %d of %s had passed", t.cancelled, len(of[stage.Passed]), total)
	case len(bad) == 0:
		return stage.Passed, "passed: " + total
	}
	var names []string
	for _, r := range bad[:min(len(bad), 10)] {
		names = append(names, r.Pipeline)
	}
	if len(bad) > 10 {
		names = append(names, "…")
	}
	reason := fmt.Sprintf("%s: %d of %s did not pass (%s)", bad[0].Verdict, len(bad), total, strings.Join(names, ", "))
	if skipped := len(of[stage.Skipped]); skipped > 0 {
		reason += fmt.Sprintf(", %d not run", skipped)
	}
	return bad[0].Verdict, reason + fmt.Sprintf("; %s: %s", bad[0].Pipeline, bad[0].Reason)
}

// tell starts what calls the webhook, and leaves it alone.
func (t *turn) tell(ctx workflow.Context, news []string) error {
	notify := t.in.Suite.Notify
	if notify == nil || !slices.ContainsFunc(news, func(n string) bool { return slices.Contains(notify.On, n) }) {
		return nil
	}
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:          SuitePrefix + t.state.Suite + "/" + t.state.ID + "/tell",
		ParentClosePolicy:   enumspb.PARENT_CLOSE_POLICY_ABANDON,
		TaskQueue:           t.in.Queue,
		WorkflowTaskTimeout: 5 * time.Second,
	})
	return workflow.ExecuteChildWorkflow(ctx, WorkflowTell, stage.SuiteTell{
		Suite: t.state.Suite, Turn: t.state.ID, Notify: *notify,
	}).GetChildWorkflowExecution().Get(ctx, nil)
}

func (t *turn) mark(ctx workflow.Context, verdict string) {
	mark(ctx, t.marked, [][2]string{{AttributeSuite, t.state.Suite}, {AttributeVerdict, verdict}})
}
