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
)

func (a *app) suiteListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List suites: when each runs next, and how its last turn ended", Args: args(cobra.NoArgs)}
	var form *string
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.suiteList(cmd.Context(), *form) }
	form = output(cmd, "text", "json")
	return cmd
}

func (a *app) suiteList(ctx context.Context, form string) error {
	config, err := a.config()
	if err != nil {
		return err
	}
	session, err := a.find(ctx, config)
	if err != nil {
		return err
	}
	var all []worker.SuiteStatus
	if session != nil {
		defer session.Close()
		all, err = session.Suites(ctx)
	} else {
		all, err = suitesHere(config.Home)
	}
	if err != nil {
		return err
	}
	if form == "json" {
		return a.json(append([]worker.SuiteStatus{}, all...))
	}
	if len(all) == 0 {
		a.tell("No suites. `groundplan suite create FILE` makes one.")
		return nil
	}
	if _, err := fmt.Fprint(a.out, report.Suites(a.out, all, time.Now())); err != nil {
		return err
	}
	if session == nil {
		a.tell("%s The services are not up, and no turn begins before they are: `groundplan dev`.", a.say.Paint(terminal.Yellow, "!"))
	}
	return nil
}

// suitesHere are the suites that were created here, as far as their files tell.
func suitesHere(home runs.Home) ([]worker.SuiteStatus, error) {
	names, err := home.SuiteNames()
	if err != nil {
		return nil, err
	}
	var all []worker.SuiteStatus
	for _, name := range names {
		suite, err := home.ReadSuite(name)
		if errors.Is(err, runs.ErrNoSuite) { // deleted: its history is left
			continue
		}
		if err != nil {
			return nil, err
		}
		status := worker.SuiteStatus{
			Name: name, File: suite.Suite.File, Ground: suite.Ground, Schedule: suite.Suite.Schedule, Pipelines: []string{},
			Here: true, Paused: suite.Paused, Note: suite.Note,
		}
		for _, p := range suite.Suite.Pipelines {
			status.Pipelines = append(status.Pipelines, p.File)
		}
		if turns, _ := home.ReadSuiteTurns(name); len(turns) > 0 { // its error names turns that can't be read
			status.Last = &turns[0]
		}
		all = append(all, status)
	}
	return all, nil
}

func (a *app) suiteShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show a suite's turns: what each pipeline came to, since when it fails, and why",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.suiteArgument,
	}
	var limit int
	var form *string
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		return a.suiteShow(cmd.Context(), names[0], limit, *form)
	}
	form = output(cmd, "text", "json")
	cmd.Flags().IntVarP(&limit, "limit", "n", 20, "at most so many turns; 0: all")
	return cmd
}

// suiteHistory is the answer of `suite show --output json`.
type suiteHistory struct {
	// Suite is missing where it was deleted, or the services that know it are not up.
	Suite *worker.SuiteStatus `json:"suite,omitempty"`
	Turns []runs.SuiteTurn    `json:"turns"`
}

func (a *app) suiteShow(ctx context.Context, name string, limit int, form string) error {
	if limit < 0 {
		return usage(fmt.Errorf("--limit %d: it must be 0 (all) or more", limit))
	}
	if err := runs.CheckSuite(name); err != nil {
		return usage(err)
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	session, err := a.find(ctx, config)
	if err != nil {
		return err
	}
	shown, err := a.history(ctx, config.Home, session, name, limit)
	if session != nil {
		err = errors.Join(err, session.Close())
	}
	if err != nil {
		return unknownSuite(err)
	}
	if form == "json" {
		return a.json(shown)
	}
	return a.showSuite(shown, name)
}

func (a *app) history(ctx context.Context, home runs.Home, session *worker.Session, name string, limit int) (suiteHistory, error) {
	turns, faults := home.ReadSuiteTurns(name)
	if faults != nil {
		a.tell("some turns can't be shown: %v", faults)
	}
	known := len(turns) > 0
	if limit > 0 && len(turns) > limit {
		turns = turns[:limit]
	}
	shown := suiteHistory{Turns: append([]runs.SuiteTurn{}, turns...)}
	if session == nil {
		for i := range shown.Turns {
			if shown.Turns[i].Status != stage.StatusEnded {
				shown.Turns[i].Status = interrupted
			}
		}
		here, err := suitesHere(home)
		for i := range here {
			if here[i].Name == name {
				shown.Suite = &here[i]
			}
		}
		if err == nil && !known && shown.Suite == nil {
			err = fmt.Errorf("%w: %s (the services are not up; `groundplan suite list` shows the suites that were created here)", worker.ErrNoSuite, name)
		}
		return shown, err
	}
	status, err := session.Suite(ctx, name)
	if errors.Is(err, worker.ErrNoSuite) && known {
		return shown, nil
	}
	shown.Suite = &status
	return shown, err
}

func (a *app) showSuite(shown suiteHistory, name string) error {
	if s := shown.Suite; s == nil {
		a.tell("%s is deleted, or not known to the services that are up: this is its history.", name)
	} else {
		a.tell("%s: %s, %s, on %s; next turn %s", s.Name, report.Schedule(s.Schedule), count(len(s.Pipelines), "pipeline"), s.Ground, report.Next(*s, time.Now()))
	}
	if len(shown.Turns) == 0 {
		a.tell("It has had no turn yet. `groundplan suite trigger %s` has one begin.", name)
		return nil
	}
	if _, err := fmt.Fprint(a.out, report.Turns(a.out, shown.Turns, time.Now())); err != nil {
		return err
	}
	last := shown.Turns[0]
	if trouble := report.Trouble(a.out, last); trouble != "" {
		fmt.Fprintf(a.out, "\n  Turn %s\n%s", last.ID, trouble)
	}
	if last.Notified != "" {
		fmt.Fprintf(a.out, "\n  webhook: %s\n", terminal.Clean(last.Notified))
	}
	return nil
}
