package workflows

import (
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// show puts a stage's standing into what QueryState answers.
func (e *execution) show(name, phase string, r stage.Result) {
	row := &e.state.Stages[e.row[name]]
	row.Phase, row.Attempt, row.Verdict, row.Reason = phase, r.Attempt, r.Verdict, r.Reason
	row.Started, row.Ended = r.Started, r.Ended
}

// mark upserts the search attributes that changed. Each upsert is one event, so it is called when a stage begins, holds
// or goes on, and at the end.
func (e *execution) mark(ctx workflow.Context, verdict, stageName string) {
	mark(ctx, e.marked, [][2]string{
		{AttributePipeline, e.in.Pipeline.Name},
		{AttributeCommit, e.in.Run.Commit},
		{AttributeSuite, e.in.Run.Suite},
		{AttributeVerdict, verdict},
		{AttributeStage, stageName},
	})
}

func mark(ctx workflow.Context, marked map[string]string, wanted [][2]string) {
	var changed []temporal.SearchAttributeUpdate
	for _, w := range wanted {
		if name, value := w[0], w[1]; marked[name] != value {
			marked[name] = value
			changed = append(changed, temporal.NewSearchAttributeKeyKeyword(name).ValueSet(value))
		}
	}
	if len(changed) == 0 {
		return
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, changed...); err != nil {
		workflow.GetLogger(ctx).Warn("search attributes were not set; lists of runs will miss them", "error", err)
	}
}

// recordStart records that the run has begun, beside the first stage rather than before it. What can't be written now
// is told at the end, when it is tried again.
func (e *execution) recordStart(ctx workflow.Context) {
	e.recording = startRecord(ctx, e.in.Queue, e.record(stage.StatusRunning))
}

// recordHold records where the run holds, for those who come later and ask why.
func (e *execution) recordHold(ctx workflow.Context, s pipelines.Stage, result stage.Result) {
	record := e.record(stage.StatusHolding)
	record.Reason = "holds at " + sentence(e.in.Pipeline, result)
	if err := e.write(ctx, record); err != nil && ctx.Err() == nil {
		workflow.GetLogger(ctx).Warn("the run holds, but its record doesn't say so", "stage", s.Name, "error", err)
	}
}

// write writes a record after the one before it.
func (e *execution) write(ctx workflow.Context, record stage.Record) error {
	if e.recording != nil {
		_ = e.recording.Get(ctx, nil) // whatever became of it, this record replaces it
	}
	e.recording = startRecord(ctx, e.in.Queue, record)
	return e.recording.Get(ctx, nil)
}

// startRecord writes a record whether the run is cancelled meanwhile or not: a write that is left to itself could come
// after the next one.
func startRecord(ctx workflow.Context, queue string, record stage.Record) workflow.Future {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	ctx = workflow.WithActivityOptions(ctx, housekeeping(queue, recordTimeout, 0))
	return workflow.ExecuteActivity(ctx, stage.ActivityRecord, record)
}

func (e *execution) record(status string) stage.Record {
	return stage.Record{
		Run: e.in.Run, Pipeline: e.in.Pipeline, Status: status,
		Started: e.started, Results: append([]stage.Result{}, e.results...), Tries: append([]stage.Result(nil), e.tries...),
	}
}

// end releases the placement, writes the record and closes the run. It works on a cancelled run too.
func (e *execution) end(ctx workflow.Context, verdict stage.Verdict, reason string) (Output, error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if e.placed {
		if err := e.release(ctx); err != nil {
			reason += "; its placement could not be released: " + explain(err)
		}
	}
	record := e.record(stage.StatusEnded)
	record.Verdict, record.Reason, record.Ended = verdict, reason, workflow.Now(ctx)
	if err := e.write(ctx, record); err != nil {
		reason += "; its record could not be written: " + explain(err)
	}
	out := Output{Verdict: verdict, Reason: reason, Results: record.Results, Tries: record.Tries}
	e.state.Status, e.state.Output = stage.StatusEnded, &out
	e.mark(ctx, string(verdict), e.marked[AttributeStage])
	if verdict == stage.Cancelled {
		return out, temporal.NewCanceledError(out)
	}
	return out, nil
}

func (e *execution) release(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, housekeeping(e.in.Queue, releaseTimeout, heartbeatTimeout(e.in)))
	return workflow.ExecuteActivity(ctx, stage.ActivityRelease, stage.Release{Run: e.in.Run}).Get(ctx, nil)
}
