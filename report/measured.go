package report

import (
	"cmp"
	"fmt"
	"html/template"
	"regexp"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/report/plot"
)

const (
	// mostMetrics bounds how many metrics are shown, and mostRows how many rows each has.
	mostMetrics = 200
	mostRows    = 60
	// fewestValues is how many values make a distribution worth drawing.
	fewestValues = 5
)

// measured is the part about metrics.
type measured struct {
	Metrics []metric
	More    int
	// Source says what the distributions were drawn from.
	Source string
}

// Drawn says that a distribution was.
func (p *measured) Drawn() bool {
	return slices.ContainsFunc(p.Metrics, func(m metric) bool { return m.Chart != "" })
}

// metric is one of them, with a row per group and phase.
type metric struct {
	Name   string
	Anchor string
	Chart  template.HTML
	// Medians says that the curves are of instances' medians and not of all values.
	Medians bool
	Legend  []legendRow
	Rows    []summaryRow
	More    int
}

// legendRow is a curve's name.
type legendRow struct {
	Name   string
	Swatch template.HTML
}

// summaryRow is a summary in words. Lane shows where it lies among the metric's others.
type summaryRow struct {
	Group, Phase                        string
	Count, Min, P50, P90, P95, P99, Max string
	Mean, Sum                           string
	Lane                                template.HTML
	summary                             pipelines.Summary
}

// phase is what stands behind a metric's name where it is only of the time before, during or after an event.
var phase = regexp.MustCompile(`\.((?:before|during|after)\.[^.]+)$`)

// split takes a metric's full name apart: clients.rtt_seconds.during.split.
func (m *material) split(full string) (group, name, when string) {
	if at := phase.FindStringSubmatchIndex(full); at != nil {
		full, when = full[:at[0]], strings.Replace(full[at[2]:at[3]], ".", " ", 1)
	}
	for _, g := range m.census.groups {
		if rest, found := strings.CutPrefix(full, g.name+"."); found && len(g.name) > len(group) && rest != "" {
			group, name = g.name, rest
		}
	}
	if group == "" {
		name = full
	}
	return group, name, when
}

func (m *material) measured() *measured {
	if len(m.metrics) == 0 {
		return nil
	}
	r := m.readValues()
	of := map[string][]summaryRow{}
	var names []string
	for _, full := range sorted(m.metrics) {
		group, name, when := m.split(full)
		if group != "" && len(m.census.groups) == 1 {
			continue // the same as all groups together
		}
		if of[name] == nil {
			names = append(names, name)
		}
		of[name] = append(of[name], summaryRow{Group: group, Phase: when, summary: m.metrics[full]})
	}
	part := &measured{Source: r.source()}
	for i, name := range names {
		if i == mostMetrics {
			part.More = len(names) - mostMetrics
			break
		}
		x := metric{Name: clean(name, 120), Anchor: fmt.Sprintf("metric-%d", i+1)}
		x.Rows, x.More = summaries(plot.UnitOf(name), sparse(of[name]))
		m.draw(&x, name, r)
		part.Metrics = append(part.Metrics, x)
	}
	return part
}

// sparse leaves out the rows of all groups together that are those of a single one.
func sparse(rows []summaryRow) []summaryRow {
	groups := map[string]int{}
	for _, r := range rows {
		if r.Group != "" {
			groups[r.Phase]++
		}
	}
	rows = slices.DeleteFunc(rows, func(r summaryRow) bool { return r.Group == "" && groups[r.Phase] == 1 })
	slices.SortStableFunc(rows, func(a, b summaryRow) int {
		one, other := eventOf(a.Phase), eventOf(b.Phase)
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(one, other), cmp.Compare(turnOf(a.Phase), turnOf(b.Phase)))
	})
	return rows
}

// eventOf is the event of a phase, and turnOf where the phase comes among the event's: `during split`.
func eventOf(phase string) string {
	_, event, _ := strings.Cut(phase, " ")
	return event
}

func turnOf(phase string) int {
	word, _, _ := strings.Cut(phase, " ")
	return slices.Index(pipelines.Phases, word)
}

// source says what was read, where that isn't all.
func (r results) source() string {
	switch {
	case r.files == 0:
		return ""
	case r.cut:
		return fmt.Sprintf("Curves are drawn from the first values of %s; the figures are of all.", plural(r.files, "instance"))
	case r.all > mostFiles:
		return fmt.Sprintf("Curves are drawn from %d of %d instances, chosen evenly; the figures are of all.", r.files, r.all)
	}
	return ""
}

// draw draws a metric's distributions, one for each group: of all its values where they are there, else of the medians of
// single instances.
func (m *material) draw(x *metric, name string, r results) {
	var curves []plot.Curve
	for _, g := range m.census.groups {
		if values := r.values[g.name][name]; len(values) >= fewestValues {
			curves = append(curves, curve(clean(g.name, 63), values))
		}
	}
	if len(curves) == 0 {
		x.Medians = true
		for _, g := range m.census.groups {
			if medians := medians(m.samples[g.name+"."+name]); len(medians) >= fewestValues {
				curves = append(curves, curve(clean(g.name, 63), medians))
			}
		}
	}
	if len(curves) == 0 || flat(curves) {
		return
	}
	curves = curves[:min(len(curves), 6)]
	unit := plot.UnitOf(name)
	var parts []string
	for i, c := range curves {
		x.Legend = append(x.Legend, legendRow{c.Name, plot.Swatch(i)})
		parts = append(parts, fmt.Sprintf("%s: half at most %s, all at most %s", c.Name, unit.Format(at(c, 0.5)), unit.Format(at(c, 1))))
	}
	x.Chart = plot.CDF("Distribution of "+x.Name, strings.Join(parts, "; "), unit, curves)
}

func medians(of []pipelines.Summary) []float64 {
	list := make([]float64, 0, len(of))
	for _, s := range of {
		list = append(list, s.P50)
	}
	return list
}

// flat says that all values are the same: there is nothing to see.
func flat(curves []plot.Curve) bool {
	for _, c := range curves {
		for _, p := range c.Points {
			if p.X != curves[0].Points[0].X {
				return false
			}
		}
	}
	return true
}

// at is the value that a share of all don't exceed.
func at(c plot.Curve, share float64) float64 {
	for _, p := range c.Points {
		if p.Y >= share-1e-9 {
			return p.X
		}
	}
	return c.Points[len(c.Points)-1].X
}

// summaries are the rows of a metric, all on one scale.
func summaries(unit plot.Unit, rows []summaryRow) (shown []summaryRow, more int) {
	if len(rows) > mostRows {
		more = len(rows) - mostRows
		rows = rows[:mostRows]
	}
	var values []float64
	for _, r := range rows {
		values = append(values, r.summary.Min, r.summary.Max)
	}
	scale := plot.NewScale(values)
	if !scale.Log() { // a length then means what it looks like
		scale = plot.NewScale(append(values, 0))
	}
	for _, r := range rows {
		s := r.summary
		r.Group, r.Phase = clean(r.Group, 63), clean(r.Phase, 80)
		r.Count = plot.Number.Format(float64(s.Count))
		r.Min, r.P50, r.P90, r.P95 = unit.Format(s.Min), unit.Format(s.P50), unit.Format(s.P90), unit.Format(s.P95)
		r.P99, r.Max, r.Mean, r.Sum = unit.Format(s.P99), unit.Format(s.Max), unit.Format(s.Mean), unit.Format(s.Sum)
		r.Lane = spread(scale, s)
		shown = append(shown, r)
	}
	return shown, more
}

// spread draws a summary as a lane: a thin line from the least to the greatest, a bar from the median to the 95th
// percentile, and a dot at the median.
func spread(scale plot.Scale, s pipelines.Summary) template.HTML {
	return plot.Lane(
		plot.Part{Shape: plot.Line, From: scale.At(s.Min), To: scale.At(s.Max), Class: "thin"},
		plot.Part{Shape: plot.Line, From: scale.At(s.P50), To: scale.At(s.P95), Class: "thick"},
		plot.Part{Shape: plot.Dot, From: scale.At(s.P50), Class: "s1"},
	)
}
