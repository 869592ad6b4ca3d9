package report

import (
	"testing"
	"time"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/runs"
)

func TestEvents(t *testing.T) {
	if text := Events(&terminal.Terminal{}, Happened([]runs.Event{{Kind: "stage-started", Text: "x"}})); text != "" {
		t.Errorf("of none: %q", text)
	}
	log := []runs.Event{
		{Kind: "stage-started", Stage: "lookups", Text: "stage \"lookups\" started"},
		{Kind: runs.KindEventBegan, Stage: "lookups", Event: "split", Text: "the event split changed the network",
			Due: 30 * time.Second, At: 30*time.Second + 1786*time.Microsecond},
		{Kind: runs.KindEventBegan, Stage: "lookups", Event: "event 2", Text: "event 2 stopped eu/1, eu/4", At: time.Minute},
		{Kind: runs.KindEventEnded, Stage: "lookups", Event: "split", Text: "the event split is over: the network has healed", At: 90 * time.Second},
		{Kind: runs.KindEventMissed, Stage: "lookups", Event: "late", Text: "the event late did not happen: the stage was over before its time", Due: time.Hour},
	}
	golden.Compare(t, "testdata/events.golden", Events(&terminal.Terminal{}, Happened(log)))
}
