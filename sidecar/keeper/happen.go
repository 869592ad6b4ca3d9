//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	return events.Start(s.ctx, opened, s.ask.Events, happenings{s}, s.fault)
}

// Reached waits until every instance has signalled a state.
func (h happenings) Reached(ctx context.Context, state string) error {
	s := h.stage
	return s.keeper.sync.Barrier(ctx, s.key, s.prefix()+"states:"+state, int64(len(s.members)))
}

// Begin does what an event asks for.
func (h happenings) Begin(ctx context.Context, e pipelines.Event) ([]string, error) {
	s := h.stage
	switch {
	case e.Network != nil:
		return nil, s.keeper.shaping.Begin(ctx, links.Event{Name: s.overlay(e), Network: *e.Network})
	case e.Kill != nil:
		chosen := s.choose(e.Name, *e.Kill, func(m *member) bool { return true })
		return namesOf(chosen), s.fell(e, chosen)
	case e.Pause != nil:
		chosen := s.choose(e.Name, *e.Pause, func(m *member) bool { return !m.paused }) // else two would let go of it
		return namesOf(chosen), s.freeze(chosen)
	}
	return nil, errors.New("it asks for nothing")
}

// End takes it back.
func (h happenings) End(ctx context.Context, e pipelines.Event, instances []string) error {
	s := h.stage
	switch {
	case e.Network != nil:
		return s.keeper.shaping.End(ctx, s.overlay(e))
	case e.Kill != nil:
		return s.raise(ctx, s.called(instances))
	}
	return s.thaw(s.called(instances))
}

// overlay is the name of an event's change among those of all stages that run.
func (s *stage) overlay(e pipelines.Event) string { return s.ask.Stage + "/" + e.Name }

// Tell writes down what has happened.
func (h happenings) Tell(what events.Happening) {
	s := h.stage
	text := sentence(what)
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

// sentence says what has happened.
func sentence(h events.Happening) string {
	title, e := events.Title(h.Event.Name), h.Event
	if h.What == events.Missed {
		if h.Due.IsZero() {
			return title + " did not happen: the stage was over before " + moment(e.At)
		}
		return title + " did not happen: the stage was over before its time"
	}
	did := [...]string{events.Began: "changed the network", events.Ended: "is over: the network has healed"}
	switch {
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

// choose draws the members that an event is about, among those that still run and are fit.
func (s *stage) choose(event string, c pipelines.Choice, fit func(*member) bool) []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	running := make(map[int]*member)
	for _, m := range s.members {
		if m.group.Name != c.Group {
			continue
		}
		all++
		if m.standsLocked() && fit(m) {
			running[m.place.index] = m
		}
	}
	draw := events.Draw{Seed: s.ask.Seed, Stage: s.ask.Stage, Event: event}
	var chosen []*member
	for _, index := range draw.Choose(c, all, slices.Sorted(maps.Keys(running))) {
		chosen = append(chosen, running[index])
	}
	return chosen
}

// standsLocked says whether a member still runs, and has not said how it ends.
func (m *member) standsLocked() bool {
	return m.running && m.cut == "" && m.fall == nil && !outcome.Decided(m.group.Outcome, m.report)
}

func namesOf(members []*member) []string {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.place.name
	}
	return names
}

// called finds members by name.
func (s *stage) called(names []string) []*member {
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	var found []*member
	for _, m := range s.members {
		if wanted[m.place.name] {
			found = append(found, m)
		}
	}
	return found
}
