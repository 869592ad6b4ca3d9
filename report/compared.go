package report

import (
	"html/template"
	"math"
	"slices"
	"strconv"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/report/plot"
)

// compared is the run against earlier ones.
type compared struct {
	With     []fact
	Alpha    float64
	Worse    int
	Findings []finding
	// Low and High are the ends of the lanes' axis, as changes.
	Low, High string
}

// finding is a figure in both.
type finding struct {
	Figure, Before, After, Change, Interval, Effect, P, Tolerance string
	Judgement, Class                                              string
	Values                                                        [2]int
	Lane                                                          template.HTML
}

// mostFindings bounds how many figures are shown.
const mostFindings = 300

func (m *material) compared() *compared {
	o := m.comparison
	if o == nil || len(o.Findings) == 0 {
		return nil
	}
	c := &compared{Alpha: o.Alpha, Worse: len(o.Regressed())}
	for _, id := range o.With[:min(len(o.With), 50)] {
		c.With = append(c.With, fact{Text: clean(id, 63), Link: besideLink(id)})
	}
	findings := slices.Clone(o.Findings[:min(len(o.Findings), mostFindings)])
	slices.SortStableFunc(findings, func(a, b comparison.Finding) int { return rank(a.Judgement) - rank(b.Judgement) })
	reach := reach(findings)
	c.Low, c.High = plot.Percent(-reach), plot.Percent(reach)
	for _, f := range findings {
		unit := plot.UnitOf(f.Figure)
		row := finding{
			Figure: clean(f.Figure, 120), Before: unit.Format(f.Before), After: unit.Format(f.After), Change: plot.Percent(f.Change),
			Effect: plot.Number.Format(f.Effect), P: probability(f.P), Tolerance: f.Tolerance.String(), Judgement: clean(string(f.Judgement), 20),
			Class: judged(f.Judgement), Values: f.Values, Lane: forest(f, reach),
		}
		if f.Before != 0 && f.Low != f.High {
			row.Interval = plot.Percent(f.Low/math.Abs(f.Before)) + " to " + plot.Percent(f.High/math.Abs(f.Before))
		}
		c.Findings = append(c.Findings, row)
	}
	return c
}

// rank puts first what a person should see first.
func rank(j comparison.Judgement) int {
	return slices.Index([]comparison.Judgement{comparison.Regressed, comparison.Better, comparison.Different, comparison.Same, comparison.Untested}, j)
}

// reach is how far the lanes' axis goes to both sides: as far as the changes, their intervals and the tolerances do, but
// no further than twice as much.
func reach(findings []comparison.Finding) float64 {
	most := 0.05
	for _, f := range findings {
		values := []float64{f.Change, float64(f.Tolerance) * 1.3}
		if f.Before != 0 {
			values = append(values, f.Low/f.Before, f.High/f.Before)
		}
		for _, v := range values {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				most = max(most, math.Abs(v)*1.1)
			}
		}
	}
	return min(most, 1)
}

// forest draws a finding: the tolerance as a band around no change, the interval as a line, the change as a dot.
func forest(f comparison.Finding, reach float64) template.HTML {
	at := func(share float64) float64 { return (share + reach) / (2 * reach) }
	parts := []plot.Part{
		{Shape: plot.Band, From: at(-float64(f.Tolerance)), To: at(float64(f.Tolerance)), Class: "tolerated"},
		{Shape: plot.Rule, From: at(0), Class: "none"},
	}
	class := string(f.Judgement)
	if rank(f.Judgement) < 0 {
		class = "same"
	}
	if f.Before != 0 {
		if f.Low != f.High {
			parts = append(parts, plot.Part{Shape: plot.Line, From: at(f.Low / math.Abs(f.Before)), To: at(f.High / math.Abs(f.Before)), Class: "thick " + class})
		}
		parts = append(parts, plot.Part{Shape: plot.Dot, From: at(f.Change), Class: class})
	}
	return plot.Lane(parts...)
}

// judged is the look of a judgement's badge.
func judged(j comparison.Judgement) string {
	switch j {
	case comparison.Regressed:
		return string(stage.Failed)
	case comparison.Better:
		return string(stage.Passed)
	case comparison.Different:
		return string(stage.Invalid)
	}
	return string(j)
}

func probability(p float64) string {
	if p < 0.0001 {
		return "< 0.0001"
	}
	return strconv.FormatFloat(p, 'g', 2, 64)
}
