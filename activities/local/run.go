package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/sidecar/control"
)

// waitFor is how long one question after a stage's news may stay open.
const waitFor = 10 * time.Second

// Run opens the gate and waits until every instance has an outcome. The gate is opened once per attempt of the stage:
// when the attempt's sidecar is gone, so are its instances, and it takes another attempt to start new ones.
func (g *Ground) Run(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	if why := checkParams(in); why != "" {
		return invalid("%s", why), nil
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
		return invalid("%s", why), nil
	}
	status, err := s.client.Open(ctx, key(in), s.runStage())
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
	return outcome(in, status), nil
}

// gate makes sure of the sidecar that this attempt's gate is, or will be, opened by. The string is why there is none.
func (s *session) gate(ctx context.Context, report func(stage.Progress)) (string, error) {
	by, opened := s.state.Opened[key(s.in)]
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
	s.state.Opened[key(s.in)] = s.state.Sidecar.Since
	return "", s.state.write(s.folder)
}

// runStage is what the sidecar is asked.
func (s *session) runStage() control.RunStage {
	run := s.in.Stage.Run
	total := instances(s.in, run.Groups)
	return control.RunStage{
		Stage:       s.in.Stage.Name,
		Groups:      run.Groups,
		Case:        run.Case,
		Params:      run.Params,
		FailFast:    run.FailFast,
		MaxFailures: total - mustSucceed(float64(run.Success), total),
		Deadline:    s.in.Deadline,
		Events:      run.Events,
		Seed:        s.in.Seed,
	}
}

// follow waits for the end of the stage and reports on the way.
func (s *session) follow(ctx context.Context, status control.RunStatus, report func(stage.Progress)) (control.RunStatus, error) {
	for {
		report(progress(status))
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
	lost := instances(s.in, s.in.Stage.Run.Groups)
	were := "were"
	if lost == 1 {
		were = "was"
	}
	return invalid("the sidecar of this run died; %s %s lost", count(lost), were)
}

// checkParams refuses parameters that Testground's SDKs would drop without a word.
func checkParams(in stage.Input) string {
	for _, group := range in.Groups {
		if !group.Testground || !slices.Contains(in.Stage.Run.Groups, group.Name) {
			continue
		}
		all := maps.Clone(group.Parameters)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, in.Stage.Run.Params)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if strings.ContainsAny(name, "=|") || strings.ContainsAny(all[name], "=|") {
				return fmt.Sprintf("group %s: the parameter %s (%q) holds = or |, which instances built for Testground can't receive: change it, or set `testground: false` for the group", group.Name, name, all[name])
			}
		}
	}
	return ""
}

// mustSucceed is how many of total instances a share asks for.
func mustSucceed(share float64, total int) int {
	return int(math.Ceil(share*float64(total) - 1e-9))
}

// progress is a status in counts.
func progress(status control.RunStatus) stage.Progress {
	p := stage.Progress{Note: status.Event}
	for _, c := range status.Groups {
		p.Total += c.Total
		p.Placed += c.Placed
		p.Running += c.Running
		p.Succeeded += c.Succeeded
		p.Failed += c.Failed + c.Crashed + c.Silent
		p.Killed += c.Killed
	}
	p.Waiting = max(p.Total-p.Running-p.Succeeded-p.Failed-p.Killed, 0)
	if first := status.FirstFailure; first != nil {
		p.FirstFailure = fmt.Sprintf("%s/%d: %s", first.Group, first.Index, first.Reason)
	}
	return p
}
