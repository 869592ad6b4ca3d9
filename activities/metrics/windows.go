package metrics

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Window is a time that is looked at by itself: that of a run stage, or of a phase of one.
type Window struct {
	Stage string
	// Phase is one of pipelines.Phases, and Event the event that it is seen from; empty for the whole of a stage.
	Phase string
	Event string
	From  time.Time
	To    time.Time // the zero value: to the end
}

// name is what stands behind a metric's name for what was measured in the window: `during.split`.
func (w Window) name() string {
	if w.Phase == "" {
		return ""
	}
	return w.Phase + "." + w.Event
}

// holds says whether a time is in the window.
func (w Window) holds(at time.Time) bool {
	return !at.Before(w.From) && (w.To.IsZero() || !at.After(w.To))
}

// Windows finds in a run's event log the phases of its stages: `during` an event, from when it was in force to when its end
// began; `before` it, from the opening of the gate to when it was set about; `after` it, from when its end was in force to
// the end of its stage. An event that has no end lasted until its stage was over, and nothing is after it. Events without a
// name are left out, since nobody can ask about them. The same name in several stages, or attempts, makes several windows.
func Windows(log []runs.Event) []Window {
	var windows []Window
	type key struct{ attempt, event string }
	open := map[key]int{} // the window that ends with the event, or with its stage
	for _, e := range log {
		k := key{e.Attempt, e.Event}
		window := Window{Stage: e.Stage, Event: e.Event}
		switch e.Kind {
		case runs.KindEventBegan:
			if strings.Contains(e.Event, " ") {
				continue
			}
			before, during := window, window
			before.Phase, before.From, before.To = pipelines.PhaseBefore, e.Time.Add(-e.At), e.Time.Add(-e.Took)
			if e.At > e.Took {
				windows = append(windows, before)
			}
			during.Phase, during.From = pipelines.PhaseDuring, e.Time
			open[k] = len(windows)
			windows = append(windows, during)
		case runs.KindEventEnded:
			i, began := open[k]
			if !began {
				continue
			}
			windows[i].To = e.Time.Add(-e.Took)
			after := window
			after.Phase, after.From = pipelines.PhaseAfter, e.Time
			open[k] = len(windows)
			windows = append(windows, after)
		case runs.KindStageClosed, runs.KindStageEnded:
			for k, i := range open {
				if windows[i].Stage == e.Stage {
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

// Times say what is special about what was measured when.
type Times struct {
	// Windows are phases, which are counted also by themselves.
	Windows []Window
	// Stages are, by group, the times of its run stages: another process of the plan ran in each.
	Stages map[string][]Window
	// Superseded are, by group, the times of attempts that others have taken the place of: what was measured then doesn't
	// count at all.
	Superseded map[string][]Window
}

// superseded says whether a moment was in an attempt of a group's that another has taken the place of.
func (t Times) superseded(group string, at time.Time) bool {
	return slices.ContainsFunc(t.Superseded[group], func(w Window) bool { return w.holds(at) })
}

// stage is the place, among a group's run stages, of the one that a moment lies in; -1 for none.
func (t Times) stage(group string, at time.Time) int {
	return slices.IndexFunc(t.Stages[group], func(w Window) bool { return w.holds(at) })
}
