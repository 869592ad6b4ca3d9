package progress

import (
	"fmt"
	"io"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/workflows"
)

// countsEvery is how often counts may be told again where every line stays: a log is read later.
const countsEvery = 5 * time.Second

// lines writes one line per change, each with the time since the run began.
type lines struct {
	out io.Writer
	// before is what was told of each stage.
	before map[string]told
	last   Frame
}

type told struct {
	phase    string
	attempt  int
	progress stage.Progress
	counted  time.Time
}

func (l *lines) Show(f Frame) {
	if l.before == nil {
		l.before = map[string]told{}
	}
	l.last = f
	for _, s := range f.State.Stages {
		l.phases(f, s)
		if p, ok := f.Of(s); ok && s.Phase == phaseRunning {
			l.counts(f, s, p)
		}
	}
}

func (l *lines) Say(text string) { l.say(l.last.Elapsed(), terminal.Clean(text)) }

func (l *lines) Close() {}

func (l *lines) say(at time.Duration, text string) {
	fmt.Fprintf(l.out, "%7s  %s\n", terminal.Elapsed(at), text)
}

// phases tells of a stage that began, ended, waits for its next attempt or holds. A stage that began and ended between
// two frames gets both lines, each with its own time.
func (l *lines) phases(f Frame, s workflows.StageState) {
	was := l.before[s.Name]
	if was.phase == s.Phase && was.attempt == s.Attempt || s.Phase == phasePending {
		return
	}
	began := was.attempt != s.Attempt || was.phase == "" || was.phase == phasePending
	if began && !s.Started.IsZero() && s.Verdict != stage.Skipped {
		l.say(s.Started.Sub(f.Started), s.Name+": started"+attempt(s))
	}
	at := f.Elapsed()
	switch s.Phase {
	case phaseEnded:
		if !s.Ended.IsZero() {
			at = s.Ended.Sub(f.Started)
		}
		l.say(at, s.Name+": "+ended(s))
	case phaseBackoff, phaseHolding:
		l.say(at, terminal.Clean(fmt.Sprintf("%s: %s: %s", s.Name, Label(s), s.Reason)))
	}
	l.before[s.Name] = told{phase: s.Phase, attempt: s.Attempt}
}

func ended(s workflows.StageState) string {
	text := string(s.Verdict)
	if !s.Started.IsZero() && s.Verdict != stage.Skipped {
		text += " in " + terminal.Elapsed(s.Ended.Sub(s.Started))
	}
	if s.Reason != "" {
		text += ": " + terminal.Clean(s.Reason)
	}
	return text
}

func attempt(s workflows.StageState) string {
	if s.Attempt <= 1 {
		return ""
	}
	return fmt.Sprintf(" (attempt %d)", s.Attempt)
}

// counts tells of a note or a first failure at once, and of counts now and then.
func (l *lines) counts(f Frame, s workflows.StageState, p stage.Progress) {
	was := l.before[s.Name]
	if p == was.progress {
		return
	}
	if p.FirstFailure != "" && p.FirstFailure != was.progress.FirstFailure {
		l.say(f.Elapsed(), s.Name+": first failure: "+terminal.Clean(p.FirstFailure))
	}
	if p.Note != "" && p.Note != was.progress.Note {
		l.say(f.Elapsed(), s.Name+": "+terminal.Clean(p.Note))
	}
	due := f.Now.Sub(was.counted) >= countsEvery && f.Now.Sub(s.Started) >= countsEvery
	if due && p.Total > 0 && Counts(p) != Counts(was.progress) {
		l.say(f.Elapsed(), fmt.Sprintf("%s: %d of %d: %s", s.Name, Done(p), p.Total, Counts(p)))
		was.counted = f.Now
	} else if !due {
		// Kept, so that they're told when they are due.
		p.Placed, p.Waiting, p.Running = was.progress.Placed, was.progress.Waiting, was.progress.Running
		p.Succeeded, p.Failed, p.Killed = was.progress.Succeeded, was.progress.Failed, was.progress.Killed
	}
	was.progress = p
	l.before[s.Name] = was
}
