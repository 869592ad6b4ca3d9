package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/follow"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/progress"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
	"github.com/groundplan/groundplan/workflows"
)

// How often a run is asked where it stands, and shown.
const (
	askTerminal  = 150 * time.Millisecond
	askElsewhere = 250 * time.Millisecond
	redraw       = 100 * time.Millisecond
)

// attendance is a run that a command stays with.
type attendance struct {
	run      follow.Run
	id       string
	pipeline string
	started  time.Time
	config   worker.Config
	form     string // of the answer: text, json or junit
	wishes   <-chan struct{}
	// onlyLook leaves the run alone when the person interrupts.
	onlyLook bool
}

func (at *attendance) folder() runs.Folder { return at.config.Home.Run(at.id) }

// stay follows a run to its end, gives the answer and closes the session.
func (a *app) stay(ctx context.Context, session *worker.Session, at attendance, opening string) error {
	ending, err := a.attend(ctx, session, at, a.view(at, opening))
	if ending.Left {
		return &exitError{errSaid, exitCancelled} // without closing the session: at once means at once
	}
	if err != nil {
		return errors.Join(err, session.Close())
	}
	err = a.answer(at, ending)
	if fault := session.Close(); fault != nil {
		a.tell("closing the services: %v", fault)
	}
	return err
}

// view is how the run is shown while it lasts.
func (a *app) view(at attendance, opening string) progress.View {
	view := progress.New(a.say)
	if at.onlyLook && at.form == "json" {
		return progress.NewStream(a.stdout)
	}
	if opening != "" {
		view.Say(opening)
	}
	return view
}

// attend follows a run until it ended, holds where nobody has to stay for it, or the person leaves.
func (a *app) attend(ctx context.Context, session *worker.Session, at attendance, view progress.View) (follow.Ending, error) {
	host := session.Embedded() && session.Owner()
	o := follow.Options{
		ID: at.id, Pipeline: at.pipeline, Started: at.started, Every: askElsewhere,
		Interrupts: at.wishes, LeaveOnHold: !host && !at.onlyLook, LeaveOnInterrupt: at.onlyLook,
		Holding: func(h workflows.Holding) string { return holding(at.id, h, host) },
		Leaving: leaving(at, host),
	}
	if a.say.Live {
		o.Every, o.Redraw = askTerminal, redraw
	}
	return follow.Follow(ctx, noted{at.run, at.folder()}, view, o)
}

// noted writes the wish to cancel into the run's event log: whoever resumes a run that was left while it was being
// cancelled has to know.
type noted struct {
	follow.Run
	folder runs.Folder
}

func (n noted) Cancel(ctx context.Context) error {
	note(n.folder, eventCancel, "somebody asked to cancel the run")
	return n.Run.Cancel(ctx)
}

// Kinds of events that commands add to a run's event log.
const (
	eventCancel = "cancel-asked"
	eventResume = "resumed"
)

// note adds an event where the run's folder is on this machine. The log is a help for people: a run doesn't fail for it.
func note(folder runs.Folder, kind, text string) {
	if _, err := os.Stat(string(folder)); err == nil {
		_ = folder.AppendEvent(runs.Event{Time: time.Now(), Kind: kind, Text: text})
	}
}

func holding(id string, h workflows.Holding, host bool) string {
	text := fmt.Sprintf("Stage %s did not pass, and its placement is kept until %s: %s. `groundplan resume %s` runs the stage again, `groundplan cancel %s` ends the run.",
		h.Stage, h.Until.Local().Format("15:04 on 2 January"), h.Reason, id, id)
	if host {
		text += " This process keeps the services up: let it run, and type those commands in another terminal."
	}
	return text
}

func leaving(at attendance, host bool) string {
	switch {
	case host && at.onlyLook:
		return fmt.Sprintf("Leaving. The services stop with this process, the instances of the run go on: `groundplan resume %s` takes it up again.", at.id)
	case host:
		return fmt.Sprintf("Leaving at once. The services stop with this process; what is still placed stays. `groundplan resume %s` takes the run up again.", at.id)
	case at.onlyLook:
		return fmt.Sprintf("Leaving. The run goes on: `groundplan watch %s` follows it again.", at.id)
	}
	return fmt.Sprintf("Leaving at once. The services go on cancelling the run; `groundplan resume %s` takes it up again.", at.id)
}

// answer says how the run came out, in the form that was asked for, and gives the exit status.
func (a *app) answer(at attendance, ending follow.Ending) error {
	rec := a.record(at, ending)
	switch {
	case at.form == "json" && at.onlyLook:
		// The stream's last line has told all.
	case at.form == "json":
		if err := a.json(rec); err != nil {
			return err
		}
	case at.form == "junit":
		if err := report.JUnit(a.stdout, withCells(at.config.Home, rec)...); err != nil {
			return err
		}
	}
	a.summary(at, rec)
	if ending.Held != nil {
		a.tell("\n  %s", holding(at.id, *ending.Held, false))
		return verdict(heldVerdict(rec, ending.Held.Stage))
	}
	return verdict(rec.Verdict)
}

// summary is the end of what is said of a run: its stages, what broke, the verdict, and where things are.
func (a *app) summary(at attendance, rec runs.Record) {
	a.tell("")
	fmt.Fprint(a.say, report.Cells(a.say, rec.Cells), report.Stages(a.say, rec.Stages))
	if broken := report.Broken(a.say, rec); broken != "" {
		fmt.Fprint(a.say, "\n", broken)
	}
	fmt.Fprint(a.say, "\n", report.Verdict(a.say, rec))
	dim := func(text string) string { return a.say.Paint(terminal.Dim, terminal.Pad(text, 9)) }
	a.tell("    %s%s", dim("run"), at.id)
	outputs := filepath.Join(string(at.folder()), "outputs")
	if _, err := os.Stat(outputs); err == nil {
		a.tell("    %s%s", dim("outputs"), outputs)
	}
	if rec.Status == stage.StatusEnded && rec.Verdict != stage.Passed {
		a.tell("    %sgroundplan resume %s", dim("again"), at.id)
	}
}

// record is the run's record, or what is known of it where its folder is not on this machine.
func (a *app) record(at attendance, ending follow.Ending) runs.Record {
	rec, err := at.folder().ReadRecord()
	if err == nil && rec.Status == stage.StatusEnded {
		return rec
	}
	if err != nil && !errors.Is(err, runs.ErrNoRecord) {
		a.tell("reading the run's record: %v", err)
	}
	rec.ID, rec.Pipeline, rec.Started = at.id, at.pipeline, at.started
	if out := ending.Output; out != nil {
		rec.Status, rec.Ended = stage.StatusEnded, time.Now()
		rec.Verdict, rec.Reason = out.Verdict, out.Reason
		rec.Stages, rec.Tries, rec.Cells = out.Results, out.Tries, out.Cells
	}
	if held := ending.Held; held != nil { // the run says so before it writes its record
		rec.Status, rec.Reason = stage.StatusHolding, fmt.Sprintf("holds at stage %q: %s", held.Stage, held.Reason)
		rec.Stages = results(rec.Stages, ending.Stages)
	}
	return rec
}

// results brings what a record has of stages up to where they stand.
func results(recorded []stage.Result, states []workflows.StageState) []stage.Result {
	var out []stage.Result
	for _, s := range states {
		if s.Verdict == "" {
			continue
		}
		known := slices.IndexFunc(recorded, func(r stage.Result) bool { return r.Stage == s.Name && r.Attempt == s.Attempt })
		if known >= 0 {
			out = append(out, recorded[known])
			continue
		}
		out = append(out, stage.Result{
			Stage: s.Name, Kind: s.Kind, Verdict: s.Verdict, Reason: s.Reason, Attempt: s.Attempt, Started: s.Started, Ended: s.Ended,
		})
	}
	return out
}

// withCells puts the records of a matrix' child runs in place of their parent's.
func withCells(home runs.Home, rec runs.Record) []runs.Record {
	if len(rec.Cells) == 0 {
		return []runs.Record{rec}
	}
	var out []runs.Record
	for _, cell := range rec.Cells {
		child, err := home.Run(cell.Run).ReadRecord()
		if err != nil { // not on this machine, or it never began
			child = runs.Record{ID: cell.Run, Pipeline: rec.Pipeline, Cell: cell.Values, Verdict: cell.Verdict, Reason: cell.Reason}
		}
		out = append(out, child)
	}
	return out
}

// heldVerdict is that of the stage that a run holds at.
func heldVerdict(rec runs.Record, name string) stage.Verdict {
	for _, r := range rec.Stages {
		if r.Stage == name {
			return r.Verdict
		}
	}
	return stage.Invalid
}
