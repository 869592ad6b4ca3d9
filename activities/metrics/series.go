package metrics

import (
	"cmp"
	"maps"
	"slices"

	"github.com/groundplan/groundplan/pipelines"
)

// Label says what a series is of.
type Label struct {
	Metric string
	// Group is empty for all groups together; a pipeline of one group has no such series.
	Group string
	// Stage is the run stage; empty for what was measured in none, or at a time that the lines don't tell.
	Stage string
	// Phase is one of pipelines.Phases of the stage, and Event the event that it is seen from; empty for all of the stage.
	Phase, Event string
}

func (l Label) compare(other Label) int {
	return cmp.Or(cmp.Compare(l.Metric, other.Metric), cmp.Compare(l.Group, other.Group), cmp.Compare(l.Stage, other.Stage),
		cmp.Compare(l.Event, other.Event), slices.Index(pipelines.Phases, l.Phase)-slices.Index(pipelines.Phases, other.Phase))
}

// Series is what the values of a metric come to, of a group in a stage.
type Series struct {
	Label
	Kind    Kind
	Summary pipelines.Summary

	values *distribution
}

// seriesOf puts series in order. Of a single group all groups together are the same, and are left out.
func seriesOf(found map[Label]*distribution, groups int) []Series {
	list := make([]Series, 0, len(found))
	for _, label := range slices.SortedFunc(maps.Keys(found), Label.compare) {
		d := found[label]
		if d.count == 0 || label.Group == "" && groups < 2 {
			continue
		}
		list = append(list, Series{Label: label, Kind: d.kind, Summary: d.summary(), values: d})
	}
	return list
}
