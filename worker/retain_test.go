package worker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/runs/retention"
)

// older makes all that is in a folder so many days older.
func older(t *testing.T, folder string, days int) {
	t.Helper()
	at := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
	err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, at, at))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// oldRun leaves a run in a home that ended so many days ago.
func oldRun(t *testing.T, home runs.Home, id string, days int, change func(*runs.Record)) {
	t.Helper()
	at := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
	r := runs.Record{ID: id, Pipeline: "dht", Status: stage.StatusEnded, Verdict: stage.Passed, Ground: GroundLocal, Started: at, Ended: at}
	if change != nil {
		change(&r)
	}
	folder := home.Run(id)
	if err := errors.Join(folder.WriteRecord(r), folder.WritePipeline(pipelines.Resolved{Name: "dht"}), folder.AppendEvent(runs.Event{Time: at, Kind: "run-ended"})); err != nil {
		t.Fatal(err)
	}
	older(t, string(folder), days)
}

func left(t *testing.T, folder string) string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func retain(t *testing.T, home runs.Home, s *Session, policy retention.Policy, dry bool) retention.Plan {
	t.Helper()
	plan, err := Retain(t.Context(), Config{Home: home}, s, policy, dry)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

const month = 30 * 24 * time.Hour

func TestRetain(t *testing.T) {
	home := runs.Home(t.TempDir())
	digests := []string{strings.Repeat("a", 64), strings.Repeat("b", 64)}
	for _, digest := range digests {
		folder := filepath.Join(home.Artifacts(), digest)
		if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "program"), make([]byte, 100_000), 0o755)); err != nil {
			t.Fatal(err)
		}
		older(t, folder, 50)
	}
	oldRun(t, home, "new", 2, func(r *runs.Record) { // its ground has given the artifact another digest
		r.Stages = []stage.Result{{Artifacts: map[string]stage.Artifact{"p": {Digest: "other", Path: filepath.Join(home.Artifacts(), digests[0], "program")}}}}
	})
	oldRun(t, home, "old", 40, func(r *runs.Record) {
		r.Stages = []stage.Result{{Artifacts: map[string]stage.Artifact{"p": {Digest: digests[1]}}}}
	})
	oldRun(t, home, "interrupted", 40, func(r *runs.Record) { r.Status = stage.StatusRunning })
	oldRun(t, home, "matrix", 40, func(r *runs.Record) { r.Cells = []stage.Cell{{Run: "matrix.1"}} })
	oldRun(t, home, "matrix.1", 40, nil)
	if err := errors.Join(os.Mkdir(string(home.Run("nameless")), 0o755), os.Mkdir(filepath.Join(string(home), "runs", "~gone-killed-1"), 0o755),
		os.WriteFile(filepath.Join(string(home), "runs", "note"), nil, 0o600), os.Symlink(t.TempDir(), string(home.Run("linked")))); err != nil {
		t.Fatal(err)
	}
	older(t, string(home.Run("nameless")), 40)
	before := left(t, filepath.Join(string(home), "runs"))
	plan := retain(t, home, nil, retention.Policy{Age: month}, true)
	if after := left(t, filepath.Join(string(home), "runs")); before != after {
		t.Errorf("dry: %q is left of %q", after, before)
	}
	if plan.Frees() < 100_000 {
		t.Errorf("it would free %d bytes", plan.Frees())
	}
	retain(t, home, nil, retention.Policy{Age: month}, false)
	if got := left(t, filepath.Join(string(home), "runs")); got != "interrupted linked new note" {
		t.Errorf("runs left are %q", got)
	}
	if got := left(t, home.Artifacts()); got != ".locks "+digests[0] {
		t.Errorf("artifacts left are %q", got)
	}
	if plan := retain(t, runs.Home(t.TempDir()), nil, retention.Policy{Age: month}, false); len(plan.Runs) != 0 {
		t.Errorf("of an empty home: %+v", plan)
	}
}

func TestCompares(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	if most, with := compares(folder); most != 0 || with != "" {
		t.Errorf("without a pipeline: %d, %q", most, with)
	}
	gather := func(c *pipelines.Compare) pipelines.Stage {
		return pipelines.Stage{Kind: pipelines.KindCollect, Collect: &pipelines.Collect{Compare: c}}
	}
	p := pipelines.Resolved{Stages: []pipelines.Stage{gather(nil), gather(&pipelines.Compare{With: "base"}), gather(&pipelines.Compare{With: "last-success"}), gather(&pipelines.Compare{Runs: 4})}}
	if err := folder.WritePipeline(p); err != nil {
		t.Fatal(err)
	}
	if most, with := compares(folder); most != 10 || with != "base" {
		t.Errorf("got %d, %q", most, with)
	}
}

// testRetain has runs removed beside others that are under way or were resumed.
func testRetain(t *testing.T, s *Session, home runs.Home) {
	wait(t, start(t, s, "worn", "ok-build"))
	wait(t, start(t, s, "revived", "fail-build"))
	under := start(t, s, "under", "stuck-run")
	until(t, "the stage runs", func() bool { return len(starts(t, home, "under")) == 1 })
	for _, id := range []string{"worn", "revived", "under"} {
		record, err := home.Run(id).ReadRecord()
		if err != nil {
			t.Fatal(err)
		}
		record.Started, record.Ended, record.Status = record.Started.Add(-2*month), record.Started.Add(-2*month), stage.StatusEnded
		if err := home.Run(id).WriteRecord(record); err != nil {
			t.Fatal(err)
		}
		older(t, string(home.Run(id)), 60)
	}
	r := retaining{home: home, session: s, now: time.Now(), store: nil}
	if begun, err := r.begunSince(t.Context(), "under"); err != nil || !begun {
		t.Errorf("a run under way: %v, %v", begun, err)
	}
	if begun, err := r.begunSince(t.Context(), "worn"); err != nil || begun {
		t.Errorf("a run that has ended: %v, %v", begun, err)
	}
	plan := retain(t, home, s, retention.Policy{Age: month}, false)
	goes := func(id string) bool {
		return slices.ContainsFunc(plan.Runs, func(d retention.Decision) bool { return d.Name == id && d.Goes })
	}
	if !goes("worn") || goes("under") {
		t.Errorf("decided was %+v", plan.Runs)
	}
	for id, want := range map[string]bool{"worn": false, "under": true} {
		if _, err := os.Stat(string(home.Run(id))); (err == nil) != want {
			t.Errorf("the folder of %s is there: %v", id, err == nil)
		}
	}
	until(t, "no list has it any more", func() bool {
		rows, err := s.List(t.Context(), Filter{})
		return err == nil && !slices.ContainsFunc(rows, func(r Row) bool { return r.ID == "worn" })
	})
	if err := under.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, under)
}

func TestHoldRuns(t *testing.T) {
	home := runs.Home(t.TempDir())
	one, err := holdRuns(t.Context(), home, false)
	if err != nil {
		t.Fatal(err)
	}
	two, err := holdRuns(t.Context(), home, false)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan struct{})
	go func() {
		alone, err := holdRuns(t.Context(), home, true)
		if err != nil {
			t.Error(err)
		} else {
			alone()
		}
		close(got)
	}()
	one()
	select {
	case <-got:
		t.Error("it was held alone beside another")
	case <-time.After(50 * time.Millisecond):
	}
	two()
	<-got
}
