package report

import (
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
)

// page is what a run's report shows.
type page struct {
	ID, Name string
	// State is the verdict, or where the run is.
	State string
	// Sentence is the reason in the record's words.
	Sentence string
	Made     time.Time
}

func (p *page) title() string { return p.State + ": " + p.ID }

func runPage(m *material, now time.Time) *page {
	defer m.files.Close()
	r := m.record
	p := &page{ID: m.id, Name: clean(r.Pipeline, 100), Made: now}
	p.State, p.Sentence = m.state()
	return p
}

// state is the word for where the run is, and the sentence about it: the record's own, without the word it begins with.
func (m *material) state() (word, sentence string) {
	r := m.record
	sentence = clean(strings.TrimPrefix(r.Reason, string(r.Verdict)+": "), 4*shownRunes)
	switch {
	case !m.recorded:
		return "running", "There is no record of this run yet: it is being started, or what started it was killed before it could write one."
	case r.Verdict != "":
		return string(r.Verdict), sentence
	case r.Status == stage.StatusHolding:
		return stage.StatusHolding, sentence
	}
	return stage.StatusRunning, "The run is under way."
}
