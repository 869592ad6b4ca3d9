package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/progress"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/workflows"
)

// States is a table of stages of a run under way.
func States(t *terminal.Terminal, states []workflows.StageState, reports []stage.Progress, now time.Time) string {
	frame := progress.Frame{Now: now, Progress: reports}
	rows := [][]terminal.Cell{head("STAGE", "STATE", ">TIME", "NOTE")}
	for _, s := range states {
		mark, style := progress.StateGlyph(s)
		spent := ""
		if !s.Started.IsZero() {
			spent = terminal.Elapsed(progress.Spent(s, now))
		}
		note := terminal.Clean(s.Reason)
		if p, ok := frame.Of(s); ok && s.Verdict == "" {
			note = underWay(p)
		}
		rows = append(rows, []terminal.Cell{
			terminal.Text(s.Name), {Text: mark + " " + progress.Label(s), Style: style},
			{Text: spent, Right: true}, {Text: note, Style: terminal.Dim},
		})
	}
	return t.Table(rows)
}

func underWay(p stage.Progress) string {
	var parts []string
	if p.Total > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d", progress.Done(p), p.Total))
	}
	for _, part := range []string{progress.Counts(p), terminal.Clean(p.Note)} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if p.FirstFailure != "" {
		parts = append(parts, "first failure: "+terminal.Clean(p.FirstFailure))
	}
	return strings.Join(parts, " · ")
}
