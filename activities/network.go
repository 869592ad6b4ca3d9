package activities

import (
	"context"

	"github.com/groundplan/groundplan/activities/stage"
)

// Network sets the state of the data network.
func (a *Activities) Network(ctx context.Context, in stage.Input) (stage.Result, error) {
	return a.attempt(ctx, in, func(ctx context.Context, report func(stage.Progress)) (stage.Result, error) {
		ground, why := a.ground(in.Run)
		if why != "" {
			return invalid("%s", why), nil
		}
		return ground.Network(ctx, in, report)
	}, nil)
}
