package elasticsearch

import (
	"time"

	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// timeline knows what was going on when: the run stages in all their attempts, and the phases of their events.
type timeline struct {
	events []runs.Event
	stages []span
	phases []metrics.Window
	// from and to bound what a line may say its time is; ended is the end of the last run stage.
	from, to, ended time.Time
}

// span is an attempt of a run stage.
type span struct {
	stage, attempt string
	from, to       time.Time
}

// slack is how far a clock in an instance may be off before its times are not believed.
const slack = time.Hour

func newTimeline(log []runs.Event, results []stage.Result) timeline {
	t := timeline{events: log, phases: metrics.Windows(log)}
	kinds := map[string]bool{}
	for _, result := range results {
		if result.Kind == pipelines.KindRun {
			kinds[result.Stage] = true
			t.ended = later(t.ended, result.Ended)
		}
	}
	open := map[string]int{}
	for _, e := range log {
		if !kinds[e.Stage] || e.Attempt == "" {
			continue
		}
		i, begun := open[e.Attempt]
		switch {
		case e.Kind == runs.KindStageEnded && begun:
			t.stages[i].to = e.Time
		case e.Kind == kindStageStarted && !begun:
			open[e.Attempt] = len(t.stages)
			t.stages = append(t.stages, span{stage: e.Stage, attempt: e.Attempt, from: e.Time})
		}
	}
	if len(t.stages) == 0 { // a log that nobody wrote
		for _, result := range results {
			if result.Kind == pipelines.KindRun {
				t.stages = append(t.stages, span{result.Stage, stage.Key(result.Stage, result.Attempt), result.Started, result.Ended})
			}
		}
	}
	for _, s := range t.stages {
		if t.from.IsZero() || s.from.Before(t.from) {
			t.from = s.from
		}
	}
	if len(log) > 0 && (t.from.IsZero() || log[0].Time.Before(t.from)) {
		t.from = log[0].Time
	}
	t.from, t.to = t.from.Add(-slack), later(t.ended, t.from).Add(slack)
	return t
}

const kindStageStarted = "stage-started"

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// believes says whether a line may have been written then.
func (t *timeline) believes(at time.Time) bool { return at.After(t.from) && at.Before(t.to) }

// start is when the first run stage began.
func (t *timeline) start() time.Time {
	if len(t.stages) == 0 {
		return t.from.Add(slack)
	}
	return t.stages[0].from
}

// at is the run stage that a moment lies in; the newest of those begun where it lies in none.
func (t *timeline) at(moment time.Time) (s span, ok bool) {
	for i := len(t.stages) - 1; i >= 0; i-- {
		if !moment.Before(t.stages[i].from) {
			return t.stages[i], true
		}
	}
	if len(t.stages) > 0 {
		return t.stages[0], true
	}
	return span{}, false
}

// appendPhases adds the phases that a moment lies in, as `"during.split","before.kill"`.
func (t *timeline) appendPhases(out []byte, moment time.Time) []byte {
	first := len(out)
	for _, w := range t.phases {
		if w.Event == "" || moment.Before(w.From) || !w.To.IsZero() && moment.After(w.To) {
			continue
		}
		if len(out) > first {
			out = append(out, ',')
		}
		out = appendText(out, w.Phase+"."+w.Event)
	}
	return out
}
