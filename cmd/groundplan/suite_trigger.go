package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/progress"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
	"github.com/groundplan/groundplan/workflows"
)

type suiteTriggerOptions struct {
	wait    bool
	overlap string
	form    *string
}

func (a *app) suiteTriggerCommand() *cobra.Command {
	var o suiteTriggerOptions
	cmd := &cobra.Command{
		Use: "trigger NAME", Short: "Have a turn begin now",
		Long: "Have a turn begin now, whether the suite is paused or not. With --wait, stay until it has ended, and give the worst of its\n" +
			"runs as the exit status: 0 passed, 1 failed, 3 invalid, 130 cancelled. Ctrl-C cancels the turn; a second one leaves.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.suiteArgument,
	}
	cmd.RunE = func(cmd *cobra.Command, names []string) error { return a.suiteTrigger(cmd.Context(), names[0], o) }
	o.form = output(cmd, "text", "json", "junit")
	cmd.Flags().BoolVar(&o.wait, "wait", false, "stay until the turn has ended")
	overlapFlag(cmd, &o.overlap, "what happens to a turn that is under way (default: as the suite says)")
	return cmd
}

func overlapFlag(cmd *cobra.Command, value *string, text string) {
	cmd.Flags().StringVar(value, "overlap", "", text+": "+strings.Join(worker.Overlaps(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("overlap", cobra.FixedCompletions(worker.Overlaps(), cobra.ShellCompDirectiveNoFileComp))
}

func checkOverlap(word string) error {
	if word != "" && !slices.Contains(worker.Overlaps(), word) {
		return usage(fmt.Errorf("--overlap %s: choose one of %s", word, strings.Join(worker.Overlaps(), ", ")))
	}
	return nil
}

func (a *app) suiteTrigger(ctx context.Context, name string, o suiteTriggerOptions) (err error) {
	if *o.form == "junit" && !o.wait {
		return usage(errors.New("without --wait there is no verdict to write as junit: choose --output text or json"))
	}
	if err := checkOverlap(o.overlap); err != nil {
		return err
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	session, err := a.sessionFor(ctx, config, o.wait)
	if err != nil {
		return err
	}
	left := false
	defer func() {
		if !left { // without closing the session: at once means at once
			err = errors.Join(err, session.Close())
		}
	}()
	triggering, stop := interruptible(ctx) // it may wait for a turn that is under way
	turn, err := session.TriggerSuite(triggering, name, o.overlap)
	stop()
	if err != nil {
		return unknownSuite(err)
	}
	if !o.wait {
		return a.triggered(ctx, name, turn, *o.form)
	}
	out, left, err := a.attendTurn(ctx, turn)
	switch {
	case left:
		return &exitError{errSaid, exitCancelled}
	case err != nil:
		return err
	}
	awaitTold(config.Home, out)
	return a.turnEnded(config.Home, out, turnState(ctx, turn), *o.form)
}

// patienceToTell is how long to stay for the first call of a webhook, which is longer than one may take.
const patienceToTell = 15 * time.Second

// awaitTold stays until the webhook was called once, where it is to be: services that end with this process would call it
// only when they are up again.
func awaitTold(home runs.Home, out workflows.SuiteOutput) {
	suite, err := home.ReadSuite(out.Suite)
	if err != nil || suite.Suite.Notify == nil {
		return
	}
	on := suite.Suite.Notify.On
	if !slices.ContainsFunc(out.News, func(n string) bool { return slices.Contains(on, n) }) {
		return
	}
	for deadline := time.Now().Add(patienceToTell); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if turn, err := home.ReadSuiteTurn(out.Suite, out.Turn); err != nil || turn.Notified != "" {
			return
		}
	}
}

// sessionFor finds services that outlive this process, or starts some: in the background, unless this process stays.
func (a *app) sessionFor(ctx context.Context, config worker.Config, stays bool) (*worker.Session, error) {
	if stays {
		return a.open(ctx, config)
	}
	session, err := a.find(ctx, config)
	if session != nil || err != nil {
		return session, err
	}
	if err := a.background(ctx, config); err != nil {
		return nil, fmt.Errorf("starting services in the background: %w", err)
	}
	if session, err = worker.Find(ctx, config); err != nil {
		return nil, fmt.Errorf("finding the services in the background: %w", err)
	}
	return session, nil
}

// triggered says which turn has begun.
func (a *app) triggered(ctx context.Context, name string, turn *worker.Turn, form string) error {
	// A worker may be far away: that the turn has begun is certain, what it is called comes a moment later.
	asking, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	state := turnState(asking, turn)
	for state.ID == "" && state.Status != stage.StatusEnded && asking.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		state = turnState(asking, turn)
	}
	if form == "json" {
		return a.json(struct {
			Suite string `json:"suite"`
			Turn  string `json:"turn"`
		}{name, state.ID})
	}
	if state.ID == "" {
		a.tell("A turn of %s has been asked for, but no worker has taken it up yet: `groundplan suite show %[1]s` tells when.", name)
		return nil
	}
	a.tell("The turn goes on in the background: `groundplan suite show %s` shows it.", name)
	_, err := fmt.Fprintln(a.stdout, state.ID)
	return err
}

// turnState is where a turn stands; nothing where nobody can say at the moment.
func turnState(ctx context.Context, turn *worker.Turn) stage.Turn {
	state, err := turn.State(ctx)
	if err != nil {
		return stage.Turn{}
	}
	return state
}

// attendTurn stays with a turn until it has ended, or the person leaves.
func (a *app) attendTurn(ctx context.Context, turn *worker.Turn) (out workflows.SuiteOutput, left bool, err error) {
	wishes, stop := interrupts()
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type ending struct {
		out workflows.SuiteOutput
		err error
	}
	ended := make(chan ending, 1)
	go func() {
		out, err := turn.Wait(ctx)
		ended <- ending{out, err}
	}()
	ticker := time.NewTicker(askElsewhere)
	defer ticker.Stop()
	var said progressOfTurn
	for asked := 0; ; {
		select {
		case e := <-ended:
			said.say(a, turnState(ctx, turn))
			return e.out, false, e.err
		case <-ticker.C:
			said.say(a, turnState(ctx, turn))
		case <-wishes:
			if asked++; asked > 1 {
				a.tell("Leaving at once. The turn is being cancelled; `groundplan suite show` tells how it ended.")
				return out, true, nil
			}
			a.tell("Cancelling the turn: the run under way ends, those behind it don't begin. Ctrl-C again leaves at once.")
			if err := turn.Cancel(ctx); err != nil {
				a.tell("The turn could not be cancelled: %v", err)
			}
		}
	}
}

// progressOfTurn knows what has been said of a turn.
type progressOfTurn struct {
	began bool
	runs  map[int]string // by its place: what it was at
}

// say tells what is new of a turn.
func (p *progressOfTurn) say(a *app, state stage.Turn) {
	if state.ID != "" && !p.began {
		p.began = true
		a.tell("turn %s of %s: %s", state.ID, state.Suite, count(len(state.Runs), "pipeline"))
	}
	if p.runs == nil {
		p.runs = map[int]string{}
	}
	for i, r := range state.Runs {
		at := r.Run + string(r.Verdict)
		if at == p.runs[i] {
			continue
		}
		p.runs[i] = at
		if r.Verdict == "" {
			a.tell("  ● %s: %s", r.Pipeline, r.Run)
			continue
		}
		mark, style := progress.Glyph(r.Verdict)
		text := string(r.Verdict)
		if r.Verdict != stage.Passed {
			text = r.Reason
		}
		a.tell("  %s %s: %s", a.say.Paint(style, mark), terminal.Clean(r.Pipeline), terminal.Clean(text))
	}
}

// turnEnded gives the answer about a turn that has ended.
func (a *app) turnEnded(home runs.Home, out workflows.SuiteOutput, state stage.Turn, form string) error {
	record, err := home.ReadSuiteTurn(out.Suite, out.Turn)
	if err != nil { // its history is on another machine, or it could not be written
		record = elsewhere(out, state)
	}
	switch form {
	case "json":
		if err := a.json(record); err != nil {
			return err
		}
	case "junit":
		if err := report.JUnit(a.stdout, runsOf(home, record)...); err != nil {
			return err
		}
	}
	mark, style := progress.Glyph(out.Verdict)
	a.tell("\n  %s", a.say.Paint(style, mark+" "+terminal.Clean(out.Reason)))
	if len(out.News) > 0 {
		a.tell("    news: %s", strings.Join(out.News, ", "))
	}
	if record.Notified != "" {
		a.tell("    webhook: %s", terminal.Clean(record.Notified))
	}
	return verdict(out.Verdict)
}

// elsewhere is the record of a turn as far as it is known here.
func elsewhere(out workflows.SuiteOutput, state stage.Turn) runs.SuiteTurn {
	record := runs.SuiteTurn{
		ID: out.Turn, Suite: out.Suite, Execution: state.Execution, File: state.File, Ground: state.Ground, Commit: state.Commit,
		Trigger: state.Trigger, Due: state.Due, Started: state.Started, Ended: state.Ended,
		Status: stage.StatusEnded, Verdict: out.Verdict, Reason: out.Reason, News: out.News, Runs: []runs.SuiteRun{},
	}
	for _, r := range state.Runs {
		record.Runs = append(record.Runs, runs.SuiteRun{
			Pipeline: r.Pipeline, File: r.File, Run: r.Run, Verdict: r.Verdict, Reason: r.Reason, Started: r.Started, Ended: r.Ended,
		})
	}
	return record
}

// runsOf are the records of a turn's runs, with a stand-in for those that have none.
func runsOf(home runs.Home, turn runs.SuiteTurn) []runs.Record {
	var all []runs.Record
	for _, r := range turn.Runs {
		record, err := home.Run(r.Run).ReadRecord()
		if r.Run == "" || err != nil {
			record = runs.Record{ID: r.Run, Pipeline: r.Pipeline, Verdict: r.Verdict, Reason: r.Reason, Started: r.Started, Ended: r.Ended, Commit: turn.Commit}
		}
		all = append(all, withCells(home, record)...)
	}
	return all
}

func (a *app) suiteCancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel NAME", Short: "End the turn that is under way",
		Long: "End the turn that is under way: its run is cancelled, those behind it don't begin. It returns when all of that is gone.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.suiteArgument,
	}
	var form *string
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		return a.withSession(cmd.Context(), func(session *worker.Session) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			turns, err := session.CancelSuite(ctx, names[0])
			if err != nil {
				return unknownSuite(err)
			}
			ended := []workflows.SuiteOutput{}
			for _, turn := range turns {
				out, err := turn.Wait(ctx)
				if err != nil {
					return err
				}
				ended = append(ended, out)
				a.tell("turn %s: %s", out.Turn, terminal.Clean(out.Reason))
			}
			if *form == "json" {
				return a.json(ended)
			}
			return nil
		})
	}
	form = output(cmd, "text", "json")
	return cmd
}

type suiteBackfillOptions struct {
	from, to, overlap string
	form              *string
}

func (a *app) suiteBackfillCommand() *cobra.Command {
	var o suiteBackfillOptions
	cmd := &cobra.Command{
		Use: "backfill NAME --from TIME [--to TIME]", Short: "Have the turns begin that were due in a time that is over",
		Long: "Have the turns begin that were due from one time to another, one after the other. The pipelines run as their files are\n" +
			"now. A time is written as 2006-01-02T15:04:05Z07:00, or on this machine's clock as 2006-01-02T15:04 or 2006-01-02.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.suiteArgument,
	}
	cmd.RunE = func(cmd *cobra.Command, names []string) error { return a.suiteBackfill(cmd.Context(), names[0], o) }
	o.form = output(cmd, "text", "json")
	cmd.Flags().StringVar(&o.from, "from", "", "the first time (needed)")
	cmd.Flags().StringVar(&o.to, "to", "", "the last time (default: now)")
	overlapFlag(cmd, &o.overlap, "what happens while another turn is under way (default: buffer-all)")
	return cmd
}

func (a *app) suiteBackfill(ctx context.Context, name string, o suiteBackfillOptions) (err error) {
	from, to, err := o.times(time.Now())
	if err != nil {
		return err
	}
	if err := checkOverlap(o.overlap); err != nil {
		return err
	}
	if o.overlap == "" {
		o.overlap = "buffer-all"
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	session, err := a.sessionFor(ctx, config, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	due, err := session.BackfillSuite(ctx, name, from, to, o.overlap)
	if err != nil {
		return unknownSuite(err)
	}
	if *o.form == "json" {
		return a.json(struct {
			Suite string      `json:"suite"`
			Due   []time.Time `json:"due"`
		}{name, append([]time.Time{}, due...)})
	}
	if len(due) == 0 {
		a.tell("No turn of %s was due in that time.", name)
		return nil
	}
	var words []string
	for _, at := range due {
		words = append(words, at.Local().Format("2006-01-02 15:04"))
	}
	a.tell("%s of %s: %s. `groundplan suite show %[2]s` shows them as they come.", count(len(due), "turn"), name, strings.Join(words, ", "))
	return nil
}

// times reads the flags; both times have to be over.
func (o *suiteBackfillOptions) times(now time.Time) (from, to time.Time, err error) {
	if o.from == "" {
		return from, to, usage(errors.New("--from is needed: since when is to be caught up?"))
	}
	if from, err = parseTime("--from", o.from); err != nil {
		return from, to, err
	}
	to = now
	if o.to != "" {
		if to, err = parseTime("--to", o.to); err != nil {
			return from, to, err
		}
	}
	switch {
	case to.After(now):
		return from, to, usage(fmt.Errorf("--to %s is still to come: the schedule itself will see to it", o.to))
	case from.After(to):
		return from, to, usage(fmt.Errorf("--from %s comes after --to", o.from))
	case to.Sub(from) > 366*24*time.Hour:
		return from, to, usage(errors.New("that is more than a year: ask for a shorter time"))
	}
	return from, to, nil
}

func parseTime(flag, text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usage(fmt.Errorf("%s %s: write a time as 2006-01-02T15:04:05Z07:00, 2006-01-02T15:04 or 2006-01-02", flag, text))
}
