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

// countsEvery is how often the counts are asked for while a sidecar is at work.
const countsEvery = 200 * time.Millisecond

// while makes a call that takes long, and looks around every now and then until it is answered.
func while[Reply any](ctx context.Context, call func(context.Context) (Reply, error), look func()) (Reply, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		reply Reply
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		reply, err := call(ctx)
		done <- answer{reply, err}
	}()
	ticker := time.NewTicker(countsEvery)
	defer ticker.Stop()
	for {
		select {
		case a := <-done:
			return a.reply, a.err
		case <-ticker.C:
			look()
		}
	}
}

// place asks the sidecar to place, and reports how far it is until it answers.
func (s *session) place(ctx context.Context, ask control.Placement, report func(stage.Progress)) (control.Status, error) {
	total := instances(s.in, ask.Groups)
	report(stage.Progress{Total: total})
	status, err := while(ctx, func(ctx context.Context) (control.Status, error) { return s.client.Place(ctx, ask) }, func() {
		if status, err := s.status(ctx); err == nil {
			report(stage.Progress{Total: total, Placed: placedOf(ask.Groups, status)})
		}
	})
	if err == nil {
		placed := placedOf(ask.Groups, status)
		report(stage.Progress{Total: total, Placed: placed, Waiting: placed})
	}
	return status, err
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
