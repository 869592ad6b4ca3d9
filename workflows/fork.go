package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
)

// takeTimeout is how long one try of taking over may take: what instances have written may be much.
const takeTimeout = 2 * time.Hour

// takeOver brings what a fork has taken over from an earlier run into its folder. A resumed fork asks again, which costs
// nothing where all is there; an execution that goes on where another one was cut needn't.
func (e *execution) takeOver(ctx workflow.Context) error {
	if e.in.Run.From == "" || workflow.GetInfo(ctx).ContinuedExecutionRunID != "" {
		return nil
	}
	var taken []stage.Result
	for _, r := range e.in.Earlier {
		if r.From == e.in.Run.From {
			taken = append(taken, stage.Result{Stage: r.Stage, Kind: r.Kind, Attempt: r.Attempt})
		}
	}
	if len(taken) == 0 {
		return nil
	}
	options := housekeeping(e.in.Queue, takeTimeout, heartbeatTimeout(e.in))
	options.WaitForCancellation = true
	taking := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), stage.ActivityTake, stage.Take{Run: e.in.Run, Stages: taken})
	if err := taking.Get(ctx, nil); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
