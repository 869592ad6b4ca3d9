package report

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// attempt is one try of a stage: what came of it, or as far as it has come.
type attempt struct {
	stage.Result
	// newest says that no later attempt took its place, and running that it has not ended.
	newest, running bool
}

// key names the attempt in the files of the run.
func (a attempt) key() string { return stage.Key(a.Stage, a.Attempt) }

// tries are all attempts in the order in which they began: those of the record, those that only the event log knows, and
// at the end the stages whose turn has not come.
func (m *material) tries() []attempt {
	var list []attempt
	known := map[string]bool{}
	for _, result := range slices.Concat(m.record.Tries, m.record.Stages) {
		a := attempt{Result: result}
		if !known[a.key()] {
			known[a.key()] = true
			list = append(list, a)
		}
	}
	list = append(list, m.seen(known)...)
	newest := map[string]int{}
	for _, a := range list {
		newest[a.Stage] = max(newest[a.Stage], a.Attempt)
	}
	for i := range list {
		list[i].newest = list[i].Attempt == newest[list[i].Stage]
		list[i].Kind = cmp.Or(list[i].Kind, m.kind(list[i].Stage))
	}
	slices.SortStableFunc(list, func(a, b attempt) int {
		if a.Started.IsZero() != b.Started.IsZero() { // those that never began come last
			return -a.Started.Compare(b.Started)
		}
		return a.Started.Compare(b.Started)
	})
	for _, s := range m.pipeline.Stages {
		if _, begun := newest[s.Name]; !begun {
			list = append(list, attempt{Result: stage.Result{Stage: s.Name, Kind: s.Kind}, newest: true})
		}
	}
	return list
}

// seen are the attempts that the event log tells of and the record doesn't yet.
func (m *material) seen(known map[string]bool) []attempt {
	var list []attempt
	at := map[string]int{}
	for _, e := range m.events {
		if e.Attempt == "" || known[e.Attempt] {
			continue
		}
		switch i, begun := at[e.Attempt]; {
		case e.Kind == "stage-started" && !begun:
			at[e.Attempt] = len(list)
			list = append(list, attempt{Result: stage.Result{Stage: e.Stage, Attempt: number(e), Started: e.Time}, running: true})
		case e.Kind == runs.KindStageEnded && begun:
			list[i].running, list[i].Ended = false, e.Time
			list[i].Verdict, list[i].Reason = conclusion(e.Text)
		}
	}
	return list
}

// number is an attempt's, from its key.
func number(e runs.Event) int {
	n, err := strconv.Atoi(strings.TrimPrefix(e.Attempt, e.Stage+"-"))
	if err != nil {
		return 1
	}
	return n
}

// conclusion takes verdict and reason out of the sentence about a stage's end: `stage "play" ended: failed: why`.
func conclusion(text string) (stage.Verdict, string) {
	_, rest, _ := strings.Cut(text, " ended: ")
	word, reason, _ := strings.Cut(rest, ": ")
	switch v := stage.Verdict(word); v {
	case stage.Passed, stage.Failed, stage.Invalid, stage.Skipped, stage.Cancelled:
		return v, reason
	}
	return "", rest
}

func (m *material) kind(name string) pipelines.Kind {
	for _, s := range m.pipeline.Stages {
		if s.Name == name {
			return s.Kind
		}
	}
	return ""
}

// span is when the first attempt began and the last one ended, or now where one goes on.
func (m *material) span(now time.Time) (from, to time.Time) {
	from, to = m.record.Started, m.record.Ended
	for _, a := range m.attempts {
		if a.Started.IsZero() {
			continue
		}
		if from.IsZero() || a.Started.Before(from) {
			from = a.Started
		}
		if a.Ended.After(to) {
			to = a.Ended
		}
	}
	if m.underWay() && now.After(from) && now.After(to) {
		to = now
	}
	if to.Before(from) {
		to = from
	}
	return from, to
}

// underWay says that nothing tells of the run's end.
func (m *material) underWay() bool { return m.record.Status != stage.StatusEnded }
