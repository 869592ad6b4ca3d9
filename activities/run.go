package activities

import (
	"context"

	"github.com/groundplan/groundplan/activities/stage"
)

// Run opens the gate and waits until every instance has an outcome. Cancelled, it returns when every process that it
// started is gone.
func (a *Activities) Run(ctx context.Context, in stage.Input) (stage.Result, error) {
	ground, why := a.ground(in.Run)
	return a.attempt(ctx, in, func(ctx context.Context, report func(stage.Progress)) (stage.Result, error) {
		if why != "" {
			return invalid("%s", why), nil
		}
		return ground.Run(ctx, in, report)
	}, func(ctx context.Context) error {
		return ground.HaltStage(ctx, in)
	})
}
