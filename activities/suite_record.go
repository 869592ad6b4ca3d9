package activities

import (
	"context"
	"fmt"
	"slices"

	"go.temporal.io/sdk/activity"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// Record writes the record of a turn, and says what it brings to tell once it has ended. Every time it writes the whole
// record.
func (s *Suites) Record(ctx context.Context, in stage.Turn) (stage.SuiteRecorded, error) {
	history, err := s.Home.ReadSuiteTurns(in.Suite)
	if err != nil && activity.IsActivity(ctx) { // some turns can't be read: the others still tell
		activity.GetLogger(ctx).Warn("part of the suite's history can't be read", "suite", in.Suite, "error", err)
	}
	turn := s.turn(in)
	before := newPast(history, turn)
	for i := range turn.Runs {
		turn.Runs[i].Since = before.since(turn, i)
	}
	if turn.Status == stage.StatusEnded {
		turn.News = news(turn, before)
	}
	if err := s.Home.WriteSuiteTurn(turn); err != nil {
		return stage.SuiteRecorded{}, fmt.Errorf("recording the turn %s of %s: %w", in.ID, in.Suite, err)
	}
	return stage.SuiteRecorded{News: turn.News}, nil
}

// turn is the record of a turn, without what only the history knows.
func (s *Suites) turn(in stage.Turn) runs.SuiteTurn {
	out := runs.SuiteTurn{
		ID: in.ID, Suite: in.Suite, Execution: in.Execution, File: in.File, Ground: in.Ground, Commit: in.Commit,
		Trigger: in.Trigger, Due: in.Due, Started: in.Started, Ended: in.Ended,
		Status: in.Status, Verdict: in.Verdict, Reason: in.Reason, Runs: []runs.SuiteRun{},
	}
	for _, r := range in.Runs {
		row := runs.SuiteRun{
			Pipeline: r.Pipeline, File: r.File, Run: r.Run, Verdict: r.Verdict, Reason: r.Reason, Started: r.Started, Ended: r.Ended,
		}
		if r.Run != "" && r.Verdict == stage.Failed {
			row.Regressed = s.regressed(r.Run)
		}
		out.Runs = append(out.Runs, row)
	}
	return out
}

// regressed are the figures of a run, or of its cells, that were worse. They are a help: a record that can't be read has
// said so elsewhere.
func (s *Suites) regressed(run string) []string {
	record, err := s.Home.Run(run).ReadRecord()
	if err != nil {
		return nil
	}
	var all []string
	for _, r := range record.Stages {
		all = append(all, r.Regressed...)
	}
	for _, cell := range record.Cells {
		if cell.Verdict == stage.Failed && len(all) < mostRegressed && cell.Run != run {
			all = append(all, s.regressed(cell.Run)...)
		}
	}
	return all[:min(len(all), mostRegressed)]
}

// past are the turns before one, the newest first.
type past []runs.SuiteTurn

func newPast(history []runs.SuiteTurn, turn runs.SuiteTurn) past {
	return slices.DeleteFunc(slices.Clone(history), func(t runs.SuiteTurn) bool {
		return t.ID == turn.ID || t.Status != stage.StatusEnded || !t.Started.Before(turn.Started)
	})
}

// slot says which of a turn's runs is that of the same pipeline: a suite may name a file more than once, with other
// parameters.
func slot(turn runs.SuiteTurn, i int) (file string, nth int) {
	for _, r := range turn.Runs[:i] {
		if r.File == turn.Runs[i].File {
			nth++
		}
	}
	return turn.Runs[i].File, nth
}

// same is the run of the same pipeline in another turn; false when that turn had none.
func same(turn runs.SuiteTurn, i int, other runs.SuiteTurn) (runs.SuiteRun, bool) {
	file, nth := slot(turn, i)
	for _, r := range other.Runs {
		if r.File != file {
			continue
		}
		if nth == 0 {
			return r, true
		}
		nth--
	}
	return runs.SuiteRun{}, false
}

// since is the turn since which a pipeline has not passed; empty while that isn't known, and when it passed.
func (p past) since(turn runs.SuiteTurn, i int) string {
	if r := turn.Runs[i]; r.Verdict == "" || r.Verdict == stage.Passed {
		return ""
	}
	for _, before := range p {
		if r, had := same(turn, i, before); had {
			if r.Since != "" {
				return r.Since
			}
			break
		}
	}
	return turn.ID
}

// answer is what a pipeline came to when it last ran to an end of its own; empty when it never did.
func (p past) answer(turn runs.SuiteTurn, i int) stage.Verdict {
	for _, before := range p {
		if r, had := same(turn, i, before); had && said(r.Verdict) {
			return r.Verdict
		}
	}
	return ""
}

func said(v stage.Verdict) bool {
	return v == stage.Passed || v == stage.Failed || v == stage.Invalid
}

// news is what a turn that has ended brings to tell. That something still fails is told each time: who is told only of
// changes forgets what nobody mended.
func news(turn runs.SuiteTurn, before past) []string {
	found := map[string]bool{runs.NewsPassed: turn.Verdict == stage.Passed}
	for i, r := range turn.Runs {
		switch r.Verdict {
		case stage.Failed:
			found[runs.NewsFailed] = true
			found[runs.NewsRegressed] = found[runs.NewsRegressed] || len(r.Regressed) > 0
		case stage.Invalid:
			found[runs.NewsInvalid] = true
		case stage.Passed:
			last := before.answer(turn, i)
			found[runs.NewsRecovered] = found[runs.NewsRecovered] || said(last) && last != stage.Passed
		}
	}
	var all []string
	for _, n := range []string{runs.NewsFailed, runs.NewsInvalid, runs.NewsRegressed, runs.NewsRecovered, runs.NewsPassed} {
		if found[n] {
			all = append(all, n)
		}
	}
	return all
}
