package activities

import (
	"context"
	"fmt"

	"github.com/groundplan/groundplan/activities/stage"
)

// Halt ends what a stage still runs, and keeps the placement. Of a stage that isn't a run stage it ends every process
// of the run, since nothing is known of who started them.
func (a *Activities) Halt(ctx context.Context, in stage.Input) error {
	ground, why := a.ground(in.Run)
	if why != "" {
		return nil // nothing runs where this worker can't start anything
	}
	err := beating(ctx, func(ctx context.Context) error {
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
	err := beating(ctx, func(ctx context.Context) error { return ground.Release(ctx, in.Run) })
	if err != nil {
		return fmt.Errorf("releasing the placement of %s: %w", in.Run.ID, err)
	}
	return nil
}

// beating heartbeats while work goes on.
func beating(ctx context.Context, work func(context.Context) error) error {
	h := startHeart(ctx, stage.Input{})
	defer h.stop()
	return work(ctx)
}
