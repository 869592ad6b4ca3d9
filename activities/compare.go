package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"go.temporal.io/sdk/activity"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

const (
	// lastSuccess is what a comparison is with where no run is named.
	lastSuccess = "last-success"
	// defaultRuns is how many earlier runs a comparison is with at most, and fewestRuns at least.
	defaultRuns = 10
	fewestRuns  = 3
	// mostRegressed bounds how many figures that were worse a result names.
	mostRegressed = 10
	// defaultAlpha is how often a comparison may find what isn't there.
	defaultAlpha = 0.05
)

// ComparesWith is what a pipeline asks to be compared with: at most so many of the last comparable runs that passed, or a run
// by its id.
func ComparesWith(asked pipelines.Compare) (most int, id string) {
	if asked.With != "" && asked.With != lastSuccess {
		return 0, asked.With
	}
	return cmp.Or(asked.Runs, defaultRuns), ""
}

// compare holds the run against earlier ones. It returns a note for the person, and why the run has regressed.
func (a *Activities) compare(ctx context.Context, in stage.Input, found metrics.Report) (note string, regressed []string, err error) {
	asked := in.Stage.Collect.Compare
	if asked == nil {
		return "", nil, nil
	}
	earlier, note, err := a.earlier(ctx, in, *asked, found.Metrics)
	if note != "" || err != nil {
		return note, nil, err
	}
	outcome := comparison.Outcome{Run: in.Run.ID, Alpha: cmp.Or(asked.Alpha, defaultAlpha)}
	for _, r := range earlier {
		outcome.With = append(outcome.With, r.ID)
	}
	run := comparison.Run{ID: in.Run.ID, Metrics: found.Metrics, Samples: found.Samples}
	outcome.Findings = comparison.Compare(earlier, run, comparison.Options{Alpha: outcome.Alpha, Tolerance: asked.Tolerance})
	if err := runs.WriteJSON(a.folder(in.Run).Comparison(), outcome); err != nil {
		return "", nil, fmt.Errorf("keeping the comparison: %w", err)
	}
	return compared(outcome), regression(outcome), nil
}

// earlier are the runs to compare with; the note says why nothing can be compared.
func (a *Activities) earlier(ctx context.Context, in stage.Input, asked pipelines.Compare, found map[string]pipelines.Summary) (list []comparison.Run, note string, err error) {
	this := runs.Record{
		ID: in.Run.ID, Pipeline: in.Pipeline, Ground: in.Run.Ground, Parameters: in.Parameters, Cell: in.Cell,
		Status: stage.StatusEnded, Verdict: stage.Passed, Metrics: found,
	}
	if len(found) == 0 {
		return nil, "compare: this run has no metrics: nothing was compared", nil
	}
	want, with := ComparesWith(asked)
	if with != "" {
		return a.named(this, with)
	}
	records, err := a.Home.List()
	if err != nil {
		activity.GetLogger(ctx).Warn("some runs can't be compared with", "error", err)
	}
	for _, r := range records {
		if len(list) == want {
			break
		}
		if r.ID == this.ID || r.Verdict != stage.Passed || comparison.Hindrance(r, this) != "" {
			continue
		}
		run, err := comparison.Load(a.Home.Run(r.ID), r.ID, r.Metrics)
		if err != nil {
			return nil, "", err
		}
		list = append(list, run)
	}
	if least := min(fewestRuns, want); len(list) < least {
		return nil, fmt.Sprintf("compare: too few comparable runs (%d of at least %d that passed): nothing was compared", len(list), least), nil
	}
	return list, "", nil
}

// named is the one run that a comparison is with.
func (a *Activities) named(this runs.Record, id string) ([]comparison.Run, string, error) {
	record, err := a.Home.Run(id).ReadRecord()
	if errors.Is(err, runs.ErrNoRecord) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Sprintf("compare: there is no run %s here: nothing was compared", id), nil
	}
	if err != nil {
		return nil, "", err
	}
	if why := comparison.Hindrance(record, this); why != "" {
		return nil, fmt.Sprintf("compare: %s: nothing was compared", why), nil
	}
	run, err := comparison.Load(a.Home.Run(id), id, record.Metrics)
	return []comparison.Run{run}, "", err
}

// compared is the note on a comparison that was made.
func compared(o comparison.Outcome) string {
	counts := map[comparison.Judgement]int{}
	for _, f := range o.Findings {
		counts[f.Judgement]++
	}
	with := fmt.Sprintf("the last %d comparable runs", len(o.With))
	if len(o.With) == 1 {
		with = o.With[0]
	}
	if len(o.Findings) == 0 {
		return fmt.Sprintf("compare: this run and %s have none of the figures in common that are to be compared", with)
	}
	text := fmt.Sprintf("compared with %s by Mann–Whitney U at alpha %g: ", with, o.Alpha)
	var parts []string
	for _, j := range []comparison.Judgement{comparison.Regressed, comparison.Better, comparison.Different, comparison.Same, comparison.Untested} {
		if n := counts[j]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, j))
		}
	}
	return text + strings.Join(parts, ", ")
}

// regression names the figures that were worse.
func regression(o comparison.Outcome) []string {
	var texts []string
	for _, f := range o.Regressed() {
		texts = append(texts, f.String())
	}
	return texts
}

// regressedReason is why the run has regressed; empty when it hasn't.
func regressedReason(texts []string) string {
	switch {
	case len(texts) == 0:
		return ""
	case len(texts) > 3:
		return fmt.Sprintf("regressed: %s; and %d more", strings.Join(texts[:3], "; "), len(texts)-3)
	}
	return "regressed: " + strings.Join(texts, "; ")
}
