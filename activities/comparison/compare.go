package comparison

import (
	"cmp"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
)

// Run is what is known of a run's metrics.
type Run struct {
	ID string
	// Metrics is name → summary over all that was measured.
	Metrics map[string]pipelines.Summary
	// Samples is name → summaries of single instances.
	Samples map[string][]pipelines.Summary
}

// Options say what counts as a difference.
type Options struct {
	// Alpha is how often one comparison may find a difference where there is none, over all its figures together.
	Alpha float64
	// Tolerance is figure (`lookup_seconds.p95`; `*` stands for anything) → the share by which it may be worse. The
	// longest pattern that fits counts. Empty: the medians of all metrics, by DefaultTolerance.
	Tolerance map[string]pipelines.Share
}

// DefaultTolerance is by how much medians may be worse where nothing is said.
const DefaultTolerance = pipelines.Share(0.05)

// Judgement is what is said of one figure.
type Judgement string

// The judgements. Different is a change that is sure and within the tolerance.
const (
	Same      Judgement = "same"
	Different Judgement = "different"
	Better    Judgement = "better"
	Regressed Judgement = "regressed"
	Untested  Judgement = "untested" // too few values to say anything
)

// Finding is one figure in two places.
type Finding struct {
	// Figure is metric and statistic: `lookup_seconds.p95`.
	Figure string `json:"figure"`
	// Before is the median of the earlier runs' figures, and After this run's.
	Before float64 `json:"before"`
	After  float64 `json:"after"`
	// Change is by which share of Before it has changed; infinite changes from zero are left out.
	Change float64 `json:"change"`
	// Shift is by how much single instances differ (Hodges–Lehmann), with its confidence interval, in the metric's unit.
	Shift float64 `json:"shift"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	// Effect is Cliff's delta, from -1 to 1.
	Effect float64 `json:"effect"`
	// U and P are what the test came to. P is corrected for the number of figures (Holm).
	U float64 `json:"u,omitempty"`
	P float64 `json:"p"`
	// Values counts the instances on both sides, and Runs the earlier runs.
	Values [2]int `json:"values"`
	Runs   int    `json:"runs"`
	// Tolerance is what it was held against.
	Tolerance pipelines.Share `json:"tolerance"`
	Judgement Judgement       `json:"judgement"`
}

// Compare holds a run against one or more earlier ones. A figure has regressed when it is worse by more than its
// tolerance, its instances differ (Mann–Whitney U), and, with three earlier runs or more, it is outside of what those
// predict. Findings are in the order of their names.
func Compare(earlier []Run, run Run, o Options) []Finding {
	var findings []Finding
	for _, figure := range figures(earlier, run, o.Tolerance) {
		findings = append(findings, measure(earlier, run, figure, o))
	}
	correct(findings)
	for i := range findings {
		findings[i].Judgement = judge(findings[i], o.Alpha)
	}
	return findings
}

// figure is one statistic of one metric, and what it is held against.
type figure struct {
	metric, statistic string
	tolerance         pipelines.Share
}

func (f figure) String() string { return f.metric + "." + f.statistic }

// statistics are those that a pattern's `*` stands for.
var statistics = []string{"mean", "p50", "p95", "p99"}

// figures are those to be compared: what the tolerances name, of the metrics that both sides have.
func figures(earlier []Run, run Run, tolerance map[string]pipelines.Share) []figure {
	if len(tolerance) == 0 {
		tolerance = map[string]pipelines.Share{"*.p50": DefaultTolerance}
	}
	patterns := slices.SortedFunc(maps.Keys(tolerance), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, "*"), strings.Count(b, "*")), cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	var found []figure
	for _, metric := range slices.Sorted(maps.Keys(run.Metrics)) {
		if !slices.ContainsFunc(earlier, func(r Run) bool { _, has := r.Metrics[metric]; return has }) {
			continue
		}
		taken := make(map[string]bool)
		for _, pattern := range patterns {
			for _, statistic := range fitting(pattern, metric) {
				if !taken[statistic] {
					taken[statistic] = true
					found = append(found, figure{metric, statistic, tolerance[pattern]})
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b figure) int { return cmp.Compare(a.String(), b.String()) })
	return found
}

// fitting are the statistics of a metric that a pattern names.
func fitting(pattern, metric string) []string {
	dot := strings.LastIndexByte(pattern, '.')
	if dot < 0 {
		return nil
	}
	// `*` stands for a metric over all groups; what a single group measured has to be named.
	if pattern[:dot] == "*" && strings.Contains(metric, ".") {
		return nil
	}
	if fits, err := path.Match(pattern[:dot], metric); err != nil || !fits {
		return nil
	}
	if pattern[dot+1:] == "*" {
		return statistics
	}
	return []string{pattern[dot+1:]}
}

// measure holds one figure of a run against those of earlier ones.
func measure(earlier []Run, run Run, f figure, o Options) Finding {
	var runs, before []float64
	for _, r := range earlier {
		if s, has := r.Metrics[f.metric]; has {
			runs = append(runs, s.Figure(f.statistic))
		}
		before = append(before, samples(r, f)...)
	}
	after := samples(run, f)
	found := Finding{
		Figure: f.String(), Tolerance: f.tolerance, Runs: len(runs), Values: [2]int{len(before), len(after)},
		Before: median(slices.Sorted(slices.Values(runs))), After: run.Metrics[f.metric].Figure(f.statistic), P: math.NaN(),
	}
	if found.Before != 0 {
		found.Change = (found.After - found.Before) / math.Abs(found.Before)
	}
	if len(before) >= fewestValues && len(after) >= fewestValues {
		found.U, found.P = MannWhitney(before, after)
		found.Effect = Delta(found.U, len(before), len(after))
		found.Shift, found.Low, found.High = Shift(before, after, o.Alpha)
	}
	if len(runs) >= fewestRuns {
		predicted := Predict(runs, found.After)
		if math.IsNaN(found.P) || predicted > found.P {
			found.P = predicted
		}
	}
	if math.IsNaN(found.P) {
		found.P, found.Judgement = 1, Untested
	}
	return found
}

// fewestValues is how many instances each side needs for the test to say anything.
const fewestValues = 3

// samples are a figure's values over a run's instances.
func samples(r Run, f figure) []float64 {
	values := make([]float64, 0, len(r.Samples[f.metric]))
	for _, s := range r.Samples[f.metric] {
		values = append(values, s.Figure(f.statistic))
	}
	return values
}

// correct makes every p one that holds for all findings together (Holm): the more figures are looked at, the likelier
// one of them is far out by chance.
func correct(findings []Finding) {
	order := make([]int, 0, len(findings))
	for i := range findings {
		if findings[i].Judgement != Untested {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(findings[a].P, findings[b].P) })
	least := 0.0
	for rank, i := range order {
		least = max(least, min(findings[i].P*float64(len(order)-rank), 1))
		findings[i].P = least
	}
}

// judge says what a finding means.
func judge(f Finding, alpha float64) Judgement {
	worse := f.Change
	if greaterIsBetter(f.Figure) {
		worse = -worse
	}
	if f.Before == 0 && f.After != 0 { // no share can be told: any change that is sure counts
		worse = math.Copysign(math.Inf(1), f.After)
		if greaterIsBetter(f.Figure) {
			worse = -worse
		}
	}
	switch {
	case f.Judgement == Untested:
		return Untested
	case f.P >= alpha || f.Before == f.After:
		return Same
	case worse > float64(f.Tolerance):
		return Regressed
	case worse < -float64(f.Tolerance):
		return Better
	}
	return Different
}

// rates are the ends of names of metrics of which more is better.
var rates = []string{"_per_second", "_bits", "_throughput", "_rate", "_succeeded", "_hits"}

// greaterIsBetter says so of a figure, by its metric's name: `upload_bits.p50`.
func greaterIsBetter(figure string) bool {
	metric := figure[:strings.LastIndexByte(figure, '.')]
	for _, phase := range pipelines.Phases {
		metric, _, _ = strings.Cut(metric, "."+phase+".")
	}
	return slices.ContainsFunc(rates, func(end string) bool { return strings.HasSuffix(metric, end) || metric == end[1:] })
}
