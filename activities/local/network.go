package local

import (
	"context"
	"fmt"
	"slices"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Network sets the state of the data network.
func (g *Ground) Network(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	s, unlock, err := g.open(ctx, in.Run, in)
	if err != nil {
		return stage.Result{}, err
	}
	defer s.close()
	defer unlock()
	report(stage.Progress{Note: "setting the data network"})
	before := s.state.Network
	s.state.Network = &control.Network{State: *in.Stage.Network, Key: key(in)}
	refused, err := s.revive(ctx, nil, report)
	if err != nil {
		return g.known(ctx, "setting the data network", err)
	}
	if refused != "" {
		s.state.Network = before
		return invalid("the data network can't be set: %s", refused), s.state.write(s.folder)
	}
	return passed(), nil
}

// key names one attempt of a stage to the sidecar.
func key(in stage.Input) string { return stage.Key(in.Stage.Name, in.Attempt) }

// revive brings a sidecar to where the state says it should be: on a new one every group is placed, and the data network
// set as it was last asked for. Of a sidecar that holds the needed groups it asks nothing. The string is why that can't
// be. The caller holds the lock.
func (s *session) revive(ctx context.Context, need []string, report func(stage.Progress)) (string, error) {
	for _, name := range need {
		if !slices.Contains(s.state.Groups, name) {
			return fmt.Sprintf("group %s has not been placed: it needs a schedule stage before this one", name), nil
		}
	}
	status, err := s.ensure(ctx)
	if err != nil {
		return "", err
	}
	missing := instances(s.in, need) - placedOf(need, status)
	if missing > 0 || len(s.state.Groups) > 0 && placedOf(s.state.Groups, status) == 0 {
		if refused, err := s.replace(ctx, report); refused != "" || err != nil {
			return refused, err
		}
	}
	return s.apply(ctx, status)
}

// replace places what a sidecar that died took with it.
func (s *session) replace(ctx context.Context, report func(stage.Progress)) (string, error) {
	ask, why := placement(s.in, s.state.Groups)
	if why != "" {
		return why, nil
	}
	status, err := s.place(ctx, ask, report)
	if err != nil {
		return "", err
	}
	if result := placed(s.in, s.state.Groups, status); result.Verdict != stage.Passed {
		return result.Reason, nil
	}
	s.ground.note(s.folder, "placed-again", s.in.Stage.Name, fmt.Sprintf("%s placed again on a new sidecar", count(status.New)))
	return "", nil
}

// apply asks for the state of the data network, unless this sidecar has it.
func (s *session) apply(ctx context.Context, status control.Status) (string, error) {
	asked := s.state.Network
	if asked == nil || asked.Key == s.state.NetworkKey && s.state.NetworkBy.Equal(status.Started) {
		return "", nil
	}
	if err := s.state.write(s.folder); err != nil {
		return "", err
	}
	reply, err := s.client.Network(ctx, *asked)
	if err != nil || reply.Refused != "" {
		return reply.Refused, err
	}
	s.state.NetworkBy, s.state.NetworkKey = status.Started, asked.Key
	return "", s.state.write(s.folder)
}
