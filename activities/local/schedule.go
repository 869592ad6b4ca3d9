package local

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Schedule brings every instance of the stage's groups to the gate.
func (g *Ground) Schedule(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	groups := in.Stage.Schedule.Groups
	ask, why := placement(in, groups)
	if why != "" {
		return invalid("%s", why), nil
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
		return invalid("%s", short), nil
	}
	status, err := s.place(ctx, ask, report)
	if err != nil {
		return g.known(ctx, "placing the instances", err)
	}
	return placed(in, groups, status), nil
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
	s.state.Groups = inOrder(s.in, slices.Concat(s.state.Groups, groups))
	if err := s.state.write(s.folder); err != nil {
		return "", err
	}
	_, err = s.ensure(ctx)
	return "", err
}

// countsEvery is how often the counts are asked for while a sidecar places.
const countsEvery = 200 * time.Millisecond

// place asks the sidecar to place, and reports how far it is until it answers.
func (s *session) place(ctx context.Context, ask control.Placement, report func(stage.Progress)) (control.Status, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		status control.Status
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		status, err := s.client.Place(ctx, ask)
		done <- answer{status, err}
	}()
	total := instances(s.in, ask.Groups)
	report(stage.Progress{Total: total})
	ticker := time.NewTicker(countsEvery)
	defer ticker.Stop()
	for {
		select {
		case a := <-done:
			if a.err == nil {
				report(stage.Progress{Total: total, Placed: placedOf(ask.Groups, a.status), Waiting: placedOf(ask.Groups, a.status)})
			}
			return a.status, a.err
		case <-ticker.C:
			if status, err := s.status(ctx); err == nil {
				report(stage.Progress{Total: total, Placed: placedOf(ask.Groups, status)})
			}
		}
	}
}

// placedOf counts the placed instances of groups.
func placedOf(groups []string, status control.Status) int {
	placed := 0
	for _, name := range groups {
		placed += status.Groups[name].Placed
	}
	return placed
}

// shown is how many faults a reason spells out.
const shown = 3

// placed says what became of a placement.
func placed(in stage.Input, groups []string, status control.Status) stage.Result {
	result := stage.Result{Verdict: stage.Passed, Placed: status.New, Kept: status.Kept}
	faults := max(status.FaultCount, len(status.Faults))
	if faults == 0 {
		return result
	}
	result.Verdict = stage.Invalid
	names := slices.SortedFunc(maps.Keys(status.Faults), byInstance)
	result.Failing = names[:min(len(names), 10)]
	var why []string
	for _, name := range names[:min(len(names), shown)] {
		why = append(why, name+": "+status.Faults[name])
	}
	if faults > len(why) {
		why = append(why, "…")
	}
	result.Reason = fmt.Sprintf("%d of %s could not be placed: %s", faults, count(instances(in, groups)), strings.Join(why, "; "))
	return result
}

// byInstance orders group/index by group and then by number.
func byInstance(a, b string) int {
	groupA, indexA, _ := strings.Cut(a, "/")
	groupB, indexB, _ := strings.Cut(b, "/")
	if groupA != groupB {
		return strings.Compare(groupA, groupB)
	}
	if len(indexA) != len(indexB) {
		return len(indexA) - len(indexB)
	}
	return strings.Compare(indexA, indexB)
}

// count is a number of instances in words.
func count(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", n)
}
