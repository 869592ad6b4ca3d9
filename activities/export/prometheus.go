package export

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/groundplan/groundplan/activities/metrics"
)

// label is a name and a value.
type label struct{ name, value string }

// sample is one number as Prometheus has it.
type sample struct {
	name   string
	labels []label // in the order of their names
	value  float64
}

// family is all samples of one name, which the text format wants together.
type family struct {
	name, help string
	samples    []sample
}

// meanings say in a line of help what the values of a metric stand for.
var meanings = map[metrics.Kind]string{
	metrics.KindValues: "each measured value",
	metrics.KindTotals: "what each instance counted",
	metrics.KindLast:   "the last value of each instance",
}

// families are the series of a run as summaries: the quantiles 0 and 1 are the least and the greatest value.
func families(run Run) []family {
	n := newNames(run.Series)
	by := map[string]*family{}
	for _, s := range run.Series {
		name := n.of[s.Metric]
		f := by[name]
		if f == nil {
			f = &family{name: name, help: s.Metric + ": " + meanings[s.Kind]}
			by[name] = f
		}
		labels := labelsOf(run, s)
		if n.shared[name] != nil {
			labels = append(labels, label{"metric", valid(s.Metric)})
		}
		f.samples = append(f.samples, summary(name, labels, s)...)
	}
	var list []family
	for _, name := range slices.Sorted(maps.Keys(by)) {
		list = append(list, *by[name])
	}
	return list
}

// labelsOf are those of a series. One that would be empty is left out, which is the same to Prometheus.
func labelsOf(run Run, s metrics.Series) []label {
	var labels []label
	for _, l := range []label{
		{"run", run.ID}, {"pipeline", run.Pipeline}, {"suite", run.Suite}, {"ground", run.Ground},
		{"group", s.Group}, {"stage", s.Stage}, {"phase", s.Phase}, {"event", s.Event},
	} {
		if l.value != "" {
			labels = append(labels, label{l.name, valid(l.value)})
		}
	}
	return labels
}

func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func summary(name string, labels []label, s metrics.Series) []sample {
	var list []sample
	for _, q := range []struct {
		share string
		value float64
	}{{"0", s.Summary.Min}, {"0.5", s.Summary.P50}, {"0.9", s.Summary.P90}, {"0.95", s.Summary.P95}, {"0.99", s.Summary.P99}, {"1", s.Summary.Max}} {
		list = append(list, sample{name, inOrder(append(slices.Clone(labels), label{"quantile", q.share})), q.value})
	}
	labels = inOrder(labels)
	return append(list, sample{name + "_sum", labels, s.Summary.Sum}, sample{name + "_count", labels, float64(s.Summary.Count)})
}

func inOrder(labels []label) []label {
	slices.SortFunc(labels, func(a, b label) int { return cmp.Compare(a.name, b.name) })
	return labels
}

var (
	escapeValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
)

// Prometheus writes the metrics of a run in Prometheus' text format, version 0.0.4, without times.
func Prometheus(w io.Writer, run Run) error {
	out := bufio.NewWriter(w)
	for _, f := range families(run) {
		fmt.Fprintf(out, "# HELP %s %s\n# TYPE %s summary\n", f.name, escapeHelp.Replace(valid(f.help)), f.name)
		for _, s := range f.samples {
			text := make([]string, len(s.labels))
			for i, l := range s.labels {
				text[i] = l.name + `="` + escapeValue.Replace(l.value) + `"`
			}
			fmt.Fprintf(out, "%s{%s} %s\n", s.name, strings.Join(text, ","), strconv.FormatFloat(s.value, 'g', -1, 64))
		}
	}
	return out.Flush()
}
