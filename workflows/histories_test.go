package workflows

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"github.com/groundplan/groundplan/activities/stage"
)

// TestReplay replays every recorded history: a change to the workflows that a run under way would stumble over fails here.
// Where the change is meant, ask workflow.GetVersion in the code; only before a first release record anew instead.
func TestReplay(t *testing.T) {
	paths, err := filepath.Glob("testdata/histories/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no histories: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			replayer := worker.NewWorkflowReplayer()
			Register(replayer)
			if err := replayer.ReplayWorkflowHistoryFromJSONFile(silent(), path); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReplayNotices shows that TestReplay can fail: a history that lacks a stage's activity isn't that of the workflow.
func TestReplayNotices(t *testing.T) {
	h := readHistory(t, "testdata/histories/five-stages.json")
	for _, event := range h.Events {
		if scheduled := event.GetActivityTaskScheduledEventAttributes(); scheduled.GetActivityType().GetName() == stage.ActivityNetwork {
			scheduled.ActivityType.Name = stage.ActivityCollect
		}
	}
	replayer := worker.NewWorkflowReplayer()
	Register(replayer)
	if err := replayer.ReplayWorkflowHistory(silent(), h); err == nil {
		t.Error("a history with another activity was replayed without a word")
	}
}

// TestFiveStagesStaySmall bounds what a run costs the server.
func TestFiveStagesStaySmall(t *testing.T) {
	h := readHistory(t, "testdata/histories/five-stages.json")
	if n := len(h.Events); n > 150 {
		t.Errorf("five stages took %d events, and may take 150", n)
	} else {
		t.Logf("five stages take %d events", n)
	}
}

// TestSuitesStaySmall bounds what a turn of two pipelines costs the server, beside their runs.
func TestSuitesStaySmall(t *testing.T) {
	h := readHistory(t, "testdata/histories/suite.json")
	if n := len(h.Events); n > 80 {
		t.Errorf("two pipelines took %d events, and may take 80", n)
	} else {
		t.Logf("a turn of two pipelines takes %d events", n)
	}
}

func readHistory(t *testing.T, path string) *historypb.History {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var h historypb.History
	if err := (temporalproto.CustomJSONUnmarshalOptions{}).Unmarshal(text, &h); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return &h
}

func silent() log.Logger { return log.NewStructuredLogger(slog.New(slog.DiscardHandler)) }
