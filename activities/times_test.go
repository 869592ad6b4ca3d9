package activities

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// TestTimes has a stage tried three times, and groups that took part in its first attempt only, or in none.
func TestTimes(t *testing.T) {
	second := func(s int64) time.Time { return time.Unix(s, 0) }
	event := func(at int64, kind, name string, attempt int) runs.Event {
		return runs.Event{Time: second(at), Kind: kind, Stage: name, Attempt: stage.Key(name, attempt)}
	}
	log := []runs.Event{
		event(1, eventStageStarted, "warm", 1),
		event(1, eventStageStarted, "load", 1),
		event(3, eventStageEnded, "warm", 1),
		event(4, eventStageEnded, "load", 1),
		event(5, eventStageStarted, "load", 2), // its worker died: nobody wrote its end
		{Time: second(6), Kind: eventStageEnded, Stage: "load", Text: "as it was written once, without the attempt"},
		event(7, eventStageStarted, "load", 3),
		event(9, eventStageEnded, "load", 3),
	}
	folder := runs.Folder(t.TempDir())
	rows := `{"group":"eu","index":0,"attempt":"load-3"}` + "\n" + `{"group":"us","index":0,"attempt":"load-1"}` + "\n" + `{"group":"af","in`
	if err := os.MkdirAll(filepath.Dir(folder.Stage("load")), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder.Stage("load"), []byte(rows), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, e := range log {
		if err := folder.AppendEvent(e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Times(folder, []stage.Result{
		{Stage: "warm", Kind: pipelines.KindRun, Attempt: 1, Started: second(1), Ended: second(3)},
		{Stage: "wan", Kind: pipelines.KindNetwork, Attempt: 2},
		{Stage: "load", Kind: pipelines.KindRun, Attempt: 3, Started: second(8), Ended: second(9)},
		{Stage: "never", Kind: pipelines.KindRun, Attempt: 2}, // no file: nobody ever ran
	})
	if err != nil {
		t.Fatal(err)
	}
	windows := []metrics.Window{
		{Stage: "load", Event: "load-1", From: second(1), To: second(4)},
		{Stage: "load", Event: "load-2", From: second(5), To: second(7).Add(-time.Nanosecond)},
	}
	want := metrics.Times{
		Stages:     map[string][]metrics.Window{"eu": {{Stage: "load", From: second(7), To: second(9)}}},
		Superseded: map[string][]metrics.Window{"eu": windows, "us": windows},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) { // times from a file have no monotonic clock, and a zone of their own
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
