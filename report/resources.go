package report

import (
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/report/plot"
	"github.com/groundplan/groundplan/runs"
)

// resource is one sort of resource, with a row per group.
type resource struct {
	Name string
	Rows []summaryRow
}

func (m *material) resources() []resource {
	if len(m.record.Groups) == 0 {
		return nil
	}
	var list []resource
	for _, sort := range []struct {
		name string
		unit plot.Unit
		of   func(runs.Group) pipelines.Summary
	}{
		{"Peak memory of an instance", plot.Bytes, func(g runs.Group) pipelines.Summary { return g.PeakMemory }},
		{"CPU time of an instance", plot.Seconds, func(g runs.Group) pipelines.Summary { return g.CPU }},
		{"Time from start to end of an instance", plot.Seconds, func(g runs.Group) pipelines.Summary { return g.Seconds }},
	} {
		var rows []summaryRow
		for _, name := range sorted(m.record.Groups) {
			rows = append(rows, summaryRow{Group: name, summary: sort.of(m.record.Groups[name])})
		}
		r := resource{Name: sort.name}
		r.Rows, _ = summaries(sort.unit, rows)
		list = append(list, r)
	}
	return list
}
