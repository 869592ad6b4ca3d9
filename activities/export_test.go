package activities

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/export"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// TestCollectExports has a stage write its metrics for other programs, and a collector that refuses them: the stage is
// invalid, or failed for what is worse, and the files are there.
func TestCollectExports(t *testing.T) {
	asked := 0
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.WriteHeader(http.StatusBadRequest)
	}))
	defer collector.Close()
	forms := []string{pipelines.ExportParquet, pipelines.ExportPrometheus, pipelines.ExportOTLP}
	broken := []pipelines.Assertion{{Expr: "1 == 2"}}
	refused := "the OTLP endpoint at " + strings.TrimPrefix(collector.URL, "http://") + " answered 400 Bad Request; the files are in "
	for _, c := range []struct {
		name    string
		collect pipelines.Collect
		targets export.Targets
		verdict stage.Verdict
		reason  string // what it ends with, before the folder
	}{
		{"only files", pipelines.Collect{Export: forms}, export.Targets{}, stage.Passed, ""},
		{"not asked for", pipelines.Collect{}, export.Targets{OTLP: collector.URL}, stage.Passed, ""},
		{"refused", pipelines.Collect{Export: forms}, export.Targets{OTLP: collector.URL}, stage.Invalid, refused},
		{"refused, and broken", pipelines.Collect{Export: forms, Assert: broken}, export.Targets{OTLP: collector.URL}, stage.Failed, "the assertion did not hold: `1 == 2`; " + refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.left()
			b.activities.Exports = c.targets
			result := b.must("collect", collectInput(c.collect))
			if reason := strings.TrimSuffix(result.Reason, string(b.folder)); result.Verdict != c.verdict || reason != c.reason {
				t.Errorf("got %s: %s", result.Verdict, result.Reason)
			}
			for _, path := range []string{b.folder.Parquet(), b.folder.Prometheus(), b.folder.OTLP()} {
				if _, err := os.Stat(path); (err == nil) != (c.collect.Export != nil) {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
	if asked != 2 {
		t.Errorf("the collector was asked %d times", asked)
	}
}

// TestExported has a run that has ended exported anew: as its collect stage did it.
func TestExported(t *testing.T) {
	b := newBench(t)
	b.left()
	in := collectInput(pipelines.Collect{Export: []string{pipelines.ExportPrometheus}})
	if result := b.must("collect", in); result.Verdict != stage.Passed {
		t.Fatalf("%+v", result)
	}
	record := runs.Record{ID: in.Run.ID, Pipeline: in.Pipeline, Ground: in.Run.Ground, Stages: in.Stages, Ended: time.Now()}
	if _, _, err := Exported(t.Context(), b.folder, record); err == nil {
		t.Error("it was exported without its pipeline")
	}
	if err := b.folder.WritePipeline(pipelines.Resolved{Name: in.Pipeline, Groups: in.Groups}); err != nil {
		t.Fatal(err)
	}
	run, files, err := Exported(t.Context(), b.folder, record)
	if err != nil || files == 0 {
		t.Fatalf("%d files, %v", files, err)
	}
	var got strings.Builder
	if err := export.Prometheus(&got, run); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, b.folder.Prometheus(), got.String())
}
