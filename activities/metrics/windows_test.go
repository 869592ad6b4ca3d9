package metrics

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

func second(n int) time.Time { return time.Unix(int64(n), 0) }

func TestWindows(t *testing.T) {
	line := func(at int, kind, stage, attempt, event string) runs.Event {
		return runs.Event{Time: second(at), Kind: kind, Stage: stage, Attempt: attempt, Event: event}
	}
	took := func(e runs.Event) runs.Event { e.Took, e.At = time.Second, 6*time.Second; return e }
	log := []runs.Event{
		line(1, "stage-started", "a", "", ""),
		took(line(10, runs.KindEventBegan, "a", "a-1", "split")),
		line(11, runs.KindEventBegan, "b", "b-1", "split"),
		line(12, runs.KindEventBegan, "a", "a-1", "event 3"),
		line(13, runs.KindEventMissed, "a", "a-1", "churn"),
		took(line(20, runs.KindEventEnded, "a", "a-1", "split")),
		line(21, runs.KindEventBegan, "a", "a-1", "fall"),
		line(30, runs.KindStageClosed, "a", "", ""),
		line(31, runs.KindEventBegan, "a", "a-2", "split"), // its sidecar dies
		line(40, runs.KindStageEnded, "a", "", ""),
		line(50, runs.KindEventBegan, "a", "a-3", "fall"),
	}
	want := []Window{
		{"a", "before", "split", second(4), second(9)},
		{"a", "during", "split", second(10), second(19)},
		{"b", "during", "split", second(11), time.Time{}}, // at once: nothing was before it
		{"a", "after", "split", second(20), second(30)},
		{"a", "during", "fall", second(21), second(30)},
		{"a", "during", "split", second(31), second(40)},
		{"a", "during", "fall", second(50), time.Time{}},
	}
	if got := Windows(log); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// TestDuring has every kind of metric measured before, in and after two windows of one event, and in one of another.
func TestDuring(t *testing.T) {
	var content strings.Builder
	say := func(at float64, kind, name, measure string, value float64) {
		fmt.Fprintf(&content, `{"ts":%d,"type":%q,"name":%q,"measures":{%q:%v}}`+"\n", int64(at*1e9), kind, name, measure, value)
	}
	for at := range 10 {
		v := float64(at)
		say(v, "point", "rtt,to=us", "value", v)
		say(v, "gauge", "peers", "value", v)
		say(v, "ewma", "load", "rate", v)
		say(v, "counter", "lookups", "count", v)
		say(v, "meter", "bytes", "count", 100*v)
		say(v, "histogram", "size", "value", v)
		fmt.Fprintf(&content, `{"ts":%d,"type":"timer","name":"took","measures":{"count":%d,"mean":1,"min":1,"max":1}}`+"\n", at*1e9, at+1)
	}
	content.WriteString(`{"ts":3.0e9,"type":"point","name":"float","measures":{"value":1}}` + "\n")
	content.WriteString(`{"ts":"3","type":"point","name":"text","measures":{"value":1}}` + "\n")
	content.WriteString(`{"type":"point","name":"timeless","measures":{"value":1}}` + "\n")
	content.WriteString(`{"ts":3000000000,"type":"point","name":"bad","measures":{}}` + "\n")
	folder := runs.Folder(t.TempDir())
	instanceFile(t, folder, "eu", 0, content.String())
	windows := []Window{
		{"run", "before", "split", second(0), second(1)}, {"run", "during", "split", second(2), second(3)},
		{"run", "during", "split", second(7), second(8)}, {"run", "during", "fall", second(8), time.Time{}},
	}
	report, err := Summarise(t.Context(), folder, []pipelines.Group{{Name: "eu", Instances: 1}}, Times{Windows: windows}, func(int) {})
	if err != nil || report.BadLines != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	type figures struct {
		Count int64
		Sum   float64
	}
	got := map[string]figures{}
	for name, s := range report.Metrics {
		if (strings.Contains(name, ".during.") || strings.Contains(name, ".before.")) && !strings.HasPrefix(name, "eu.") {
			got[name] = figures{s.Count, s.Sum}
			if group := report.Metrics["eu."+name]; group != s {
				t.Errorf("of the group, %s is %+v", name, group)
			}
		}
	}
	want := map[string]figures{
		"rtt.before.split": {2, 1}, "peers.before.split": {1, 1}, "load.before.split": {1, 1}, "lookups.before.split": {1, 1},
		"bytes.before.split": {1, 100}, "size.before.split": {2, 1},
		"rtt.during.split": {4, 20}, "rtt.during.fall": {2, 17},
		"peers.during.split": {2, 11}, "peers.during.fall": {1, 9}, // the last of each window
		"load.during.split": {2, 11}, "load.during.fall": {1, 9},
		"lookups.during.split": {2, 20}, "lookups.during.fall": {1, 17},
		"bytes.during.split": {2, 400}, "bytes.during.fall": {1, 200}, // what it counted meanwhile
		"size.during.split": {4, 20}, "size.during.fall": {2, 17},
		"float.during.split": {1, 1},
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if all := report.Metrics["bytes"]; all.Sum != 900 {
		t.Errorf("all: %+v", all)
	}
	for _, name := range []string{"took", "timeless", "text"} {
		if !slices.Contains(slices.Collect(maps.Keys(report.Metrics)), name) {
			t.Errorf("%s is gone", name)
		}
	}
}

// TestSuperseded has a stage tried twice: only what the second attempt measured counts, of the stage's own group.
func TestSuperseded(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	for _, group := range []string{"eu", "us"} {
		var content strings.Builder
		for at := range 10 {
			fmt.Fprintf(&content, `{"ts":%d,"type":"point","name":"rtt","measures":{"value":%d}}`+"\n", int64(at)*1e9, at)
			fmt.Fprintf(&content, `{"ts":%d,"type":"counter","name":"lookups","measures":{"count":1}}`+"\n", int64(at)*1e9)
		}
		content.WriteString(`{"type":"point","name":"rtt","measures":{"value":100}}` + "\n") // nobody knows when: it counts
		instanceFile(t, folder, group, 0, content.String())
	}
	times := Times{Superseded: map[string][]Window{"eu": {{From: second(0), To: second(3)}, {From: second(4), To: second(5)}}}}
	report, err := Summarise(t.Context(), folder, []pipelines.Group{{Name: "eu", Instances: 1}, {Name: "us", Instances: 1}}, times, func(int) {})
	if err != nil || report.BadLines != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if eu := report.Metrics["eu.rtt"]; eu.Count != 5 || eu.Min != 6 {
		t.Errorf("eu: %+v", eu)
	}
	if eu := report.Metrics["eu.lookups"]; eu.Sum != 4 {
		t.Errorf("eu: %+v", eu)
	}
	if us := report.Metrics["us.rtt"]; us.Count != 11 {
		t.Errorf("us: %+v", us)
	}
}
