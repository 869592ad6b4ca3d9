package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/follow"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
)

func (a *app) watchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch RUN", Short: "Follow a run to its end, whose verdict is the exit status",
		Long: "Follow a run to its end, whose verdict is the exit status. Ctrl-C leaves the run alone.\n" +
			"--output json writes one document per line, whenever something changed.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.runArgument,
	}
	var form *string
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.watch(cmd.Context(), args[0], *form) }
	form = output(cmd, "text", "json")
	return cmd
}

func (a *app) watch(ctx context.Context, prefix, form string) error {
	config, err := a.config()
	if err != nil {
		return err
	}
	session, err := a.find(ctx, config)
	if err != nil {
		return err
	}
	id, err := known(ctx, config, session, prefix)
	if err != nil {
		return closed(session, err)
	}
	at := attendance{id: id, config: config, form: form, onlyLook: true}
	rec, err := at.folder().ReadRecord()
	if session == nil {
		return a.unattended(at, rec, err)
	}
	at.pipeline, at.started = rec.Pipeline, rec.Started
	// Find's session doesn't take over when the owner goes away; one that stays has to.
	if err := session.Close(); err != nil {
		return err
	}
	session, err = a.open(ctx, config)
	if err != nil {
		return err
	}
	wishes, stop := interrupts()
	defer stop()
	at.run, at.wishes = session.Run(id), wishes
	return a.stay(ctx, session, at, "")
}

// unattended is what there is to watch without services: how the run ended, or that nothing carries it.
func (a *app) unattended(at attendance, rec runs.Record, err error) error {
	if err != nil {
		return fmt.Errorf("run %s: %w", at.id, err)
	}
	if rec.Status != stage.StatusEnded {
		return fmt.Errorf("run %s is interrupted: %s", at.id, settle(rec, false).Reason)
	}
	if at.form == "json" {
		if err := a.json(rec); err != nil {
			return err
		}
	}
	at.form = "text"
	return a.answer(at, follow.Ending{})
}

// closed closes a session, if there is one, on the way out with an error.
func closed(session *worker.Session, err error) error {
	if session != nil {
		_ = session.Close() // the error at hand says more
	}
	return err
}
