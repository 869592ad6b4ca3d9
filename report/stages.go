package report

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/report/plot"
	"github.com/groundplan/groundplan/runs"
)

// mostShownEvents bounds how many lines of the event log are shown: the first ones and the last ones.
const mostShownEvents = 300

// stageRow is one attempt of a stage on the time line.
type stageRow struct {
	Name, Kind, State, Note string
	Attempt                 int
	// Retried says that another attempt took its place.
	Retried bool
	Started time.Time
	Took    string
	Lane    template.HTML
	// Spans are the events of the stage that lasted, and what happened at once.
	Spans []spanRow
}

// spanRow is an event on the time line.
type spanRow struct {
	Name, Text, Took string
	Lane             template.HTML
}

// stages are all attempts on one axis of time, and the labels of the axis.
func (m *material) stages(now time.Time) (rows []stageRow, axis []string) {
	from, to := m.span(now)
	length := to.Sub(from)
	place := func(t time.Time) float64 {
		if length <= 0 {
			return 0
		}
		return float64(t.Sub(from)) / float64(length)
	}
	for _, a := range m.attempts {
		row := stageRow{Name: clean(a.Stage, 100), Kind: string(a.Kind), State: string(a.Verdict), Attempt: a.Attempt, Retried: !a.newest, Note: note(a), Started: a.Started}
		end := a.Ended
		if a.running {
			row.State, end = stage.StatusRunning, to
		}
		if !a.Started.IsZero() && a.Verdict != stage.Skipped {
			end = later(end, a.Started)
			row.Took = lasted(end.Sub(a.Started))
			row.Lane = plot.Lane(plot.Part{Shape: plot.Bar, From: place(a.Started), To: place(end), Class: badge(row.State).Class})
			row.Spans = m.spans(a, end, place)
		}
		rows = append(rows, row)
	}
	rows = append(rows, m.holds(to, place)...)
	slices.SortStableFunc(rows, func(a, b stageRow) int {
		if a.Started.IsZero() != b.Started.IsZero() { // those that never began come last
			return -a.Started.Compare(b.Started)
		}
		return a.Started.Compare(b.Started)
	})
	if length > 0 && len(rows) > 0 {
		axis = []string{"0 s", lasted(length / 2), lasted(length)}
	}
	return rows, axis
}

// holds are the times in which the run waited for a person, with its instances kept.
func (m *material) holds(to time.Time, place func(time.Time) float64) []stageRow {
	var rows []stageRow
	for i, e := range m.events {
		if e.Kind != "run-"+stage.StatusHolding {
			continue
		}
		end, text := to, "and still does"
		for _, o := range m.events[i+1:] {
			if strings.HasPrefix(o.Kind, "run-") || o.Kind == "stage-started" {
				end, text = o.Time, ""
				break
			}
		}
		if !m.underWay() {
			text = ""
		}
		end = later(end, e.Time)
		rows = append(rows, stageRow{
			Name: strings.TrimSpace("the run held " + text), State: stage.StatusHolding, Started: e.Time, Took: lasted(end.Sub(e.Time)),
			Lane: plot.Lane(plot.Part{Shape: plot.Bar, From: place(e.Time), To: place(end), Class: stage.StatusHolding}),
		})
	}
	return rows
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// note is what is worth knowing of an attempt in a few words.
func note(a attempt) string {
	var parts []string
	if a.Verdict != stage.Passed && a.Reason != "" {
		parts = append(parts, a.Reason)
	}
	switch a.Kind {
	case pipelines.KindBuild:
		if n := len(a.Artifacts); n > 0 {
			parts = append(parts, plural(n, "artifact"))
		}
	case pipelines.KindSchedule:
		parts = append(parts, count(a.Placed, "placed"), count(a.Kept, "kept"))
	case pipelines.KindRun:
		parts = append(parts, outcomes(a.Outcomes))
	case pipelines.KindCollect:
		if n := len(a.Assertions); n > 0 && a.Verdict == stage.Passed {
			parts = append(parts, plural(n, "assertion")+" held")
		}
	}
	parts = append(parts, a.Notes...)
	return clean(strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " · "), 2*shownRunes)
}

func count(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s", n, what)
}

// outcomes adds up how the instances of all groups ended.
func outcomes(groups map[string]pipelines.Outcomes) string {
	var sum pipelines.Outcomes
	for _, o := range groups {
		sum.Succeeded += o.Succeeded
		sum.Failed += o.Failed
		sum.Crashed += o.Crashed
		sum.Silent += o.Silent
		sum.Killed += o.Killed
	}
	parts := []string{count(sum.Succeeded, "succeeded"), count(sum.Failed, "failed"), count(sum.Crashed, "crashed"), count(sum.Silent, "silent"), count(sum.Killed, "killed")}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " · ")
}

// spans are the events of an attempt. One that has not ended lasted as long as its stage.
func (m *material) spans(a attempt, end time.Time, place func(time.Time) float64) []spanRow {
	var rows []spanRow
	for i, e := range m.events {
		if e.Kind != runs.KindEventBegan || e.Stage != a.Stage || e.Attempt != a.key() || len(rows) == 100 {
			continue
		}
		last := end
		text := "until the stage ended"
		for _, o := range m.events[i+1:] {
			if o.Kind == runs.KindEventEnded && o.Event == e.Event && o.Attempt == e.Attempt {
				last, text = o.Time, "for "+lasted(o.Time.Sub(e.Time))
				break
			}
		}
		rows = append(rows, spanRow{
			Name: clean(e.Event, 60), Text: clean(e.Text, shownRunes), Took: fmt.Sprintf("at %s, %s", lasted(e.At), text),
			Lane: plot.Lane(plot.Part{Shape: plot.Bar, From: place(e.Time), To: place(last), Class: "event"}),
		})
	}
	return rows
}

// eventRow is a line of the event log.
type eventRow struct {
	Time        time.Time
	After       string // the run's start
	Kind, Stage string
	Text        string
}

// happened are the lines of the event log to be shown; of very many the first and the last ones.
func (m *material) happened() (rows []eventRow, left int) {
	events := m.events
	if len(events) > mostShownEvents {
		left = len(events) - mostShownEvents
		events = slices.Concat(events[:mostShownEvents/2], events[len(events)-mostShownEvents/2:])
	}
	for _, e := range events {
		row := eventRow{Time: e.Time, Kind: clean(e.Kind, 40), Stage: clean(e.Stage, 63), Text: clean(cmp.Or(e.Text, e.Kind), shownRunes)}
		if !m.record.Started.IsZero() {
			row.After = lasted(e.Time.Sub(m.record.Started))
		}
		rows = append(rows, row)
	}
	return rows, left
}
