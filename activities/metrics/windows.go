package metrics

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundplan/groundplan/runs"
)

// Window is a time in which an event was in force.
type Window struct {
	Event string
	From  time.Time
	To    time.Time // the zero value: to the end
}

// holds says whether a time is in the window.
func (w Window) holds(at time.Time) bool {
	return !at.Before(w.From) && (w.To.IsZero() || !at.After(w.To))
}

// Windows finds in a run's event log when events lasted: from when they were in force to when their end began. One that
// has no end lasted until its stage was over. Events without a name are left out, since nobody can ask about them. The
// same name in several stages, or attempts, makes several windows.
func Windows(log []runs.Event) []Window {
	var windows []Window
	type key struct{ attempt, event string }
	open := map[key]int{}
	stages := map[key]string{}
	for _, e := range log {
		k := key{e.Attempt, e.Event}
		switch e.Kind {
		case runs.KindEventBegan:
			if strings.Contains(e.Event, " ") {
				continue
			}
			open[k], stages[k] = len(windows), e.Stage
			windows = append(windows, Window{Event: e.Event, From: e.Time})
		case runs.KindEventEnded:
			if i, began := open[k]; began {
				windows[i].To = e.Time.Add(-e.Took)
				delete(open, k)
			}
		case runs.KindStageClosed, runs.KindStageEnded:
			for k, i := range open {
				if stages[k] == e.Stage {
					windows[i].To = e.Time
					delete(open, k)
				}
			}
		}
	}
	return windows
}

// moment is when a line was written: its ts is in nanoseconds since 1970. ok is false for one without.
func moment(ts json.RawMessage) (at time.Time, ok bool) {
	ns, err := strconv.ParseInt(string(ts), 10, 64)
	if err != nil {
		float, err := strconv.ParseFloat(string(ts), 64)
		if err != nil || !(float > 0 && float < 1<<62) {
			return time.Time{}, false
		}
		ns = int64(float)
	}
	return time.Unix(0, ns), true
}

// within returns the parts whose windows hold a moment.
func (f *file) within(at time.Time) []*tally {
	var parts []*tally
	for i, w := range f.windows {
		if w.holds(at) {
			parts = append(parts, f.parts[i])
		}
	}
	return parts
}

// superseded says whether a moment was in an attempt that another has taken the place of.
func (f *file) superseded(at time.Time) bool {
	return slices.ContainsFunc(f.discard, func(w Window) bool { return w.holds(at) })
}
