package local

import (
	"context"
	"fmt"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Network sets the state of the data network and has the sidecar prove it.
func (g *Ground) Network(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	s, unlock, err := g.open(ctx, in.Run, in)
	if err != nil {
		return stage.Result{}, err
	}
	defer s.close()
	defer unlock()
	report(stage.Progress{Note: "setting the data network"})
	before := s.state.Network
	s.state.Network = sidecars.Network(in)
	s.state.NetworkKey = "" // a sidecar that was asked already says once more what came of it
	why, err := s.revive(ctx, nil, report)
	if err != nil {
		return g.known(ctx, "setting the data network", err)
	}
	if why != "" {
		if s.proved == "" { // it is not in force
			s.state.Network = before
		}
		return sidecars.Invalid("%s", why), s.state.write(s.folder)
	}
	return sidecars.Noted(s.proved), nil
}

// revive brings a sidecar to where the state says it should be: on a new one every group is placed, and the data network
// set as it was last asked for. Of a sidecar that holds the needed groups it asks nothing. The string is why that can't
// be. The caller holds the lock.
func (s *session) revive(ctx context.Context, need []string, report func(stage.Progress)) (string, error) {
	if why := sidecars.Unplaced(need, s.state.Groups); why != "" {
		return why, nil
	}
	status, err := s.ensure(ctx)
	if err != nil {
		return "", err
	}
	missing := sidecars.Instances(s.in, need) - sidecars.PlacedOf(need, status)
	if missing > 0 || len(s.state.Groups) > 0 && sidecars.PlacedOf(s.state.Groups, status) == 0 {
		if refused, err := s.replace(ctx, report); refused != "" || err != nil {
			return refused, err
		}
	}
	return s.apply(ctx, status, report)
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
	if result := sidecars.Placed(s.in, s.state.Groups, status); result.Verdict != stage.Passed {
		return result.Reason, nil
	}
	s.ground.note(s.folder, "placed-again", s.in.Stage.Name, fmt.Sprintf("%s placed again on a new sidecar", sidecars.Count(status.New)))
	return "", nil
}

// apply asks for the state of the data network, unless this sidecar has it. The string is why it isn't as asked. A run
// stage that needed a new sidecar asks under a key of its own, so that each of its attempts is an attempt at this too.
func (s *session) apply(ctx context.Context, status control.Status, report func(stage.Progress)) (string, error) {
	asked := s.state.Network
	if asked == nil || asked.Key == s.state.NetworkKey && s.state.NetworkBy.Equal(status.Started) {
		return "", nil
	}
	if err := s.state.write(s.folder); err != nil {
		return "", err
	}
	ask, set := *asked, s.in.Stage.Kind == pipelines.KindNetwork
	if !set {
		ask.Key += "-" + sidecars.Key(s.in)
	}
	reply, err := s.ask(ctx, ask, report)
	if err != nil {
		return "", err
	}
	if reply.Refused != "" {
		return "the data network can't be set: " + reply.Refused, nil
	}
	s.proved = reply.Summary
	why := sidecars.Outside(reply)
	if why == "" || set {
		s.state.NetworkBy, s.state.NetworkKey = status.Started, asked.Key
	}
	return why, s.state.write(s.folder)
}

// ask asks the sidecar, and reports how far it is until it answers.
func (s *session) ask(ctx context.Context, asked control.Network, report func(stage.Progress)) (control.NetworkReply, error) {
	return sidecars.While(ctx, func(ctx context.Context) (control.NetworkReply, error) { return s.client.Network(ctx, asked) }, func() {
		if status, err := s.status(ctx); err == nil && status.ToProbe > 0 {
			report(stage.Progress{Note: fmt.Sprintf("probing the data network: %d of %d links", status.Probed, status.ToProbe)})
		}
	})
}
