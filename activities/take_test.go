package activities

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// began is when the run that the tests of Take take from began.
var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// leaveRun writes a run of two run stages, warm-up and lookups, the second one in two attempts.
func leaveRun(t *testing.T, folder runs.Folder) runs.Record {
	t.Helper()
	record := runs.Record{
		ID: filepath.Base(string(folder)), Status: stage.StatusEnded, Started: began, Ended: began.Add(time.Minute),
		Stages: []stage.Result{
			{Stage: "build", Kind: pipelines.KindBuild, Verdict: stage.Passed, Attempt: 1, Artifacts: map[string]stage.Artifact{"peer": {Name: "peer", Digest: "d1"}}},
			{Stage: "warm-up", Kind: pipelines.KindRun, Verdict: stage.Passed, Attempt: 1},
			{Stage: "lookups", Kind: pipelines.KindRun, Verdict: stage.Failed, Attempt: 2},
			{Stage: "gather", Kind: pipelines.KindCollect, Verdict: stage.Passed, Attempt: 1},
		},
	}
	row := func(name, attempt string) string {
		return `{"group":"g","index":0,"stage":"` + name + `","attempt":"` + attempt + `","outcome":"succeeded"}` + "\n"
	}
	out := folder.Outputs("g", 0)
	err := errors.Join(
		folder.WriteRecord(record),
		os.MkdirAll(filepath.Dir(folder.Stage("x")), 0o755), os.MkdirAll(out, 0o755),
		os.WriteFile(folder.BuildLog("peer"), []byte("compiled\n"), 0o644),
		os.WriteFile(folder.Stage("warm-up"), []byte(row("warm-up", "warm-up-1")), 0o644),
		os.WriteFile(folder.Stage("lookups"), []byte(row("lookups", "lookups-1")+row("lookups", "lookups-2")), 0o644),
		os.WriteFile(filepath.Join(out, "stdout.log"), []byte("hello\n"), 0o644),
		os.Link(filepath.Join(out, "stdout.log"), filepath.Join(out, "run.out")),
		os.WriteFile(folder.Metrics(), []byte("{}"), 0o644),
	)
	for i, e := range []runs.Event{
		{Kind: "run-running", Text: "the run is running"},
		{Kind: eventStageStarted, Stage: "warm-up", Attempt: "warm-up-1"},
		{Kind: runs.KindEventBegan, Stage: "warm-up", Attempt: "warm-up-1", Event: "split"},
		{Kind: eventStageEnded, Stage: "warm-up", Attempt: "warm-up-1"},
		{Kind: eventStageStarted, Stage: "lookups", Attempt: "lookups-1"},
		{Kind: eventStageEnded, Stage: "lookups", Attempt: "lookups-1"},
		{Kind: eventStageStarted, Stage: "lookups", Attempt: "lookups-2"},
		{Kind: "cancel", Text: "somebody asked to cancel it"},
	} {
		e.Time = began.Add(time.Duration(i) * time.Second)
		err = errors.Join(err, folder.AppendEvent(e))
	}
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func TestTake(t *testing.T) {
	b := newBench(t)
	from, to := b.activities.Home.Run("first"), b.activities.Home.Run("fork")
	record := leaveRun(t, from)
	before := tree(t, string(from))
	in := stage.Take{Run: stage.Run{ID: "fork", From: "first"}, Stages: record.Stages[:2]}
	take := func() {
		t.Helper()
		if _, err := b.env.ExecuteActivity(stage.ActivityTake, in); err != nil {
			t.Fatal(err)
		}
	}
	// What a try that was killed has left is no hindrance.
	if err := errors.Join(os.MkdirAll(filepath.Join(string(to), takingName, "outputs", "g", "0"), 0o755),
		os.WriteFile(filepath.Join(string(to), takingName, "outputs", "g", "0", "run.out"), []byte("hel"), 0o644)); err != nil {
		t.Fatal(err)
	}
	take()
	got := tree(t, string(to))
	want := []string{"build-peer.log", "events.jsonl", "outputs/g/0/run.out", "outputs/g/0/stdout.log", "stages/warm-up.jsonl", "taken.json"}
	if !slices.Equal(got, want) {
		t.Errorf("taken were %q, want %q", got, want)
	}
	log, err := to.ReadEvents()
	if err != nil || len(log) != 3 {
		t.Errorf("the log has %d events, %v: want the 3 of warm-up", len(log), err)
	}
	var taken runs.Taken
	if err := runs.ReadJSON(to.Taken(), &taken); err != nil {
		t.Fatal(err)
	}
	wantSpans := []runs.Span{
		{Stage: "lookups", Attempt: "lookups-1", Groups: []string{"g"}, From: began.Add(4 * time.Second), To: began.Add(5 * time.Second)},
		{Stage: "lookups", Attempt: "lookups-2", Groups: []string{"g"}, From: began.Add(6 * time.Second), To: record.Ended},
	}
	if a, b := asJSON(t, taken.Discard), asJSON(t, wantSpans); a != b {
		t.Errorf("to be discarded are\n%s, want\n%s", a, b)
	}
	// The two names are one file in the copy too, and another one than the earlier run's.
	out := to.Outputs("g", 0)
	if err := os.WriteFile(filepath.Join(out, "stdout.log"), []byte("more"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{filepath.Join(out, "run.out"): "more", filepath.Join(from.Outputs("g", 0), "run.out"): "hello\n"} {
		if data, err := os.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s has %q, %v; want %q", path, data, err, want)
		}
	}
	take() // a resumed fork asks again: nothing is done over
	if data, _ := os.ReadFile(filepath.Join(out, "run.out")); string(data) != "more" {
		t.Errorf("it was taken over again: %q", data)
	}
	if after := tree(t, string(from)); !slices.Equal(before, after) {
		t.Errorf("the earlier run has %q, had %q", after, before)
	}
}

func TestTakeAForkOfAFork(t *testing.T) {
	b := newBench(t)
	from := b.activities.Home.Run("first")
	record := leaveRun(t, from)
	if err := runs.WriteJSON(from.Taken(), runs.Taken{From: "zeroth", Discard: []runs.Span{{Stage: "lookups", Attempt: "lookups-9", Groups: []string{"g"}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.env.ExecuteActivity(stage.ActivityTake, stage.Take{Run: stage.Run{ID: "fork", From: "first"}, Stages: record.Stages[:2]}); err != nil {
		t.Fatal(err)
	}
	times, err := discarded(b.activities.Home.Run("fork"))
	if err != nil || len(times["g"]) != 3 {
		t.Errorf("discarded are %v, %v: want that of the run's own past and two more", times, err)
	}
}

func TestTakeFromARunThatIsGone(t *testing.T) {
	b := newBench(t)
	for from, want := range map[string]string{"gone": "is gone", "../..": "can't name a run"} {
		_, err := b.env.ExecuteActivity(stage.ActivityTake, stage.Take{Run: stage.Run{ID: "fork", From: from}})
		var failed *temporal.ApplicationError
		if !errors.As(err, &failed) || !failed.NonRetryable() || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", from, err)
		}
	}
}

// tree lists the files below a folder.
func tree(t *testing.T, folder string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			inside, _ := filepath.Rel(folder, path)
			files = append(files, inside)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
