package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/follow"
	"github.com/groundplan/groundplan/worker"
	"github.com/groundplan/groundplan/workflows"
)

func (a *app) cancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel RUN", Short: "End a run: its instances, its placement and its network",
		Long: "End a run: its instances, its placement and its network. It returns when all of that is gone. A run that holds ends\n" +
			"with the verdict it has. The exit status says whether the run was ended, not how.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.runArgument,
	}
	var form *string
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.cancel(cmd.Context(), args[0], *form) }
	form = output(cmd, "text", "json")
	return cmd
}

func (a *app) cancel(ctx context.Context, prefix, form string) (err error) {
	config, err := a.config()
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	// An interrupted run still has its instances: what ends them is started for that.
	session, err := a.open(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	id, err := known(ctx, config, session, prefix)
	if err != nil {
		return err
	}
	at := attendance{id: id, config: config, form: form}
	if rec, err := at.folder().ReadRecord(); err == nil {
		at.pipeline, at.started = rec.Pipeline, rec.Started
	}
	output, err := end(ctx, session.Run(id), at)
	if err != nil {
		return err
	}
	rec := a.record(at, follow.Ending{Output: &output})
	if form == "json" {
		return a.json(rec)
	}
	a.summary(at, rec)
	return nil
}

// end ends a run and waits until it has.
func end(ctx context.Context, handle *worker.Handle, at attendance) (workflows.Output, error) {
	state, err := handle.State(ctx)
	if err != nil {
		return workflows.Output{}, missing(err)
	}
	switch {
	case state.Status == stage.StatusEnded:
		return workflows.Output{}, usage(fmt.Errorf("run %s has ended already: `groundplan status %s` shows how", at.id, at.id))
	case onlyHolds(state):
		err = handle.Decide(ctx, workflows.Decision{Action: workflows.DecideAbort})
	default:
		err = noted{handle, at.folder()}.Cancel(ctx)
	}
	if err != nil {
		return workflows.Output{}, err
	}
	return handle.Wait(ctx)
}

// onlyHolds says whether a run holds and nothing else is under way. Giving up the hold ends it with the verdict that it
// has; what runs beside the stage that holds would go on for as long as it takes, so that such a run is cancelled.
func onlyHolds(state workflows.State) bool {
	return state.Status == stage.StatusHolding && !slices.ContainsFunc(state.Stages, func(s workflows.StageState) bool {
		return s.Phase == workflows.PhaseRunning || s.Phase == workflows.PhaseBackoff
	})
}
