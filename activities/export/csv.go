package export

import (
	"encoding/csv"
	"io"
	"strconv"
)

// CSV writes a row for every series of the run, behind a row of titles.
func CSV(w io.Writer, run Run) error {
	out := csv.NewWriter(w)
	titles := []string{"metric", "group", "stage", "phase", "event", "kind", "count", "sum", "min", "max", "mean", "p50", "p90", "p95", "p99"}
	if err := out.Write(titles); err != nil {
		return err
	}
	for _, s := range run.Series {
		fields := []string{s.Metric, s.Group, s.Stage, s.Phase, s.Event, string(s.Kind), strconv.FormatInt(s.Summary.Count, 10)}
		for _, v := range []float64{s.Summary.Sum, s.Summary.Min, s.Summary.Max, s.Summary.Mean, s.Summary.P50, s.Summary.P90, s.Summary.P95, s.Summary.P99} {
			fields = append(fields, strconv.FormatFloat(v, 'g', -1, 64))
		}
		if err := out.Write(fields); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
