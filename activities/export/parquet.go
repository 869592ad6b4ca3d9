package export

import (
	"context"
	"io"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/groundplan/groundplan/activities/metrics"
)

// row is one measured value. Columns are added, never renamed; text is in dictionaries, since it repeats.
type row struct {
	Run      string `parquet:"run,dict,zstd"`
	Pipeline string `parquet:"pipeline,dict,zstd"`
	Suite    string `parquet:"suite,optional,dict,zstd"`
	Ground   string `parquet:"ground,dict,zstd"`
	Stage    string `parquet:"stage,optional,dict,zstd"`
	Group    string `parquet:"group,dict,zstd"`
	Instance int32  `parquet:"instance,delta,zstd"`
	Metric   string `parquet:"metric,dict,zstd"`
	Tags     string `parquet:"tags,optional,dict,zstd"`
	Kind     string `parquet:"kind,dict,zstd"`
	// Time is nanoseconds since 1970, UTC; null for a line that doesn't say when it was written.
	Time *int64 `parquet:"time,optional,timestamp(nanosecond),zstd"`
	// Phases are those that it was measured in: during.split.
	Phases []string `parquet:"phases,list,dict,zstd"`
	Value  *float64 `parquet:"value,optional,zstd"`
	// The rest is set where a histogram or timer has written a summary of many values, and value is not.
	Count  *int64   `parquet:"count,optional,zstd"`
	Min    *float64 `parquet:"min,optional,zstd"`
	Max    *float64 `parquet:"max,optional,zstd"`
	Mean   *float64 `parquet:"mean,optional,zstd"`
	StdDev *float64 `parquet:"stddev,optional,zstd"`
	P50    *float64 `parquet:"p50,optional,zstd"`
	P75    *float64 `parquet:"p75,optional,zstd"`
	P90    *float64 `parquet:"p90,optional,zstd"`
	P95    *float64 `parquet:"p95,optional,zstd"`
	P99    *float64 `parquet:"p99,optional,zstd"`
	P999   *float64 `parquet:"p999,optional,zstd"`
	P9999  *float64 `parquet:"p9999,optional,zstd"`
}

// rowsPerGroup is how many rows are held in memory, at about 150 bytes each, before they are written.
const rowsPerGroup = 100_000

// batch is how many rows go to the writer at once.
const batch = 512

// Parquet writes a row for every measured value of the run, instance by instance. Memory is bounded by a row group.
func Parquet(ctx context.Context, w io.Writer, run Run) error {
	out := parquet.NewGenericWriter[row](w, parquet.MaxRowsPerRowGroup(rowsPerGroup), parquet.CreatedBy("groundplan", "1", ""))
	rows := make([]row, 0, batch)
	flush := func() error {
		_, err := out.Write(rows)
		rows = rows[:0]
		return err
	}
	err := metrics.Walk(ctx, run.Folder, run.Groups, run.Times, func(m *metrics.Measurement) error {
		if run.Only != nil && !run.Only(m.Metric) {
			return nil
		}
		rows = append(rows, rowOf(run, m))
		if len(rows) < batch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	return out.Close()
}

func rowOf(run Run, m *metrics.Measurement) row {
	r := row{
		Run: run.ID, Pipeline: run.Pipeline, Suite: run.Suite, Ground: run.Ground, Stage: m.Stage, Group: m.Group, Instance: int32(m.Instance),
		Metric: m.Metric, Tags: m.Tags, Kind: m.Type, Time: nanoseconds(m.Time), Phases: append([]string(nil), m.Phases...),
	}
	if !m.Summarises {
		value := m.Value // m is used again for the next row
		r.Value = &value
		return r
	}
	count := int64(m.Measures["count"])
	r.Count = &count
	for measure, to := range map[string]**float64{
		"min": &r.Min, "max": &r.Max, "mean": &r.Mean, "stddev": &r.StdDev, "p50": &r.P50, "p75": &r.P75, "p90": &r.P90,
		"p95": &r.P95, "p99": &r.P99, "p999": &r.P999, "p9999": &r.P9999,
	} {
		if value, there := m.Measures[measure]; there {
			*to = &value
		}
	}
	return r
}

func nanoseconds(at time.Time) *int64 {
	if at.IsZero() {
		return nil
	}
	ns := at.UnixNano()
	return &ns
}
