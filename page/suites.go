package page

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/groundplan/groundplan/runs"
)

const suitesFeed = "suites"

func suiteFeed(name string) string { return "suite " + name }

// How many turns are shown of each suite, and of one that is looked at by itself.
const (
	turnsOfEach = 12
	turnsOfOne  = 200
)

// suitesStream tells of all suites, or of the one in the path.
func (p *Page) suitesStream(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if name == "" {
		p.stream(w, r, suitesFeed, func() subject { return newSuites(p.home, p.services, "", turnsOfEach) })
		return
	}
	if err := runs.CheckSuite(name); err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	p.stream(w, r, suiteFeed(name), func() subject { return newSuites(p.home, p.services, name, turnsOfOne) })
}

// suites are all suites, or one of them.
type suites struct {
	home     runs.Home
	services Services
	only     string
	turns    int
	told     map[string][]byte // suite → as it was told
	trouble  string
}

// suiteMessage tells all of a suite: there is little of it.
type suiteMessage struct {
	Suite
	// Scheduled says that it has a schedule: one that was deleted only has its history.
	Scheduled bool             `json:"scheduled"`
	Turns     []runs.SuiteTurn `json:"turns"`
	// Older is how many turns are not shown.
	Older int `json:"older,omitempty"`
}

func newSuites(home runs.Home, services Services, only string, turns int) *suites {
	return &suites{home: home, services: services, only: only, turns: turns, told: map[string][]byte{}}
}

func (s *suites) pace() time.Duration { return 2 * time.Second }

func (s *suites) look(ctx context.Context) func(teller) {
	ctx, cancel := context.WithTimeout(ctx, 2*asked)
	defer cancel()
	scheduled, err := s.services.Suites(ctx)
	all := map[string]*suiteMessage{}
	for _, suite := range scheduled {
		all[suite.Name] = &suiteMessage{Suite: suite, Scheduled: true}
	}
	names, _ := s.home.SuiteNames() // a history that can't be read is none
	for _, name := range names {
		if all[name] == nil {
			// While the services don't answer nobody knows whether it has a schedule.
			all[name] = &suiteMessage{Suite: Suite{Name: name}, Scheduled: err != nil}
		}
	}
	for name, message := range all {
		if s.only != "" && name != s.only {
			delete(all, name)
			continue
		}
		message.Turns, _ = s.home.ReadSuiteTurns(name)
		message.Older = max(len(message.Turns)-s.turns, 0)
		message.Turns = append([]runs.SuiteTurn{}, message.Turns[:min(len(message.Turns), s.turns)]...)
	}
	return func(tell teller) { s.take(all, err, tell) }
}

func (s *suites) take(all map[string]*suiteMessage, err error, tell teller) {
	s.trouble = said(tell, s.trouble, err)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		data, fault := json.Marshal(all[name])
		if fault == nil && !bytes.Equal(data, s.told[name]) {
			s.told[name] = data
			tell("suite", json.RawMessage(data))
		}
	}
	for name := range s.told {
		if all[name] == nil {
			delete(s.told, name)
			tell("gone", map[string]string{"name": name})
		}
	}
}

func (s *suites) whole(tell teller) {
	for _, name := range slices.Sorted(maps.Keys(s.told)) {
		tell("suite", json.RawMessage(s.told[name]))
	}
	if s.trouble != "" {
		tell("note", note{s.trouble})
	}
}
