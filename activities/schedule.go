package activities

import (
	"context"

	"github.com/groundplan/groundplan/activities/stage"
)

// Schedule brings every instance of the stage's groups to the gate.
func (a *Activities) Schedule(ctx context.Context, in stage.Input) (stage.Result, error) {
	return a.attempt(ctx, in, func(ctx context.Context, report func(stage.Progress)) (stage.Result, error) {
		ground, why := a.ground(in.Run)
		if why != "" {
			return invalid("%s", why), nil
		}
		return ground.Schedule(ctx, in, report)
	}, nil)
}
