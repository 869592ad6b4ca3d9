package report

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/report/plot"
	"github.com/groundplan/groundplan/runs"
)

// mostTrends bounds how many figures of a pipeline are drawn; those that were worse are drawn first.
const mostTrends = 12

// trend is a figure of a pipeline from turn to turn.
type trend struct {
	Pipeline, Figure string
	Chart            template.HTML
	Rows             []trendRow // the newest first
	worse            int
}

// trendRow is the figure in one turn.
type trendRow struct{ Turn, Value, Judgement string }

// told is what a run says about its figures.
type told struct {
	turn      string
	verdict   stage.Verdict
	metrics   map[string]pipelines.Summary
	judgement map[string]comparison.Judgement
}

// trends are the figures that the suite's runs were compared by, pipeline by pipeline.
func trends(home runs.Home, turns []runs.SuiteTurn) []trend {
	var names []string
	of := map[string][]told{}
	for _, t := range slices.Backward(turns) {
		for _, r := range t.Runs {
			if of[r.Pipeline] == nil {
				names = append(names, r.Pipeline)
			}
			of[r.Pipeline] = append(of[r.Pipeline], tell(home, t.ID, r))
		}
	}
	var list []trend
	for _, name := range names {
		var own []trend
		for _, figure := range compareds(of[name]) {
			own = append(own, draw(name, figure, of[name]))
		}
		slices.SortStableFunc(own, func(a, b trend) int { return cmp.Compare(b.worse, a.worse) })
		list = append(list, own[:min(len(own), mostTrends)]...)
	}
	return list
}

// tell reads what a run says about its figures; what can't be read has none.
func tell(home runs.Home, turn string, r runs.SuiteRun) told {
	t := told{turn: turn, verdict: r.Verdict, judgement: map[string]comparison.Judgement{}}
	if runs.CheckID(r.Run) != nil {
		return t
	}
	files, err := openTree(string(home.Run(r.Run)))
	if err != nil {
		return t
	}
	defer files.Close()
	var record runs.Record
	if _, err := files.json("run.json", &record); err == nil {
		t.metrics = record.Metrics
	}
	var outcome comparison.Outcome
	if _, err := files.json("comparison.json", &outcome); err == nil {
		for _, f := range outcome.Findings {
			t.judgement[f.Figure] = f.Judgement
		}
	}
	return t
}

// compareds are the figures that any of the runs was compared by.
func compareds(list []told) []string {
	found := map[string]bool{}
	for _, t := range list {
		for figure := range t.judgement {
			found[figure] = true
		}
	}
	return sorted(found)
}

// draw draws one figure of a pipeline, the oldest turn first.
func draw(pipeline, figure string, list []told) trend {
	x := trend{Pipeline: clean(pipeline, 100), Figure: clean(figure, 120)}
	unit := plot.UnitOf(figure)
	var turns []plot.Turn
	for _, t := range list {
		turn := plot.Turn{Value: figureOf(t.metrics, figure), Class: string(t.verdict)}
		if t.judgement[figure] == comparison.Regressed {
			turn.Class = string(comparison.Regressed)
			x.worse++
		} else if t.verdict == stage.Failed {
			turn.Class = string(stage.Passed) // the figure is none of the reasons
		}
		turns = append(turns, turn)
		x.Rows = append(x.Rows, trendRow{clean(t.turn, 40), unit.Format(turn.Value), clean(string(t.judgement[figure]), 20)})
	}
	slices.Reverse(x.Rows)
	x.Chart = plot.Trend(x.Figure+" of "+x.Pipeline, fmt.Sprintf("%s over %s, regressed in %d", span(unit, turns), plural(len(turns), "turn"), x.worse), unit, turns)
	return x
}

func span(unit plot.Unit, turns []plot.Turn) string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, t := range turns {
		if !math.IsNaN(t.Value) {
			low, high = min(low, t.Value), max(high, t.Value)
		}
	}
	if low > high {
		return "no values"
	}
	return unit.Format(low) + " to " + unit.Format(high)
}

// figureOf is a figure among a run's metrics; not a number where it isn't there.
func figureOf(metrics map[string]pipelines.Summary, figure string) float64 {
	dot := strings.LastIndexByte(figure, '.')
	if dot < 0 {
		return math.NaN()
	}
	s, there := metrics[figure[:dot]]
	if !there {
		return math.NaN()
	}
	return s.Figure(figure[dot+1:])
}
