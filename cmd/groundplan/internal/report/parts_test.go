package report

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

func TestParts(t *testing.T) {
	parts := Parts(failedRun(), []string{"split", "net.split"})
	for name, want := range map[string]Part{
		"rtt": {Metric: "rtt"}, "eu.rtt": {Metric: "rtt", Group: "eu"}, "asia.rtt": {Metric: "asia.rtt"},
		"eu.rtt.during.split": {"rtt", "eu", "during", "split"}, "rtt.after.churn": {Metric: "rtt.after.churn"},
		"a.b.before.split": {Metric: "a.b", Phase: "before", Event: "split"}, ".during.split": {Metric: ".during.split"},
		"eu": {Metric: "eu"}, "rtt.before.net.split": {Metric: "rtt", Phase: "before", Event: "net.split"},
	} {
		if got := parts(name); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func TestEventsOf(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	if got := EventsOf(folder); got != nil {
		t.Errorf("of none: %q", got)
	}
	events := []pipelines.Event{{Name: "split"}, {}, {Name: "churn"}}
	stages := []pipelines.Stage{{Run: &pipelines.Run{Events: events}}, {}, {Run: &pipelines.Run{Events: events[:1]}}}
	if err := folder.WritePipeline(pipelines.Resolved{Stages: stages}); err != nil {
		t.Fatal(err)
	}
	if got := EventsOf(folder); strings.Join(got, " ") != "split churn" {
		t.Errorf("got %q", got)
	}
	if err := os.WriteFile(filepath.Join(string(folder), "pipeline.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := EventsOf(folder); got != nil {
		t.Errorf("of a broken one: %q", got)
	}
}

// TestPictures has what a person sees on a terminal: groups and phases below their metric, on one scale.
func TestPictures(t *testing.T) {
	wide := &terminal.Terminal{Live: true, Window: func() (int, int) { return 200, 50 }}
	s := func(values ...float64) pipelines.Summary {
		return pipelines.Summary{Count: 10, Min: values[0], P50: values[1], P90: values[2], P95: values[2], P99: values[3], Max: values[4]}
	}
	metrics := map[string]pipelines.Summary{
		"rtt": s(0, 5, 8, 9, 10), "eu.rtt": s(0, 1, 2, 3, 4), "us.rtt": s(6, 7, 8, 9, 10),
		"rtt.before.split": s(0, 2, 3, 4, 5), "rtt.during.split": s(5, 8, 9, 10, 10), "rtt.after.split": s(0, 2, 3, 4, 5),
		"size": s(1, 10, 100, 1000, 10000), "one": s(3, 3, 3, 3, 3), "negative": s(-5, 0, 1, 2, 5),
		"huge": s(-math.MaxFloat64, 0, 1, 2, math.MaxFloat64),
	}
	narrow := &terminal.Terminal{Live: true, Window: func() (int, int) { return 80, 24 }}
	parts := Parts(failedRun(), []string{"split"})
	golden.Compare(t, "testdata/pictures.golden", Metrics(wide, metrics, parts)+"\n"+Metrics(narrow, metrics, parts))
}

// TestPictureOfAnything draws what would overflow, or has no width.
func TestPictureOfAnything(t *testing.T) {
	values := []float64{-math.MaxFloat64, -1, -math.SmallestNonzeroFloat64, 0, math.SmallestNonzeroFloat64, 1, 3, math.MaxFloat64}
	for _, least := range values {
		for _, p50 := range values {
			for _, most := range values {
				s := pipelines.Summary{Min: least, P50: p50, P90: p50, P99: most, Max: most}
				scales := axes(map[string]pipelines.Summary{"x": s}, Parts(runs.Record{}, nil))
				if got := picture(scales["x"], s); utf8.RuneCountInString(got) != pictureWidth || !strings.Contains(got, "●") {
					t.Errorf("%+v: %q", s, got)
				}
			}
		}
	}
}
