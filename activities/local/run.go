package local

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/sidecar/control"
)

// waitFor is how long one question after a stage's news may stay open.
const waitFor = 10 * time.Second

// Run opens the gate and waits until every instance has an outcome. The gate is opened once per attempt of the stage:
// when the attempt's sidecar is gone, so are its instances, and it takes another attempt to start new ones.
func (g *Ground) Run(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	if why := sidecars.CheckParams(in); why != "" {
		return sidecars.Invalid("%s", why), nil
	}
	s, unlock, err := g.open(ctx, in.Run, in)
	if err != nil {
		return stage.Result{}, err
	}
	defer s.close()
	why, err := s.gate(ctx, report)
	unlock()
	if err != nil {
		return g.known(ctx, "preparing the run", err)
	}
	if why != "" {
		return sidecars.Invalid("%s", why), nil
	}
	status, err := s.client.Open(ctx, sidecars.Key(in), sidecars.RunStage(s.in))
	if err == nil {
		status, err = s.follow(ctx, status, report)
	}
	if s.lost(ctx, err) {
		return s.died(), nil
	}
	if errors.Is(err, control.ErrAway) { // one connection broke; the next attempt finds the same sidecar
		return stage.Result{}, fmt.Errorf("following the instances: %w", err)
	}
	if err != nil {
		return g.known(ctx, "running the instances", err)
	}
	return sidecars.Outcome(in, status), nil
}

// gate makes sure of the sidecar that this attempt's gate is, or will be, opened by. The string is why there is none.
func (s *session) gate(ctx context.Context, report func(stage.Progress)) (string, error) {
	by, opened := s.state.Opened[sidecars.Key(s.in)]
	if opened {
		status, err := s.status(ctx)
		if errors.Is(err, control.ErrAway) || err == nil && !status.Started.Equal(by) {
			return s.died().Reason, nil
		}
		return "", err
	}
	why, err := s.revive(ctx, s.in.Stage.Run.Groups, report)
	if why != "" || err != nil {
		return why, err
	}
	s.state.Opened[sidecars.Key(s.in)] = s.state.Sidecar.Since
	return "", s.state.write(s.folder)
}

// follow waits for the end of the stage and reports on the way.
func (s *session) follow(ctx context.Context, status control.RunStatus, report func(stage.Progress)) (control.RunStatus, error) {
	for {
		report(sidecars.Progress(status))
		if status.Done {
			return status, nil
		}
		next, err := s.client.Wait(ctx, status.Key, status.Version, waitFor)
		if err != nil {
			return status, err
		}
		status = next
	}
}

// lost says whether an error means that the sidecar which opened the gate is gone. A single lost connection doesn't.
func (s *session) lost(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil {
		return false
	}
	var refused *control.Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return true // another sidecar has taken its place
	}
	if !errors.Is(err, control.ErrAway) {
		return false
	}
	_, err = s.status(ctx)
	return errors.Is(err, control.ErrAway)
}

// died is the result for instances that went with their sidecar.
func (s *session) died() stage.Result {
	lost := sidecars.Instances(s.in, s.in.Stage.Run.Groups)
	were := "were"
	if lost == 1 {
		were = "was"
	}
	return sidecars.Invalid("the sidecar of this run died; %s %s lost", sidecars.Count(lost), were)
}
