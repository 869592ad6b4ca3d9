package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	nodeagent "github.com/groundplan/groundplan/sidecar/node"
)

// Network sets the state of the data network on every node and has the sidecars prove it.
func (g *Ground) Network(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	unlock, err := sidecars.Lock(ctx, g.options.Home.Run(in.Run.ID))
	if err != nil {
		return stage.Result{}, err
	}
	defer unlock()
	s, err := g.open(in.Run, in)
	if err != nil {
		return g.known(ctx, "setting the data network", err)
	}
	defer s.close()
	report(stage.Progress{Note: "setting the data network"})
	before := s.state.Network
	s.state.Network = sidecars.Network(in)
	s.state.NetworkKey = "" // sidecars that were asked already say once more what came of it
	if len(s.state.Groups) == 0 {
		return sidecars.Noted("no instance is placed yet: the data network is set, and not proved, once some are"), s.state.write(s.folder)
	}
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

// revive brings the cluster to where the state says it should be: every instance of the groups placed so far is there,
// the sidecars know of it, and the data network is as it was last asked for. What is so already isn't touched. The string
// is why that can't be. The caller holds the run's lock.
func (s *session) revive(ctx context.Context, need []string, report func(stage.Progress)) (string, error) {
	if why := sidecars.Unplaced(need, s.state.Groups); why != "" {
		return why, nil
	}
	if err := s.connect(ctx); err != nil {
		return "", err
	}
	if err := s.look(ctx); err != nil {
		return "", err
	}
	whole, err := s.whole(ctx)
	if err != nil {
		return "", err
	}
	if !whole {
		result, err := s.schedule(ctx, s.state.Groups, report)
		if err != nil || result.Verdict != stage.Passed {
			return result.Reason, err
		}
		s.state.NetworkOn = ""
		if result.Placed > 0 {
			s.note("placed-again", fmt.Sprintf("%s placed again", sidecars.Count(result.Placed)))
		}
	}
	return s.apply(ctx, report)
}

// whole says whether every instance runs where the sidecars were told that it does, and these still know of it.
func (s *session) whole(ctx context.Context) (bool, error) {
	held := s.held()
	count := 0
	for _, pods := range held {
		count += len(pods)
	}
	if count != sidecars.Instances(s.in, s.state.Groups) || fingerprint(held) != s.state.Placed {
		return false, nil
	}
	known := make([]int, len(s.state.Holders))
	position := positions(s.state.Holders)
	err := s.onAll(ctx, s.named(s.state.Holders), func(ctx context.Context, n *node) error {
		return s.patient(ctx, n, s.ground.limits.answers, func(ctx context.Context) error {
			status, err := n.agent.Ensure(ctx, s.in.Run.ID, nodeagent.Ask{Seed: s.in.Seed})
			known[position[n.name]] = sidecars.PlacedOf(s.state.Groups, status)
			return err
		})
	})
	var away *awayFault
	if errors.As(err, &away) && away.gone {
		return false, nil // what it held is placed elsewhere
	}
	if err != nil {
		return false, err
	}
	for i, name := range s.state.Holders {
		if known[i] < len(held[name]) {
			return false, nil
		}
	}
	return true, nil
}

// apply asks for the state of the data network, unless it is in force. The string is why it isn't as asked. A run stage
// that needed another placement asks under a key of its own, so that each of its attempts is an attempt at this too.
func (s *session) apply(ctx context.Context, report func(stage.Progress)) (string, error) {
	asked := s.state.Network
	if asked == nil || asked.Key == s.state.NetworkKey && s.state.NetworkOn == s.state.Placed {
		return "", nil
	}
	if err := s.state.write(s.folder); err != nil {
		return "", err
	}
	ask, set := *asked, s.in.Stage.Kind == pipelines.KindNetwork
	if !set {
		ask.Key += "-" + sidecars.Key(s.in)
	}
	replies, err := s.ask(ctx, ask, report)
	if err != nil {
		return "", err
	}
	reply := s.agreed(replies)
	if reply.Refused != "" {
		return "the data network can't be set: " + reply.Refused, nil
	}
	s.proved = reply.Summary
	why := sidecars.Outside(reply)
	if why == "" || set {
		s.state.NetworkOn, s.state.NetworkKey = s.state.Placed, asked.Key
	}
	return why, s.state.write(s.folder)
}

// ask asks all sidecars at once, and reports how far they are until they answer.
func (s *session) ask(ctx context.Context, ask control.Network, report func(stage.Progress)) ([]control.NetworkReply, error) {
	nodes, position := s.named(s.state.Holders), positions(s.state.Holders)
	replies := make([]control.NetworkReply, len(nodes))
	lead := s.node(s.state.Lead)
	call := func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.onAll(ctx, nodes, func(ctx context.Context, n *node) error {
			return s.patient(ctx, n, s.ground.limits.answers, func(ctx context.Context) (err error) {
				replies[position[n.name]], err = n.control.Network(ctx, ask)
				return err
			})
		})
	}
	_, err := sidecars.While(ctx, call, func() {
		if status, err := lead.control.Status(ctx); err == nil && status.ToProbe > 0 {
			report(stage.Progress{Note: fmt.Sprintf("probing the data network: %d of %d links", status.Probed, status.ToProbe)})
		}
	})
	return replies, err
}

// agreed is what all sidecars together say of a network: one that refuses it speaks for all, and the proof is in the
// lead's hands.
func (s *session) agreed(replies []control.NetworkReply) control.NetworkReply {
	var best control.NetworkReply
	for i, name := range s.state.Holders {
		r := replies[i]
		switch {
		case r.Refused != "":
			return control.NetworkReply{Refused: fmt.Sprintf("node %s: %s", name, r.Refused)}
		case name == s.state.Lead && r.Proof != nil, best.Proof == nil:
			best = r
		}
	}
	return best
}

// note logs something to the run's events; that it can't is not worth failing for.
func (s *session) note(kind, text string) {
	event := runs.Event{Time: time.Now(), Kind: kind, Stage: s.in.Stage.Name, Text: text}
	if err := s.folder.AppendEvent(event); err != nil {
		s.ground.options.Log.Warn("an event could not be written", "folder", string(s.folder), "error", err)
	}
}
