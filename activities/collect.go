package activities

import (
	"context"

	"github.com/groundplan/groundplan/activities/stage"
)

// Collect gathers the outputs, computes the metrics and checks the assertions.
func (a *Activities) Collect(ctx context.Context, in stage.Input) (stage.Result, error) {
	ground, why := a.ground(in.Run)
	return attempt(ctx, in, func(ctx context.Context, report func(stage.Progress)) (stage.Result, error) {
		if why != "" {
			return invalid("%s", why), nil
		}
		if err := ground.Gather(ctx, in, report); err != nil {
			return stage.Result{}, err
		}
		return stage.Result{Verdict: stage.Passed}, nil
	}, nil)
}
