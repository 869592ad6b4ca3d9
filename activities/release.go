package activities

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/activity"

	"github.com/groundplan/groundplan/activities/stage"
)

// Halt ends what a stage still runs, and keeps the placement. Of a stage that isn't a run stage it ends every process
// of the run, since nothing is known of who started them.
func (a *Activities) Halt(ctx context.Context, in stage.Input) error {
	ground, why := a.ground(in.Run)
	if why != "" {
		return nil // nothing runs where this worker can't start anything
	}
	err := beating(ctx, in.Stage.Name, "halting the instances", func(ctx context.Context) error {
		if in.Stage.Run != nil {
			return ground.HaltStage(ctx, in)
		}
		return ground.Halt(ctx, in.Run)
	})
	if err != nil {
		return fmt.Errorf("halting stage %q: %w", in.Stage.Name, err)
	}
	return nil
}

// Release gives the placement back: processes, networks, temporary files.
func (a *Activities) Release(ctx context.Context, in stage.Release) error {
	ground, why := a.ground(in.Run)
	if why != "" {
		return nil
	}
	err := beating(ctx, "", "releasing the placement", func(ctx context.Context) error { return ground.Release(ctx, in.Run) })
	if err != nil {
		return fmt.Errorf("releasing the placement of %s: %w", in.Run.ID, err)
	}
	return nil
}

// beating heartbeats what is being done while work goes on.
func beating(ctx context.Context, stageName, note string, work func(context.Context) error) error {
	h := newHeart(stage.Progress{Stage: stageName, Note: note}, func(p stage.Progress) { activity.RecordHeartbeat(ctx, p) })
	defer h.stop()
	return work(ctx)
}
