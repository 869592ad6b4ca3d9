//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/keeper/events"
	"github.com/groundplan/groundplan/sidecar/keeper/outcome"
	"github.com/groundplan/groundplan/sidecar/links"
)

// mostNamed is how many of an event's instances a sentence names.
const mostNamed = 5

// happenings are what a stage's events do.
type happenings struct{ stage *stage }

// happen starts the events of the stage. Its gate is open, unless it is to end already.
func (s *stage) happen() *events.Schedule {
	s.mu.Lock()
	opened := s.opened
	s.mu.Unlock()
	return events.Start(s.ctx, opened, s.ask.Events, s.past, happenings{s}, s.fault)
}

// Reached waits until every instance has signalled a state.
func (h happenings) Reached(ctx context.Context, state string) error {
	s := h.stage
	return s.keeper.sync.Barrier(ctx, s.key, s.prefix()+"states:"+state, int64(len(s.all)))
}

// Begin does what an event asks for.
func (h happenings) Begin(ctx context.Context, e pipelines.Event) ([]string, error) {
	s := h.stage
	switch {
	case e.Network != nil:
		return nil, s.keeper.shaping.Begin(ctx, links.Event{Name: s.overlay(e), Network: *e.Network})
	case e.Kill != nil:
		names, chosen := s.choose(e.Name, *e.Kill, func(m *member) bool { return true })
		return names, s.fell(e, chosen)
	case e.Pause != nil:
		names, chosen := s.choose(e.Name, *e.Pause, func(m *member) bool { return !m.paused }) // else two would let go of it
		return names, s.freeze(chosen)
	}
	return nil, errors.New("it asks for nothing")
}

// End takes it back.
func (h happenings) End(ctx context.Context, e pipelines.Event, _ []string) error {
	s := h.stage
	switch {
	case e.Network != nil:
		return s.keeper.shaping.End(ctx, s.overlay(e))
	case e.Kill != nil:
		return s.raise(ctx, s.acted(e.Name))
	}
	return s.thaw(s.acted(e.Name))
}

// overlay is the name of an event's change among those of all stages that run.
func (s *stage) overlay(e pipelines.Event) string { return s.ask.Stage + "/" + e.Name }

// Tell writes down what has happened.
func (h happenings) Tell(what events.Happening) {
	s := h.stage
	text := sentence(what, s.spread())
	switch what.What {
	case events.Began:
		s.note(step{Began: &happened{Event: what.Event.Name, Time: what.Time, Instances: what.Instances}})
	case events.Ended:
		s.note(step{Ended: &happened{Event: what.Event.Name, Time: what.Time}})
	}
	if !s.leads() {
		return
	}
	line := runs.Event{
		Time: what.Time, Stage: s.ask.Stage, Text: text, Event: what.Event.Name, Attempt: s.key,
		At: what.Time.Sub(s.opened), Took: what.Took, Instances: what.Instances,
	}
	if !what.Due.IsZero() {
		line.Due = what.Due.Sub(s.opened)
	}
	s.mu.Lock()
	switch what.What {
	case events.Began:
		line.Kind, s.now.Event = runs.KindEventBegan, text
	case events.Ended:
		line.Kind, s.now.Event = runs.KindEventEnded, text
	case events.Missed:
		line.Kind, line.At = runs.KindEventMissed, 0
		s.now.Missed = append(s.now.Missed, text)
	}
	s.changedLocked()
	s.mu.Unlock()
	s.keeper.record(line)
}

// sentence says what has happened. Of instances that are spread over nodes nobody knows them all: it is said who was
// chosen then.
func sentence(h events.Happening, spread bool) string {
	title, e := events.Title(h.Event.Name), h.Event
	if h.What == events.Missed {
		if h.Due.IsZero() {
			return title + " did not happen: the stage was over before " + moment(e.At)
		}
		return title + " did not happen: the stage was over before its time"
	}
	did := [...]string{events.Began: "changed the network", events.Ended: "is over: the network has healed"}
	switch {
	case spread && e.Kill != nil:
		did = [...]string{events.Began: "killed what still ran of " + chosen(h.Instances), events.Ended: "is over: started again what it had killed"}
	case spread && e.Pause != nil:
		did = [...]string{events.Began: "stopped what still ran of " + chosen(h.Instances), events.Ended: "is over: let go of what it had stopped"}
	case e.Network == nil && len(h.Instances) == 0:
		did = [...]string{events.Began: "found no instance of " + group(e) + " that still ran", events.Ended: "is over"}
	case e.Kill != nil:
		did = [...]string{events.Began: "killed " + several(h.Instances), events.Ended: "is over: started " + several(h.Instances) + " again"}
	case e.Pause != nil:
		did = [...]string{events.Began: "stopped " + several(h.Instances), events.Ended: "is over: let go of " + several(h.Instances)}
	}
	return title + " " + did[h.What]
}

// group is the one that an event chooses from.
func group(e pipelines.Event) string {
	if e.Kill != nil {
		return e.Kill.Group
	}
	return e.Pause.Group
}

// moment is what an event waits for that has no time yet.
func moment(a pipelines.Anchor) string {
	switch {
	case a.Healed:
		return events.Title(a.Event) + " was"
	case a.Event != "":
		return events.Title(a.Event) + " began"
	}
	return "every instance had signalled the state " + a.State
}

// several names instances, or says how many they are and names the first few.
func several(names []string) string {
	if len(names) <= mostNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%d instances (%s, …)", len(names), strings.Join(names[:mostNamed], ", "))
}

// chosen says how many instances were chosen, and who they are.
func chosen(names []string) string {
	if len(names) <= mostNamed {
		return plural(len(names), "chosen instance", "chosen instances") + ": " + strings.Join(names, ", ")
	}
	return plural(len(names), "chosen instance", "chosen instances") + ": " + strings.Join(names[:mostNamed], ", ") + ", …"
}

// choose draws the instances that an event is about, among those that still run and are fit, and returns the members
// among them. Where they are spread over nodes nobody knows who still runs: there it draws among all of the group, the same
// on every node, and returns the members that still run and are fit.
func (s *stage) choose(event string, c pipelines.Choice, fit func(*member) bool) (names []string, members []*member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.acts[event]; before != nil { // another keeper has chosen, and not told
		return before.Chosen, s.atSlots(before.Slots)
	}
	group := make(map[int]*place)
	var indices []int
	for _, p := range s.all {
		if p.group.Name != c.Group {
			continue
		}
		group[p.index] = p
		if m := s.bySlot[p.slot]; s.spread() || m != nil && m.standsLocked() && fit(m) {
			indices = append(indices, p.index)
		}
	}
	done := &act{Event: event}
	draw := events.Draw{Seed: s.ask.Seed, Stage: s.ask.Stage, Event: event}
	for _, index := range draw.Choose(c, len(group), indices) {
		p := group[index]
		done.Chosen = append(done.Chosen, p.name)
		if m := s.bySlot[p.slot]; m != nil && m.standsLocked() && fit(m) {
			done.Slots, members = append(done.Slots, p.slot), append(members, m)
		}
	}
	s.acts[event] = done
	s.note(step{Act: done})
	return done.Chosen, members
}

// acted are the members that an event has done something to.
func (s *stage) acted(event string) []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	if done := s.acts[event]; done != nil {
		return s.atSlots(done.Slots)
	}
	return nil
}

// atSlots are the members at slots.
func (s *stage) atSlots(slots []int) []*member {
	var found []*member
	for _, slot := range slots {
		if m := s.bySlot[slot]; m != nil {
			found = append(found, m)
		}
	}
	return found
}

// standsLocked says whether a member still runs, and has not said how it ends.
func (m *member) standsLocked() bool {
	return m.running && m.cut == "" && m.fall == nil && !outcome.Decided(m.group.Outcome, m.report)
}
