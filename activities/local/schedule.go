package local

import (
	"context"
	"slices"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Schedule brings every instance of the stage's groups to the gate.
func (g *Ground) Schedule(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	groups := in.Stage.Schedule.Groups
	ask, why := placement(in, groups)
	if why != "" {
		return sidecars.Invalid("%s", why), nil
	}
	s, unlock, err := g.open(ctx, in.Run, in)
	if err != nil {
		return stage.Result{}, err
	}
	defer s.close()
	short, err := s.prepare(ctx, groups)
	unlock()
	if err != nil {
		return g.known(ctx, "starting the sidecar", err)
	}
	if short != "" {
		return sidecars.Invalid("%s", short), nil
	}
	status, err := s.place(ctx, ask, report)
	if err != nil {
		return g.known(ctx, "placing the instances", err)
	}
	return sidecars.Placed(in, groups, status), nil
}

// prepare checks that the machine can hold what is missing, notes that it is going to be placed, and makes sure of a
// sidecar. The string says by how much the machine is too small.
func (s *session) prepare(ctx context.Context, groups []string) (string, error) {
	there, err := s.status(ctx)
	if err != nil {
		there = control.Status{} // nothing is placed; ensure looks into why
	}
	left, err := s.ground.machine()
	if err != nil {
		return "", err
	}
	if short := shortage(s.in, groups, there, left); short != "" {
		return short, nil
	}
	s.state.Groups = sidecars.InOrder(s.in, slices.Concat(s.state.Groups, groups))
	if err := s.state.write(s.folder); err != nil {
		return "", err
	}
	_, err = s.ensure(ctx)
	return "", err
}

// place asks the sidecar to place, and reports how far it is until it answers.
func (s *session) place(ctx context.Context, ask control.Placement, report func(stage.Progress)) (control.Status, error) {
	total := sidecars.Instances(s.in, ask.Groups)
	report(stage.Progress{Total: total})
	status, err := sidecars.While(ctx, func(ctx context.Context) (control.Status, error) { return s.client.Place(ctx, ask) }, func() {
		if status, err := s.status(ctx); err == nil {
			report(stage.Progress{Total: total, Placed: sidecars.PlacedOf(ask.Groups, status)})
		}
	})
	if err == nil {
		placed := sidecars.PlacedOf(ask.Groups, status)
		report(stage.Progress{Total: total, Placed: placed, Waiting: placed})
	}
	return status, err
}
