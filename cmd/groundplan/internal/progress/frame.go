// Package progress shows a run while it happens: as a block that is redrawn on a terminal, as one line per change
// elsewhere.
package progress

import (
	"fmt"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/workflows"
)

// Frame is a run at one moment.
type Frame struct {
	// Run and Pipeline name it.
	Run      string
	Pipeline string
	// Started is when the run began, Now when the frame was taken.
	Started time.Time
	Now     time.Time
	State   workflows.State
	// Progress is the newest heartbeat of each stage under way.
	Progress []stage.Progress
}

// Of returns the progress of a stage's attempt.
func (f *Frame) Of(s workflows.StageState) (stage.Progress, bool) {
	for _, p := range f.Progress {
		if p.Stage == s.Name && p.Attempt == s.Attempt {
			return p, true
		}
	}
	return stage.Progress{}, false
}

// Elapsed is how long the run has taken, or 0 before it began.
func (f *Frame) Elapsed() time.Duration {
	if f.Started.IsZero() || f.Now.Before(f.Started) {
		return 0
	}
	return f.Now.Sub(f.Started)
}

// View shows frames.
type View interface {
	// Show replaces what is shown.
	Show(Frame)
	// Say tells the person one thing that stays on the screen.
	Say(text string)
	// Close takes away what would only have been of interest while it happened, and gives the cursor back.
	Close()
}

// New is the view that suits t.
func New(t *terminal.Terminal) View {
	if t.Live {
		return &live{term: t}
	}
	return &lines{out: t}
}

// Phases of workflows.StageState.
const (
	phasePending = "pending"
	phaseRunning = "running"
	phaseBackoff = "backoff"
	phaseHolding = "holding"
	phaseEnded   = "ended"
)

// StateGlyph is how a stage's state looks in one cell.
func StateGlyph(s workflows.StageState) (string, terminal.Style) {
	switch s.Phase {
	case phaseRunning:
		return "●", terminal.Cyan
	case phaseBackoff:
		return "↻", terminal.Yellow
	case phaseHolding:
		return "‖", terminal.Yellow
	case phaseEnded:
		return Glyph(s.Verdict)
	}
	return "○", terminal.Dim
}

// Glyph is a verdict in one cell, with its colour.
func Glyph(v stage.Verdict) (string, terminal.Style) {
	switch v {
	case stage.Passed:
		return "✔", terminal.Green
	case stage.Failed:
		return "✘", terminal.Red
	case stage.Invalid:
		return "!", terminal.Yellow
	case stage.Cancelled:
		return "■", terminal.Yellow
	case stage.Skipped:
		return "–", terminal.Dim
	}
	return "○", terminal.Dim
}

// Spent is how long a stage has taken so far, or took; 0 when it has not begun.
func Spent(s workflows.StageState, now time.Time) time.Duration {
	switch {
	case s.Started.IsZero(), s.Verdict == stage.Skipped:
		return 0
	case !s.Ended.IsZero():
		return s.Ended.Sub(s.Started)
	}
	return max(0, now.Sub(s.Started))
}

// Label is what a stage is at in one word.
func Label(s workflows.StageState) string {
	if s.Phase == phaseEnded && s.Verdict != "" {
		return string(s.Verdict)
	}
	if s.Phase == phaseBackoff {
		return "will retry"
	}
	return s.Phase
}

// Counts says in words where instances stand, leaving out what is zero.
func Counts(p stage.Progress) string {
	var parts []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{p.Placed, "placed"}, {p.Waiting, "waiting"}, {p.Running, "running"}, {p.Succeeded, "succeeded"}, {p.Failed, "failed"},
		{p.Killed, "killed"},
	} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(parts, " · ")
}

// Done is how many of a progress' total are through with what the stage does to them.
func Done(p stage.Progress) int {
	if ended := p.Succeeded + p.Failed + p.Killed; ended > 0 || p.Running > 0 {
		return min(ended, p.Total)
	}
	return min(p.Placed, p.Total)
}
