package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
)

const (
	// tellTimeout is for one call of a webhook, tellFor how long it is tried again and again.
	tellTimeout = 30 * time.Second
	tellFor     = 24 * time.Hour
)

// TellSuite calls the webhook of a suite about one turn until it has taken the news, refused them for good, or a day is
// over. Each call says in the turn's record what became of it; what ends without a call is said by ActivitySuiteTold.
func TellSuite(ctx workflow.Context, in stage.SuiteTell) error {
	telling := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    tellTimeout,
		ScheduleToCloseTimeout: tellFor,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 5 * time.Second, BackoffCoefficient: 2, MaximumInterval: 15 * time.Minute,
			NonRetryableErrorTypes: []string{"PanicError"},
		},
	})
	err := workflow.ExecuteActivity(telling, stage.ActivitySuiteTell, in).Get(ctx, nil)
	if err == nil {
		return nil
	}
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	ctx = workflow.WithActivityOptions(ctx, housekeeping("", recordTimeout, 0))
	return workflow.ExecuteActivity(ctx, stage.ActivitySuiteTold, stage.SuiteTold{
		Suite: in.Suite, Turn: in.Turn, Text: "not told: " + explain(err),
	}).Get(ctx, nil)
}
