//go:build linux

package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/events"
	"github.com/groundplan/groundplan/sidecar/keeper/outcome"
	"github.com/groundplan/groundplan/sidecar/links"
)

// adopt goes on with what another keeper was asked for that is no more: it asks itself again, and everything converges.
func (k *Keeper) adopt(ctx context.Context) error {
	before, err := readAsked(k.folder)
	if err != nil {
		return err
	}
	k.asked = before
	if before.Placement == nil {
		k.tell("sidecar-started", "", "the sidecar has started")
		return nil
	}
	k.tell("sidecar-started", "", "the sidecar has started again, and goes on")
	shaping, holds := k.shaping.(Holder)
	if holds {
		shaping.Hold()
	}
	if err := k.recall(ctx, before); err != nil {
		return err
	}
	if holds {
		if err := shaping.Resume(ctx); err != nil {
			return fmt.Errorf("putting the data network in force as it was: %w", err)
		}
	}
	for s := range k.active { // nobody else knows of any yet
		k.work.Go(s.conduct)
	}
	return nil
}

// recall brings the keeper to where another has left it.
func (k *Keeper) recall(ctx context.Context, before asked) error {
	_, err := k.Place(ctx, *before.Placement)
	if refused := new(control.Error); errors.As(err, &refused) { // as it was before: nothing runs here
		k.log.Warn("what was asked for before can't be placed", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("placing once more what is there: %w", err)
	}
	if before.Network != nil {
		if err := k.adoptNetwork(ctx, *before.Network); err != nil {
			return err
		}
	}
	keys := slices.SortedFunc(maps.Keys(before.Stages), func(a, b string) int {
		return cmp.Or(before.Stages[a].Started.Compare(before.Stages[b].Started), strings.Compare(a, b))
	})
	for _, key := range keys {
		if err := k.adoptStage(ctx, key, *before.Stages[key]); err != nil {
			return fmt.Errorf("going on with stage %s: %w", before.Stages[key].Ask.Stage, err)
		}
	}
	return nil
}

// adoptNetwork sets the data network as it was, without a new proof. One that was not proved yet is when it is asked for
// again.
func (k *Keeper) adoptNetwork(ctx context.Context, n askedNetwork) error {
	if err := k.shaping.SetStage(ctx, n.Ask.State); err != nil {
		return fmt.Errorf("setting the data network as it was: %w", err)
	}
	if n.Reply == nil {
		return nil
	}
	s := &setting{key: n.Ask.Key, done: make(chan struct{}), reply: *n.Reply}
	close(s.done)
	k.mu.Lock()
	k.setting = s
	k.mu.Unlock()
	return nil
}

func (k *Keeper) adoptStage(ctx context.Context, key string, before askedStage) error {
	if before.Ended != nil {
		k.mu.Lock()
		k.stages[key] = closedStage(k, key, before)
		k.mu.Unlock()
		return nil
	}
	steps, err := readLines[step](stepsPath(k.folder, key))
	if err != nil {
		return err
	}
	results, err := readLines[control.Instance](k.folder.Stage(before.Ask.Stage))
	if err != nil {
		return err
	}
	k.mu.Lock()
	s, err := k.reopen(key, before)
	if err == nil {
		s.recall(steps, slices.DeleteFunc(results, func(i control.Instance) bool { return i.Attempt != key }))
	}
	k.mu.Unlock()
	if err != nil {
		return err
	}
	return errors.Join(s.overlayAgain(ctx), s.moves.again(ctx), s.configureAgain(ctx))
}

// overlayAgain puts in force what events have changed of the network and not taken back, in the order in which they began.
func (s *stage) overlayAgain(ctx context.Context) error {
	standing := slices.DeleteFunc(slices.Clone(s.ask.Events), func(e pipelines.Event) bool {
		past := s.past[e.Name]
		return e.Network == nil || past.Began.IsZero() || !past.Ended.IsZero()
	})
	slices.SortFunc(standing, func(a, b pipelines.Event) int { return s.past[a.Name].Began.Compare(s.past[b.Name].Began) })
	for _, e := range standing {
		if err := s.keeper.shaping.Begin(ctx, links.Event{Name: s.overlay(e), Network: *e.Network}); err != nil {
			return fmt.Errorf("changing the data network as %s did: %w", events.Title(e.Name), err)
		}
	}
	return nil
}

// reopen makes the stage anew. Whoever waits for it to change sees that it has. The caller holds mu.
func (k *Keeper) reopen(key string, before askedStage) (*stage, error) {
	all, err := k.world.choose(before.Ask, true)
	if err != nil {
		return nil, err
	}
	s, err := newStage(k, key, before.Ask, all)
	if err != nil {
		return nil, err
	}
	s.adopted, s.now.Started, s.now.Version = true, before.Started, time.Now().UnixMicro()
	k.stages[key] = s
	k.active[s] = struct{}{}
	return s, nil
}

// closedStage is a stage that is over.
func closedStage(k *Keeper, key string, before askedStage) *stage {
	s := &stage{
		keeper: k, key: key, ask: before.Ask, now: *before.Ended,
		stopped: make(chan struct{}), finished: make(chan struct{}), over: make(chan struct{}), changed: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(k.ctx)
	s.cancel()
	close(s.finished)
	close(s.over)
	return s
}

// recall brings a stage to where another keeper has left it. Nobody else knows it yet.
func (s *stage) recall(steps []step, results []control.Instance) {
	for _, what := range steps {
		if what.Stopped != causeNone {
			s.stopLocked(what.Stopped)
		}
	}
	for _, m := range s.members {
		if s.cause != causeNone {
			m.cut, m.atEnd = s.cause.reason(), true
		}
	}
	for _, result := range results {
		s.recallResult(result)
	}
	for _, what := range steps {
		s.recallStep(what)
	}
	for _, m := range s.members {
		m.started = s.opened
		if !m.ended && outcome.Decided(m.group.Outcome, m.report) {
			m.graceLocked()
		}
	}
	if s.left == 0 && len(s.members) > 0 {
		close(s.finished)
	}
}

// recallResult takes over what became of a member.
func (s *stage) recallResult(r control.Instance) {
	p := s.keeper.world.byName[fmt.Sprintf("%s/%d", r.Group, r.Index)]
	if p == nil || p.runs == nil || p.runs.stage != s || p.runs.ended {
		return
	}
	m := p.runs
	atEnd := r.Reason == s.cause.reason() || r.Reason == notStarted || strings.HasSuffix(r.Reason, notAgain)
	if m.atEnd = s.cause != causeNone && atEnd; m.atEnd {
		m.cut = r.Reason
	}
	s.concludeLocked(m, r)
}

// recallStep takes over a step.
func (s *stage) recallStep(what step) {
	switch {
	case what.Announced:
		s.announced = true
	case !what.Opened.IsZero():
		s.opened = what.Opened
	case what.Act != nil:
		s.acts[what.Act.Event] = what.Act
		s.recallAct(*what.Act)
	case what.Took != nil:
		s.moves.recall(*what.Took)
	case what.Began != nil:
		s.past[what.Began.Event] = events.Past{Began: what.Began.Time, Instances: what.Began.Instances}
		s.recallText(what.Began.Event, events.Began)
	case what.Ended != nil:
		past := s.past[what.Ended.Event]
		past.Ended = what.Ended.Time
		s.past[what.Ended.Event] = past
		s.recallText(what.Ended.Event, events.Ended)
		s.recallEnd(what.Ended.Event)
	default:
		s.recallMember(what)
	}
}

// recallMember takes over a step of one member.
func (s *stage) recallMember(what step) {
	of := func(slot int) *member {
		if m := s.bySlot[slot]; m != nil {
			return m
		}
		return &member{place: new(place)}
	}
	switch {
	case what.Cut != nil:
		of(what.Cut.Slot).cut = what.Cut.Why
	case what.Said != nil:
		of(what.Said.Slot).report.Add(what.Said.Report)
	case what.Wished != nil:
		m := of(what.Wished.Slot)
		m.wished = what.Wished.N
		m.place.configs.waiting = append(m.place.configs.waiting, wish{
			n: what.Wished.N, prefix: what.Wished.Prefix, config: what.Wished.Config, entered: m.entered,
		})
	case what.Applied != nil:
		of(what.Applied.Slot).applied = what.Applied.N
	case what.Again != nil:
		m := of(what.Again.Slot)
		m.starts, m.before = what.Again.Starts-1, used{what.Again.Peak, what.Again.CPU}
		m.fall, m.paused, m.report = nil, false, outcome.Report{}
		m.place.configs.waiting = nil
	}
}

// recallAct takes over what an event has done, or was about to do: it will do that again, but a member may be gone by it
// already.
func (s *stage) recallAct(a act) {
	for _, e := range s.ask.Events {
		for _, slot := range a.Slots {
			m := s.bySlot[slot]
			switch {
			case e.Name != a.Event || m == nil || m.ended:
			case e.Kill != nil:
				m.fall = newFall(e)
			case e.Pause != nil:
				m.paused = true
			}
		}
	}
}

// recallText has the status tell of an event what it told before.
func (s *stage) recallText(event string, what events.What) {
	i := slices.IndexFunc(s.ask.Events, func(e pipelines.Event) bool { return e.Name == event })
	if i >= 0 && s.leads() {
		s.now.Event = sentence(events.Happening{Event: s.ask.Events[i], What: what, Instances: s.past[event].Instances}, s.spread())
	}
}

// recallEnd takes over that an event is over.
func (s *stage) recallEnd(event string) {
	if a := s.acts[event]; a != nil {
		for _, slot := range a.Slots {
			if m := s.bySlot[slot]; m != nil {
				m.paused = false
			}
		}
	}
}

// configureAgain puts in force what plans had configured of their network, and has what was not applied yet wait for that.
func (s *stage) configureAgain(ctx context.Context) error {
	for _, m := range s.members {
		c := &m.place.configs
		all := c.waiting
		c.waiting = nil
		var last Config
		for _, w := range all {
			if w.n > m.applied {
				m.enqueue(w)
				continue
			}
			if wanted, _, err := m.wanted(w); err == nil {
				last, c.asked, c.address = wanted, true, wanted.Address
			}
		}
		if !c.asked {
			continue
		}
		var refused *Refusal
		if err := s.keeper.shaping.Configure(ctx, m.place.slot, last); err != nil && !errors.As(err, &refused) {
			return fmt.Errorf("configuring the network of %s as it was: %w", m.place.name, err)
		}
	}
	return nil
}
