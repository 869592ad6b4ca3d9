package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func second(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0).UTC() }

// sampleRun is a run of two groups and two stages, with an event in the second, that measured everything there is.
func sampleRun(t testing.TB) Run {
	t.Helper()
	folder := runs.Folder(t.TempDir())
	for index := range 2 {
		var content strings.Builder
		say := func(at int, kind, name, measures string) {
			fmt.Fprintf(&content, `{"ts":%d,"type":%q,"name":%q,"measures":{%s}}`+"\n", second(at).UnixNano(), kind, name, measures)
		}
		for at := range 6 {
			say(at, "point", "rtt_seconds,to=us", fmt.Sprintf(`"value":0.%d%d`, at, index))
			say(at, "counter", "lookups", `"count":3`)
			say(at, "gauge", "peers", fmt.Sprintf(`"value":%d`, at))
		}
		say(4, "timer", "took.us", `"count":100,"min":1,"max":9,"mean":3,"stddev":1,"p50":2.5,"p95":8,"p99":8.5`)
		say(4, "point", "took-us", `"value":-2`)
		say(4, "point", "lookups_sum", `"value":0`)
		content.WriteString(`{"type":"point","name":"time\\less \"x\"\n","measures":{"value":1}}` + "\nno metric\n")
		leave(t, folder, "eu", index, "results.out", content.String())
	}
	leave(t, folder, "us", 0, "results.out", fmt.Sprintf(`{"ts":%d,"type":"point","name":"rtt_seconds","measures":{"value":2}}`, second(4).UnixNano()))
	stages := []metrics.Window{{Stage: "warm", From: second(0), To: second(2)}, {Stage: "load", From: second(3), To: second(6)}}
	run := Run{
		ID: "20261123-sample", Pipeline: "dht", Suite: "nightly", Ground: "local", Folder: folder,
		Groups: []pipelines.Group{{Name: "eu", Instances: 2}, {Name: "us", Instances: 1}},
		Times: metrics.Times{
			Windows: []metrics.Window{{Stage: "load", Phase: "before", Event: "split", From: second(3), To: second(3)}, {Stage: "load", Phase: "during", Event: "split", From: second(4), To: second(5)}},
			Stages:  map[string][]metrics.Window{"eu": stages, "us": stages},
		},
	}
	run.Started, run.Ended = Span(run.Times, second(99))
	summarise(t, &run)
	return run
}

func summarise(t testing.TB, run *Run) {
	t.Helper()
	report, err := metrics.Summarise(t.Context(), run.Folder, run.Groups, run.Times, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	run.Series = report.Series
}

func leave(t testing.TB, folder runs.Folder, group string, index int, name, content string) {
	t.Helper()
	dir := folder.Outputs(group, index)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestSpan(t *testing.T) {
	run := sampleRun(t)
	if !run.Started.Equal(second(0)) || !run.Ended.Equal(second(6)) {
		t.Errorf("%v to %v", run.Started, run.Ended)
	}
	if from, to := Span(metrics.Times{}, second(9)); !from.Equal(second(9)) || !to.Equal(second(9)) {
		t.Errorf("%v to %v", from, to)
	}
}

func TestGoldens(t *testing.T) {
	run := sampleRun(t)
	for name, write := range map[string]func(io.Writer, Run) error{"metrics.prom": Prometheus, "metrics.otlp.json": OTLP, "metrics.csv": CSV} {
		var got bytes.Buffer
		if err := write(&got, run); err != nil {
			t.Fatal(err)
		}
		golden.Compare(t, "testdata/"+name, got.String())
	}
}

func TestParquet(t *testing.T) {
	run := sampleRun(t)
	var file bytes.Buffer
	if err := Parquet(t.Context(), &file, run); err != nil {
		t.Fatal(err)
	}
	rows, err := parquet.Read[row](bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil || len(rows) != 2*22+1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	var text strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&text, "%s %s %s %s|%s|%s/%d %s|%s|%s %s %v", r.Run, r.Pipeline, r.Suite, r.Ground, r.Stage, r.Group, r.Instance, r.Metric, r.Tags, r.Kind, plain(r.Time), r.Phases)
		for _, v := range []*float64{r.Value, r.Min, r.Max, r.Mean, r.StdDev, r.P50, r.P75, r.P90, r.P95, r.P99, r.P999, r.P9999} {
			text.WriteString(" " + plain(v))
		}
		text.WriteString(" n=" + plain(r.Count) + "\n")
	}
	golden.Compare(t, "testdata/rows.golden", text.String())
}

func plain[T any](v *T) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprint(*v)
}

// TestParquetInManyGroups writes more than one row group, and reads the columns of text as dictionaries.
func TestParquetInManyGroups(t *testing.T) {
	run := sampleRun(t)
	line := fmt.Sprintf(`{"ts":%d,"type":"point","name":"rtt_seconds,to=us","measures":{"value":0.25}}`+"\n", second(4).UnixNano())
	leave(t, run.Folder, "us", 0, "results.out", strings.Repeat(line, rowsPerGroup+10))
	var file bytes.Buffer
	if err := Parquet(t.Context(), &file, run); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if groups := len(f.RowGroups()); groups != 2 || f.NumRows() != 2*22+rowsPerGroup+10 {
		t.Errorf("%d row groups of %d rows", groups, f.NumRows())
	}
	if perRow := float64(file.Len()) / float64(f.NumRows()); perRow > 10 {
		t.Errorf("%.1f bytes a row, although all are alike", perRow)
	}
}

func TestParquetStops(t *testing.T) {
	run := sampleRun(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if err := Parquet(ctx, io.Discard, run); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	full := errors.New("no space left")
	if err := Parquet(t.Context(), failing{full}, run); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestExportWritesFiles(t *testing.T) {
	run := sampleRun(t)
	forms := []string{pipelines.ExportParquet, pipelines.ExportPrometheus, pipelines.ExportOTLP}
	o, err := Export(t.Context(), run, forms, Targets{}, time.Time{}, func(string) {})
	if err != nil || o.Unsent != "" {
		t.Fatalf("%+v, %v", o, err)
	}
	if len(o.Notes) != 1 || !strings.Contains(o.Notes[0], "the metrics took-us, took.us are all called groundplan_took_us") {
		t.Errorf("notes: %q", o.Notes)
	}
	entries, err := os.ReadDir(string(run.Folder))
	if err != nil || len(entries) != 4 { // and outputs
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := Export(t.Context(), run, []string{"csv"}, Targets{}, time.Time{}, func(string) {}); err == nil {
		t.Error("csv was exported")
	}
	run.Folder = runs.Folder(filepath.Join(t.TempDir(), "gone"))
	if _, err := Export(t.Context(), run, forms[:1], Targets{}, time.Time{}, func(string) {}); err == nil || !strings.Contains(err.Error(), "exporting metrics as parquet") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkParquet(b *testing.B) {
	run := sampleRun(b)
	line := fmt.Sprintf(`{"ts":%d,"type":"point","name":"rtt_seconds,to=us","measures":{"value":0.25}}`+"\n", second(4).UnixNano())
	leave(b, run.Folder, "us", 0, "results.out", strings.Repeat(line, 1_000_000))
	for b.Loop() {
		if err := Parquet(b.Context(), io.Discard, run); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ns/row")
}
