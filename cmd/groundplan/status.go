package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
	"github.com/groundplan/groundplan/workflows"
)

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status RUN", Short: "Show where a run stands", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.runArgument,
	}
	var form *string
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.status(cmd.Context(), args[0], *form) }
	form = output(cmd, "text", "json")
	return cmd
}

// standing is a run's record with where it stands this moment.
type standing struct {
	runs.Record
	State    *workflows.State `json:"state,omitempty"`
	Progress []stage.Progress `json:"progress,omitempty"`
	// Events are those of run stages, as they happened.
	Events []runs.Event `json:"events,omitempty"`
}

func (a *app) status(ctx context.Context, prefix, form string) error {
	config, err := a.config()
	if err != nil {
		return err
	}
	session, err := a.find(ctx, config)
	if err != nil {
		a.tell("%v: only what is on this machine is shown", err)
	}
	if session != nil {
		defer session.Close()
	}
	id, err := known(ctx, config, session, prefix)
	if err != nil {
		return err
	}
	s, err := stand(ctx, config, session, id)
	if err != nil {
		return err
	}
	if form == "json" {
		return a.json(s)
	}
	_, err = fmt.Fprint(a.out, a.standingText(config.Home.Run(id), s))
	return err
}

// stand reads the record and, for a run under way, asks it.
func stand(ctx context.Context, config worker.Config, session *worker.Session, id string) (standing, error) {
	rec, err := config.Home.Run(id).ReadRecord()
	if err != nil && (session == nil || !errors.Is(err, runs.ErrNoRecord)) {
		return standing{}, fmt.Errorf("run %s: %w", id, err)
	}
	if rec.ID == "" { // only Temporal knows it, or its first record is still to come
		rec.ID, rec.Status = id, stage.StatusRunning
	}
	log, err := config.Home.Run(id).ReadEvents()
	if err != nil {
		return standing{}, fmt.Errorf("run %s: %w", id, err)
	}
	s := standing{Record: settle(rec, session != nil), Events: report.Happened(log)}
	if session == nil || rec.Status == stage.StatusEnded {
		return s, nil
	}
	handle := session.Run(id)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	state, err := handle.State(ctx)
	if err != nil {
		return s, err
	}
	s.State, s.Status = &state, state.Status
	if state.Holding != nil {
		s.Reason = state.Holding.Reason
	}
	if out := state.Output; out != nil {
		s.Verdict, s.Reason, s.Stages, s.Cells = out.Verdict, out.Reason, out.Results, out.Cells
	}
	s.Progress, _ = handle.Progress(ctx) // between two stages there is none
	return s, nil
}

func (a *app) standingText(folder runs.Folder, s standing) string {
	text := a.out.Paint(terminal.Bold, s.ID) + "\n"
	fact := func(name, value string) {
		if value != "" {
			text += "  " + a.out.Paint(terminal.Dim, terminal.Pad(name, 12)) + value + "\n"
		}
	}
	fact("pipeline", s.Pipeline)
	fact("file", s.File)
	fact("parameters", report.Values(s.Parameters))
	fact("from", s.From)
	fact("cell", report.Values(s.Cell))
	fact("commit", s.Commit)
	fact("seed", fmt.Sprint(s.Seed))
	if !s.Started.IsZero() {
		fact("started", s.Started.Local().Format("2006-01-02 15:04:05"))
	}
	fact("folder", string(folder))
	table := report.Cells(a.out, s.Cells) + report.Stages(a.out, s.Stages)
	if s.State != nil && s.Verdict == "" {
		table = report.States(a.out, s.State.Stages, s.Progress, time.Now())
	}
	for _, part := range []string{
		table, report.Events(a.out, s.Events), report.Groups(a.out, s.Groups), report.Broken(a.out, s.Record), report.Verdict(a.out, s.Record),
	} {
		if part != "" {
			text += "\n" + part
		}
	}
	if h := holdingOf(s.State); h != nil {
		text += "\n  " + holding(s.ID, *h, false) + "\n"
	}
	return text
}

func holdingOf(s *workflows.State) *workflows.Holding {
	if s == nil {
		return nil
	}
	return s.Holding
}
