package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
)

func (a *app) suiteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "suite", Short: "Run pipelines together, on a schedule or when triggered",
		Long: "A suite is a file that names pipelines, when they run, what they are compared with and who is told. Creating it makes a\n" +
			"schedule; each time it is due, a turn runs the pipelines one after the other, as their files are then.",
		Args: noSuchSuiteCommand, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.suiteCreateCommand(), a.suiteListCommand(), a.suiteShowCommand(), a.suiteTriggerCommand(), a.suiteCancelCommand(),
		a.suitePauseCommand(), a.suiteUnpauseCommand(), a.suiteBackfillCommand(), a.suiteDeleteCommand())
	return cmd
}

func noSuchSuiteCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q for suite", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += fmt.Sprintf(" (did you mean %s?)", strings.Join(near, " or "))
	}
	return usage(fmt.Errorf("%s\nSee `groundplan suite --help`.", text))
}

type suiteCreateOptions struct {
	on, note string
	paused   bool
	form     *string
}

func (a *app) suiteCreateCommand() *cobra.Command {
	var o suiteCreateOptions
	cmd := &cobra.Command{
		Use: "create FILE", Short: "Make the suite of a file, or bring it up to date",
		Long: "Check a suite and all of its pipelines, and make its schedule. Once more, it brings the schedule up to date and says what\n" +
			"changed. The suite stays as it is now until then; its pipelines are read each time they run.",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: pipelineFile,
	}
	cmd.RunE = func(cmd *cobra.Command, files []string) error { return a.suiteCreate(cmd.Context(), files[0], o) }
	o.form = output(cmd, "text", "json")
	cmd.Flags().StringVar(&o.on, "on", groundLocal, "where instances live: local or kubernetes")
	cmd.Flags().BoolVar(&o.paused, "paused", false, "have no turn begin by the schedule until `suite unpause`")
	cmd.Flags().StringVar(&o.note, "note", "", "why it is paused, or what should be known of it")
	return cmd
}

func (a *app) suiteCreate(ctx context.Context, file string, o suiteCreateOptions) (err error) {
	if o.on != groundLocal && o.on != groundKubernetes {
		return usage(fmt.Errorf("--on %s: choose local or kubernetes", o.on))
	}
	if o.on == groundKubernetes {
		a.inNamespace()
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	suite, err := readSuite(file)
	if err != nil {
		return err
	}
	suite.Ground, suite.Paused, suite.Note = o.on, o.paused, o.note
	if o.on == groundKubernetes {
		suite.Context, suite.Namespace = config.KubeContext, config.KubeNamespace
	}
	session, err := a.open(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	change, err := session.CreateSuite(ctx, suite)
	if err != nil {
		return err
	}
	if *o.form == "json" {
		return a.json(change)
	}
	a.created(change)
	if session.Owner() && suite.Suite.Schedule.Cron != "" {
		a.tell("%s Nothing is up that would run it: `%s` has to be, when it is due. What is missed for longer than %s is left out.",
			a.say.Paint(terminal.Yellow, "!"), keepsUp(config), suite.Suite.Schedule.CatchUp)
	}
	return nil
}

// keepsUp is the command that keeps a worker of this home up.
func keepsUp(config worker.Config) string {
	if config.Temporal != "" {
		return "groundplan worker --temporal " + config.Temporal
	}
	return "groundplan dev"
}

// readSuite checks a suite with its pipelines, and says where it belongs.
func readSuite(file string) (runs.Suite, error) {
	if _, err := os.Stat(file); err == nil && !isSuite(file) {
		return runs.Suite{}, usage(fmt.Errorf("%s is no suite: it has no line `suite: NAME` (see docs/suites.md)", file))
	}
	loaded, err := pipelines.LoadSuite(file, pipelines.Options{Getenv: os.LookupEnv})
	if err != nil {
		return runs.Suite{}, usage(err)
	}
	root, err := rootAbove(file, loaded.File)
	return runs.Suite{Suite: *loaded, Root: root}, err
}

// created says what creating a suite did.
func (a *app) created(change worker.SuiteChange) {
	s := change.Status
	what := "is up to date: nothing changed"
	switch {
	case change.Created:
		what = "created: " + count(len(s.Pipelines), "pipeline") + ", " + report.Schedule(s.Schedule)
	case len(change.Changes) > 0:
		what = "changed:"
	}
	a.tell("%s suite %s %s", a.say.Paint(terminal.Green, "✔"), change.Name, what)
	for _, line := range change.Changes {
		a.tell("    %s", terminal.Clean(line))
	}
	switch {
	case s.Paused:
		a.tell("  It is paused: `groundplan suite unpause %s` has it run.", change.Name)
	case !s.Next.IsZero():
		a.tell("  next turn %s", report.Next(s, time.Now()))
	case s.Schedule.Cron == "":
		a.tell("  It runs when triggered: `groundplan suite trigger %s`.", change.Name)
	}
}

func (a *app) suitePauseCommand() *cobra.Command {
	return a.suiteSwitch("pause NAME", "Have no turn begin by the schedule until it is unpaused", (*worker.Session).PauseSuite,
		"suite %s is paused. `groundplan suite unpause %[1]s` takes it up again; turns under way go on, and `suite trigger` still works.")
}

func (a *app) suiteUnpauseCommand() *cobra.Command {
	return a.suiteSwitch("unpause NAME", "Have turns begin by the schedule again", (*worker.Session).UnpauseSuite,
		"suite %s runs by its schedule again. What was due meanwhile is not caught up with: `groundplan suite backfill %[1]s` does that.")
}

// suiteSwitch is a command that only takes a note.
func (a *app) suiteSwitch(use, short string, do func(*worker.Session, context.Context, string, string) error, said string) *cobra.Command {
	var note string
	cmd := &cobra.Command{Use: use, Short: short, Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.suiteArgument}
	var form *string
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		return a.withSession(cmd.Context(), func(session *worker.Session) error {
			if err := do(session, cmd.Context(), names[0], note); err != nil {
				return unknownSuite(err)
			}
			if *form == "json" {
				status, err := session.Suite(cmd.Context(), names[0])
				if err != nil {
					return err
				}
				return a.json(status)
			}
			a.tell(said, names[0])
			return nil
		})
	}
	form = output(cmd, "text", "json")
	cmd.Flags().StringVar(&note, "note", "", "why")
	return cmd
}

func (a *app) suiteDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Remove a suite's schedule; its history and its runs stay",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.suiteArgument,
	}
	var form *string
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		return a.withSession(cmd.Context(), func(session *worker.Session) error {
			if err := session.DeleteSuite(cmd.Context(), names[0]); err != nil {
				return unknownSuite(err)
			}
			if *form == "json" {
				return a.json(struct {
					Name    string `json:"name"`
					Deleted bool   `json:"deleted"`
				}{names[0], true})
			}
			a.tell("suite %s is deleted. A turn under way goes on; `groundplan suite show %[1]s` still shows its history.", names[0])
			return nil
		})
	}
	form = output(cmd, "text", "json")
	return cmd
}

// withSession does something with services, which it starts if none are up.
func (a *app) withSession(ctx context.Context, do func(*worker.Session) error) (err error) {
	config, err := a.config()
	if err != nil {
		return err
	}
	session, err := a.open(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	return do(session)
}

// unknownSuite makes a suite that isn't there, or can't do what it is asked, the caller's error.
func unknownSuite(err error) error {
	if errors.Is(err, worker.ErrNoSuite) || errors.Is(err, worker.ErrSuiteBusy) || errors.Is(err, worker.ErrNoTurn) {
		return usage(err)
	}
	return err
}

// suiteArgument completes the first argument with the suites on this machine.
func (a *app) suiteArgument(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	config, err := a.config()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, _ := config.Home.SuiteNames() // a shell has no place for an error
	return names, cobra.ShellCompDirectiveNoFileComp
}
