package report

import (
	"slices"
	"time"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/runs"
)

// Happened are the lines of an event log about the events of run stages.
func Happened(log []runs.Event) []runs.Event {
	return slices.DeleteFunc(log, func(e runs.Event) bool { return e.Event == "" })
}

// Events is a table of the events of run stages: when after the gate's opening each began and ended, and by how much it
// came after its time.
func Events(t *terminal.Terminal, events []runs.Event) string {
	if len(events) == 0 {
		return ""
	}
	rows := [][]terminal.Cell{head("STAGE", ">AT", ">LATE", "EVENT")}
	for _, e := range events {
		at, late := "never", ""
		if e.Kind != runs.KindEventMissed {
			at = e.At.Round(time.Millisecond).String()
			if e.Due > 0 {
				late = (e.At - e.Due).Round(100 * time.Microsecond).String()
			}
		}
		rows = append(rows, []terminal.Cell{
			terminal.Text(e.Stage), right(at), right(late), {Text: terminal.Clean(e.Text), Style: terminal.Dim},
		})
	}
	return t.Table(rows)
}
