package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// TestMain lets the test binary be a writer that can be killed: it writes one record after the other.
func TestMain(m *testing.M) {
	if folder := os.Getenv("RUNS_TEST_FOLDER"); folder != "" {
		for i := 0; ; i++ {
			if err := Folder(folder).WriteRecord(longRecord(i)); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			if i == 0 {
				fmt.Println("writing")
			}
		}
	}
	os.Exit(m.Run())
}

// longRecord is a record that takes several writes of the file system.
func longRecord(n int) Record {
	return Record{ID: "run-1", Seed: uint64(n), Reason: strings.Repeat("x", 200_000), Description: fmt.Sprint(n)}
}

func TestCheckID(t *testing.T) {
	for id, good := range map[string]bool{
		"ping-pong-20260102-030405-abcd": true, "a": true, "A.b_c-1": true, strings.Repeat("a", 63): true, "run.1": true,
		"": false, ".": false, "..": false, "a/b": false, "../a": false, "a b": false, "a\n": false, strings.Repeat("a", 64): false, "ä": false,
	} {
		if err := CheckID(id); (err == nil) != good {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	folder := Home(t.TempDir()).Run("run-1")
	if _, err := folder.ReadRecord(); !errors.Is(err, ErrNoRecord) || !strings.Contains(err.Error(), "run-1") {
		t.Errorf("got %v, want ErrNoRecord", err)
	}
	want := Record{
		ID: "run-1", Pipeline: "p", Digest: "d", Seed: math.MaxUint64, Ground: "local", Status: stage.StatusEnded, Verdict: stage.Failed,
		Started: time.Now().UTC().Round(0), Stages: []stage.Result{{Stage: "s", Kind: pipelines.KindRun, Verdict: stage.Failed, Notes: []string{"n"}}},
		Metrics: map[string]pipelines.Summary{"rtt": {Count: 1, P99: 0.1}}, Versions: map[string]string{"go": "1.26"},
	}
	if err := folder.WriteRecord(want); err != nil {
		t.Fatal(err)
	}
	got, err := folder.ReadRecord()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	resolved := pipelines.Resolved{Name: "p", Seed: 3, Groups: []pipelines.Group{{Name: "g", Instances: 2, Memory: 64 << 20}}, Stages: []pipelines.Stage{}}
	if err := folder.WritePipeline(resolved); err != nil {
		t.Fatal(err)
	}
	if got, err := folder.ReadPipeline(); err != nil || !reflect.DeepEqual(got, resolved) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestADamagedRecord(t *testing.T) {
	folder := Home(t.TempDir()).Run("run-1")
	if err := WriteWhole(folder.Record(), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.ReadRecord(); err == nil || errors.Is(err, ErrNoRecord) || !strings.Contains(err.Error(), folder.Record()) {
		t.Errorf("got %v", err)
	}
}

func TestList(t *testing.T) {
	home := Home(t.TempDir())
	if list, err := home.List(); list != nil || err != nil {
		t.Errorf("of an empty home: %v, %v", list, err)
	}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, id := range []string{"a", "c", "b"} {
		if err := home.Run(id).WriteRecord(Record{ID: id, Started: start.Add(time.Duration(i) * time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(WriteWhole(home.Run("broken").Record(), []byte("{")), os.MkdirAll(string(home.Run("starting")), 0o755),
		os.MkdirAll(filepath.Join(string(home), "runs", "not a run"), 0o755), WriteWhole(filepath.Join(string(home), "runs", "file"), nil))
	if err != nil {
		t.Fatal(err)
	}
	list, err := home.List()
	if err == nil || !strings.Contains(err.Error(), "broken") || strings.Contains(err.Error(), "starting") {
		t.Errorf("the error is %v", err)
	}
	var ids []string
	for _, r := range list {
		ids = append(ids, r.ID)
	}
	if strings.Join(ids, " ") != "b c a" {
		t.Errorf("listed %q", ids)
	}
}

// TestEventsOfMany lets several writers append at once.
func TestEventsOfMany(t *testing.T) {
	folder := Home(t.TempDir()).Run("run-1")
	if events, err := folder.ReadEvents(); events != nil || err != nil {
		t.Errorf("of nothing: %v, %v", events, err)
	}
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for n := range 50 {
				event := Event{Time: time.Now(), Kind: "test", Text: fmt.Sprintf("%d %d %s", w, n, strings.Repeat("x", 3000))}
				if err := folder.AppendEvent(event); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	cut, err := os.OpenFile(folder.Events(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cut.WriteString(`{"time":"2026-01-0`)
	if err := errors.Join(err, cut.Close()); err != nil {
		t.Fatal(err)
	}
	events, err := folder.ReadEvents()
	if err != nil || len(events) != 400 {
		t.Errorf("%d events, %v", len(events), err)
	}
	next := make([]int, 8)
	for _, e := range events {
		var w, n int
		if _, err := fmt.Sscanf(e.Text, "%d %d", &w, &n); err != nil || n != next[w] {
			t.Fatalf("writer %d: event %d where %d was next (%v)", w, n, next[w], err)
		}
		next[w]++
	}
}

// TestWriterKilledAnywhere kills a writer of records at random moments: there is always a whole record.
func TestWriterKilledAnywhere(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder := Home(t.TempDir()).Run("run-1")
	for round := range 20 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "RUNS_TEST_FOLDER="+string(folder))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fscanln(out, new(string)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(round) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		r, err := folder.ReadRecord()
		if err != nil || !reflect.DeepEqual(r, longRecord(int(r.Seed))) {
			t.Fatalf("after round %d: %v", round, err)
		}
	}
}

func TestAnEventIsOneLine(t *testing.T) {
	folder := Folder(t.TempDir())
	if err := folder.AppendEvent(Event{Kind: "note", Text: "two\nlines"}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(folder.Events())
	if err != nil || strings.Count(string(data), "\n") != 1 || !json.Valid(data) {
		t.Errorf("wrote %q, %v", data, err)
	}
}
