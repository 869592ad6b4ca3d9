package export

import (
	"fmt"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/activities/metrics"
)

// prefix stands before every name, so that a plan's metrics are never taken for those of anything else.
const prefix = "groundplan_"

// names are what Prometheus calls the metrics of a run. Its names are made of letters, digits and underscores: everything
// else becomes an underscore, and metrics may come to have the same name. Those keep apart by a label with their own.
type names struct {
	of     map[string]string   // metric → name
	shared map[string][]string // name → metrics, where it has several
}

func newNames(series []metrics.Series) names {
	n := names{of: map[string]string{}, shared: map[string][]string{}}
	by := map[string][]string{}
	for _, s := range series {
		if _, known := n.of[s.Metric]; !known {
			name := mangle(s.Metric)
			n.of[s.Metric] = name
			by[name] = append(by[name], s.Metric)
		}
	}
	// A summary x has series x_sum and x_count, which no metric may be called.
	for metric, name := range n.of {
		for _, end := range []string{"_sum", "_count"} {
			if stem, ends := strings.CutSuffix(name, end); ends && by[stem] != nil {
				n.of[metric] = name + "_value"
			}
		}
	}
	by = map[string][]string{}
	for metric, name := range n.of {
		by[name] = append(by[name], metric)
	}
	for name, metrics := range by {
		if len(metrics) > 1 {
			slices.Sort(metrics)
			n.shared[name] = metrics
		}
	}
	return n
}

func mangle(metric string) string {
	return prefix + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, metric)
}

// mostCollisions is how many names that metrics share are told by themselves.
const mostCollisions = 3

// collisions are notes about metrics that have the same name for Prometheus.
func (n names) collisions() []string {
	var notes []string
	shared := make([]string, 0, len(n.shared))
	for name := range n.shared {
		shared = append(shared, name)
	}
	slices.Sort(shared)
	for i, name := range shared {
		if i == mostCollisions {
			return append(notes, fmt.Sprintf("for Prometheus, %d more names are shared by several metrics", len(shared)-i))
		}
		of := n.shared[name]
		if len(of) > mostCollisions {
			of = append(slices.Clone(of[:mostCollisions]), fmt.Sprintf("%d more", len(of)-mostCollisions))
		}
		notes = append(notes, fmt.Sprintf("for Prometheus, the metrics %s are all called %s: the label `metric` tells them apart", strings.Join(of, ", "), name))
	}
	return notes
}
