package activities

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// Kinds of events that the activities write.
const (
	eventStageStarted = "stage-started"
	eventStageEnded   = runs.KindStageEnded
	eventRun          = "run-" // with a status behind it: run-running, run-holding, run-ended
)

// begins notes that a stage's attempt starts; an activity that is tried again after its worker died goes on with it.
func (a *Activities) begins(ctx context.Context, in stage.Input) {
	if activity.GetInfo(ctx).Attempt > 1 {
		return
	}
	a.event(ctx, in.Run, runs.Event{
		Kind: eventStageStarted, Stage: in.Stage.Name, Attempt: stage.Key(in.Stage.Name, in.Attempt), Text: fmt.Sprintf("stage %q started (attempt %d)", in.Stage.Name, in.Attempt),
	})
}

// ends notes what a stage's attempt came to.
func (a *Activities) ends(ctx context.Context, in stage.Input, result stage.Result) {
	text := fmt.Sprintf("stage %q ended: %s", in.Stage.Name, result.Verdict)
	if result.Reason != "" {
		text += ": " + result.Reason
	}
	a.event(ctx, in.Run, runs.Event{
		Time: result.Ended, Kind: eventStageEnded, Stage: in.Stage.Name, Attempt: stage.Key(in.Stage.Name, in.Attempt), Text: text,
	})
	for _, note := range result.Notes {
		a.event(ctx, in.Run, runs.Event{Time: result.Ended, Kind: "note", Stage: in.Stage.Name, Text: note})
	}
}

// event appends to the run's events. A log that can't be written is no reason to fail a stage; what the stage itself
// writes will tell.
func (a *Activities) event(ctx context.Context, run stage.Run, event runs.Event) {
	if event.Time.IsZero() {
		event.Time = time.Now()
	}
	if err := a.folder(run).AppendEvent(event); err != nil {
		activity.GetLogger(ctx).Warn("an event could not be written", "run", run.ID, "error", err)
	}
}
