package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
	"github.com/groundplan/groundplan/workflows"
)

type resumeOptions struct {
	from string
	skip bool
	form *string
}

func (a *app) resumeCommand() *cobra.Command {
	var o resumeOptions
	cmd := &cobra.Command{
		Use: "resume RUN", Short: "Go on with a run that holds, was interrupted or has ended",
		Long: "Go on with a run and stay with it: one that holds runs the held stage again on the placement that was kept; one\n" +
			"whose services went away is taken up where it stood; one that has ended goes on from the first stage that did\n" +
			"not pass, or from the one that --from names, with the earlier stages' results.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.runArgument,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.resume(cmd.Context(), args[0], o) }
	o.form = output(cmd, "text", "json", "junit")
	cmd.Flags().StringVar(&o.from, "from", "", "stage to begin with (of a run that has ended)")
	cmd.Flags().BoolVar(&o.skip, "skip", false, "go on behind the stage that a run holds at, leaving it as it ended")
	exclusive(cmd, "from", "skip")
	return cmd
}

func (a *app) resume(ctx context.Context, prefix string, o resumeOptions) error {
	config, err := a.config()
	if err != nil {
		return err
	}
	session, err := a.open(ctx, config)
	if err != nil {
		return err
	}
	id, err := known(ctx, config, session, prefix)
	if err != nil {
		return closed(session, err)
	}
	wishes, stop := interrupts()
	defer stop()
	handle := session.Run(id)
	at := attendance{run: handle, id: id, config: config, form: *o.form, wishes: wishes}
	rec, err := at.folder().ReadRecord()
	if err != nil && !errors.Is(err, runs.ErrNoRecord) {
		return closed(session, err)
	}
	at.pipeline, at.started = rec.Pipeline, rec.Started
	said, err := a.goOn(ctx, session, handle, at, rec, o)
	if err != nil {
		return closed(session, err)
	}
	return a.stay(ctx, session, at, said)
}

// goOn does what makes the run go on, and says what that was.
func (a *app) goOn(ctx context.Context, session *worker.Session, handle *worker.Handle, at attendance, rec runs.Record, o resumeOptions) (string, error) {
	state, err := handle.State(ctx)
	if err != nil {
		return "", missing(err)
	}
	if state.Status == stage.StatusRunning && cancelAsked(at.folder()) {
		a.tell("run %s was being cancelled when it was left: that comes to its end first", at.id)
		if _, err := handle.Wait(ctx); err != nil {
			return "", err
		}
		state.Status = stage.StatusEnded
	}
	switch state.Status {
	case stage.StatusHolding:
		return o.decide(ctx, handle, state)
	case stage.StatusRunning:
		if o.from != "" || o.skip {
			return "", usage(fmt.Errorf("run %s is under way: --from and --skip are for runs that have ended or hold", at.id))
		}
		return fmt.Sprintf("run %s is under way", at.id), nil
	}
	if o.skip {
		return "", usage(fmt.Errorf("run %s has ended: --skip is for runs that hold", at.id))
	}
	if err := o.known(at.folder()); err != nil {
		return "", err
	}
	if err := handle.Resume(ctx, o.from); err != nil {
		return "", fmt.Errorf("resuming: %w", err)
	}
	note(at.folder(), eventResume, "the run goes on")
	from := o.from
	if from == "" {
		from = firstOpen(rec)
	}
	if from == "" {
		return fmt.Sprintf("run %s goes on", at.id), nil
	}
	return fmt.Sprintf("run %s goes on from stage %s", at.id, from), nil
}

// decide goes on with a run that holds.
func (o *resumeOptions) decide(ctx context.Context, handle *worker.Handle, state workflows.State) (string, error) {
	held := state.Holding.Stage
	if o.from != "" && o.from != held {
		return "", usage(fmt.Errorf("run %s holds at stage %s: without --from that stage is run again; to begin with another one, end the run first (`groundplan cancel %s`)", handle.ID(), held, handle.ID()))
	}
	action, said := workflows.DecideRetry, "runs again"
	if o.skip {
		action, said = workflows.DecideSkip, "is taken as it ended"
	}
	if err := handle.Decide(ctx, workflows.Decision{Action: action}); err != nil {
		return "", err
	}
	return fmt.Sprintf("run %s goes on: stage %s %s", handle.ID(), held, said), nil
}

// known refuses a stage that the pipeline hasn't, before anything happens.
func (o *resumeOptions) known(folder runs.Folder) error {
	if o.from == "" {
		return nil
	}
	pipeline, err := folder.ReadPipeline()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not on this machine: the run itself will say
	}
	if err != nil {
		return fmt.Errorf("reading the run's pipeline: %w", err)
	}
	var names []string
	for _, s := range pipeline.Stages {
		if s.Name == o.from {
			return nil
		}
		names = append(names, s.Name)
	}
	return usage(fmt.Errorf("--from %s: the pipeline has no such stage; it has %v", o.from, names))
}

// cancelAsked says whether somebody asked to cancel the run and nobody has resumed it since.
func cancelAsked(folder runs.Folder) bool {
	events, err := folder.ReadEvents()
	if err != nil {
		return false
	}
	asked := false
	for _, e := range events {
		switch e.Kind {
		case eventCancel:
			asked = true
		case eventResume:
			asked = false
		}
	}
	return asked
}

// firstOpen is the first stage that didn't pass.
func firstOpen(rec runs.Record) string {
	for _, r := range rec.Stages {
		if r.Verdict != stage.Passed {
			return r.Stage
		}
	}
	return ""
}

// missing makes an unknown run the caller's error.
func missing(err error) error {
	if errors.Is(err, worker.ErrUnknown) {
		return usage(err)
	}
	return err
}
