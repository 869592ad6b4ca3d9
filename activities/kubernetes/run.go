package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/sidecar/control"
)

const (
	// waitFor is how long one question after a stage's news may stay open.
	waitFor = 10 * time.Second
	// closesWithin is how long a stage may take to end everywhere once it was halted.
	closesWithin = 20 * time.Second
	// pastDeadline is how long a node may be silent after the stage's own time is over: its sidecar ends the stage by itself.
	pastDeadline = 20 * time.Second
)

// Run opens the gate on every node and waits until every instance has an outcome. The gate is opened once per attempt of
// the stage: instances that are lost with their pod or node take another attempt, which places only those anew.
func (g *Ground) Run(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	if why := sidecars.CheckParams(in); why != "" {
		return sidecars.Invalid("%s", why), nil
	}
	unlock, err := sidecars.Lock(ctx, g.options.Home.Run(in.Run.ID))
	if err != nil {
		return stage.Result{}, err
	}
	unlock = sync.OnceFunc(unlock)
	defer unlock()
	s, err := g.open(in.Run, in)
	if err != nil {
		return g.known(ctx, "preparing the run", err)
	}
	defer s.close()
	why, err := s.gate(ctx, report)
	if err != nil {
		return g.known(ctx, "preparing the run", err)
	}
	if why != "" {
		return sidecars.Invalid("%s", why), nil
	}
	f := newFollowing(s)
	err = f.open(ctx)
	unlock()
	if err == nil {
		err = f.follow(ctx, report)
	}
	if err != nil {
		return g.known(ctx, "running the instances", err)
	}
	s.bringRecords(ctx)
	return sidecars.Outcome(in, f.sum()), nil
}

// gate makes sure that all is in place for this attempt's gate to be opened, or was when it was opened. The string is why
// it isn't.
func (s *session) gate(ctx context.Context, report func(stage.Progress)) (string, error) {
	if s.state.Opened[sidecars.Key(s.in)] != "" {
		if err := s.connect(ctx); err != nil {
			return "", err
		}
		return "", s.look(ctx)
	}
	why, err := s.revive(ctx, s.in.Stage.Run.Groups, report)
	if why != "" || err != nil {
		return why, err
	}
	s.state.Opened[sidecars.Key(s.in)] = opening
	s.state.Written = true
	return "", s.state.write(s.folder)
}

// following is a run stage on all nodes of a run.
type following struct {
	*session
	key   string
	nodes []*node
	// instances are those on each node, as group/index.
	instances map[string][]string

	mu    sync.Mutex
	parts []part
	// halted is when the stage was ended everywhere, because of what happened on one node.
	halted time.Time
	news   chan struct{} // holds one token after a change
}

func newFollowing(s *session) *following {
	f := &following{session: s, key: sidecars.Key(s.in), nodes: s.named(s.state.Holders), instances: map[string][]string{}, news: make(chan struct{}, 1)}
	for _, name := range s.state.Holders {
		f.parts = append(f.parts, part{node: name, lead: name == s.state.Lead})
	}
	for _, p := range s.view.all() {
		if slices.Contains(s.in.Stage.Run.Groups, p.Group) {
			f.instances[p.Node] = append(f.instances[p.Node], instance(p.Group, p.Index))
		}
	}
	for _, names := range f.instances {
		slices.SortFunc(names, sidecars.ByInstance)
	}
	return f
}

// open asks every node to open the gate, unless all are known to have been asked.
func (f *following) open(ctx context.Context) error {
	if f.state.Opened[f.key] == opened {
		return nil
	}
	ask := sidecars.RunStage(f.in)
	err := f.each(ctx, func(ctx context.Context, i int) error {
		return f.asked(ctx, i, func(ctx context.Context) (control.RunStatus, error) { return f.nodes[i].control.Open(ctx, f.key, ask) })
	})
	if err != nil {
		return err
	}
	f.state.Opened[f.key] = opened
	return f.state.write(f.folder)
}

// each does something for each node, for all at once.
func (f *following) each(ctx context.Context, do func(ctx context.Context, i int) error) error {
	position := positions(f.state.Holders)
	return f.onAll(ctx, f.nodes, func(ctx context.Context, n *node) error { return do(ctx, position[n.name]) })
}

// asked makes a call about the stage on one node, and takes down what it says. That the node or the stage is lost there
// is no error.
func (f *following) asked(ctx context.Context, i int, call func(context.Context) (control.RunStatus, error)) error {
	var status control.RunStatus
	most := max(time.Until(f.in.Deadline), 0) + pastDeadline
	err := f.patient(ctx, f.nodes[i], most, func(ctx context.Context) (err error) {
		status, err = call(ctx)
		return err
	})
	var away *awayFault
	switch {
	case err == nil:
		f.set(i, func(p *part) { p.status = status })
	case errors.As(err, &away):
		f.set(i, func(p *part) { p.lost = away.Error() })
	case unknownStage(err):
		f.set(i, func(p *part) {
			p.lost = fmt.Sprintf("the sidecar on node %s is not the one that opened the gate: that one is gone", p.node)
		})
	default:
		return fmt.Errorf("node %s: %w", f.nodes[i].name, err)
	}
	return nil
}

func (f *following) set(i int, change func(*part)) {
	f.mu.Lock()
	change(&f.parts[i])
	f.mu.Unlock()
	select {
	case f.news <- struct{}{}:
	default:
	}
}

func (f *following) part(i int) part {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.parts[i]
}

// follow waits for the end of the stage on all nodes and reports on the way. What ends it on one of them, ends it on all.
func (f *following) follow(ctx context.Context, report func(stage.Progress)) error {
	ctx, cancel := context.WithCancel(ctx)
	var attending sync.WaitGroup
	defer attending.Wait()
	defer cancel()
	failed := make(chan error, 1)
	attending.Go(func() {
		failed <- f.each(ctx, f.attend)
	})
	for {
		sum := f.sum()
		report(sidecars.Progress(sum))
		if sum.Done || !f.halted.IsZero() && time.Since(f.halted) > closesWithin {
			return nil
		}
		if f.halted.IsZero() && f.decided(sum) {
			f.halted = time.Now()
			attending.Go(func() { f.halt(ctx) })
		}
		var late <-chan time.Time
		if !f.halted.IsZero() {
			late = time.After(closesWithin)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-failed:
			if err != nil {
				return err
			}
			failed = nil // every node is over
		case <-f.news:
		case <-late:
		}
	}
}

// attend follows the stage on one node to its end.
func (f *following) attend(ctx context.Context, i int) error {
	for !f.part(i).over() {
		since := f.part(i).status.Version
		err := f.asked(ctx, i, func(ctx context.Context) (control.RunStatus, error) {
			return f.nodes[i].control.Wait(ctx, f.key, since, waitFor)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// decided says whether the stage is decided before it has ended everywhere: one node has lost instances or can't go on,
// or more have failed than may where the first failure ends it.
func (f *following) decided(sum control.RunStatus) bool {
	return sum.Fault != "" || sum.Lost > 0 || sum.FailedFast
}

// halt ends the stage on every node that can be reached.
func (f *following) halt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, closesWithin)
	defer cancel()
	err := f.each(ctx, func(ctx context.Context, i int) error {
		if f.part(i).over() {
			return nil
		}
		return f.asked(ctx, i, func(ctx context.Context) (control.RunStatus, error) { return f.nodes[i].control.Halt(ctx, f.key) })
	})
	if err != nil && ctx.Err() == nil {
		f.ground.options.Log.Warn("a stage could not be halted everywhere", "run", f.in.Run.ID, "stage", f.in.Stage.Name, "error", err)
	}
}

// sum is where the stage stands on all nodes together.
func (f *following) sum() control.RunStatus {
	f.mu.Lock()
	parts := slices.Clone(f.parts)
	f.mu.Unlock()
	sum := sumRun(parts)
	for _, p := range parts {
		if p.lost == "" {
			continue
		}
		lost := f.instances[p.node]
		sum.Lost += len(lost)
		sum.Fault = fmt.Sprintf("%s; %s", p.lost, lostText(lost))
	}
	if sum.Fault != "" {
		if why := f.casualties(); why != "" {
			sum.Fault += " (" + why + ")"
		}
	}
	ask := sidecars.RunStage(f.in)
	if ask.FailFast && failures(sum)-sum.Unfinished > ask.MaxFailures {
		sum.FailedFast = true
	}
	if sum.FailedFast {
		sum.Halted = false // by this, not by somebody
	}
	return sum
}

// casualties is what the cluster says of pods that ended while they were needed.
func (f *following) casualties() string {
	var why []string
	f.view.each(seats(f.in.Run.ID, f.in.Groups), func(s seat, there pod) {
		if there.Trouble.Ended && len(why) < sidecars.Shown {
			why = append(why, s.name()+": "+there.Trouble.Text)
		}
	})
	return joinedBy(why, "; ")
}

// lostText names instances that are lost.
func lostText(names []string) string {
	if len(names) == 0 {
		return "no instance of the stage was there"
	}
	were := "were"
	if len(names) == 1 {
		were = "was"
	}
	text := fmt.Sprintf("%s %s lost (%s", sidecars.Count(len(names)), were, joined(names[:min(len(names), mostFailing)]))
	if len(names) > mostFailing {
		text += ", …"
	}
	return text + ")"
}
