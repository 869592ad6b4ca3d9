package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/worker"
)

type devOptions struct {
	uiPort    string
	untilIdle bool
	form      *string
}

// idleFor is how long nothing may run before `dev --until-idle` ends.
const idleFor = 15 * time.Second

func (a *app) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use: "dev", Short: "Keep the embedded services and the web page up",
		Long: "Keep the embedded services, a worker and Temporal's web page up until Ctrl-C. Every other command with the same home\n" +
			"uses them, and starts faster for it.",
		Args: args(cobra.NoArgs),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.dev(cmd.Context(), o) }
	o.form = output(cmd, "text", "json")
	cmd.Flags().StringVar(&o.uiPort, "ui-port", "", "port of the web page on this machine (default: a free one)")
	cmd.Flags().BoolVar(&o.untilIdle, "until-idle", false, "end when no run has been under way for a while")
	return cmd
}

func (a *app) dev(ctx context.Context, o devOptions) error {
	if o.uiPort != "" {
		a.set["ui-port"] = o.uiPort
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	if config.Temporal != "" {
		return usage(fmt.Errorf("`groundplan dev` keeps embedded services up, and Temporal is external (%s): run `groundplan worker`, or take that setting away", config.Temporal))
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	err = worker.Dev(ctx, config, func(ctx context.Context, session *worker.Session) error {
		a.up(session.Info(), *o.form)
		if o.untilIdle {
			go stopWhenIdle(ctx, config, stop)
		}
		<-ctx.Done()
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping the services up: %w", err)
	}
	a.tell("The services are down.")
	return nil
}

// up says where everything is.
func (a *app) up(info worker.Info, form string) {
	if form == "json" {
		_ = a.json(info)
		return
	}
	a.tell("%s The services are up. Ctrl-C stops them; runs under way can be resumed.", a.say.Paint(terminal.Green, "●"))
	for _, row := range []struct{ name, value string }{
		{"web page", info.TemporalUI}, {"Temporal", info.Temporal}, {"namespace", info.Namespace}, {"home", info.Home},
	} {
		if row.value != "" {
			a.tell("  %s%s", a.say.Paint(terminal.Dim, terminal.Pad(row.name, 11)), row.value)
		}
	}
}

// stopWhenIdle calls stop once no run has been under way for idleFor. A run that holds is under way.
func stopWhenIdle(ctx context.Context, config worker.Config, stop func()) {
	session, err := worker.Find(ctx, config)
	if err != nil {
		stop()
		return
	}
	defer session.Close()
	busy := time.Now()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for time.Since(busy) < idleFor {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if underWay(ctx, session) {
			busy = time.Now()
		}
	}
	stop()
}

// underWay says whether any run is; when that can't be told there may be one.
func underWay(ctx context.Context, session *worker.Session) bool {
	for _, status := range []string{stage.StatusRunning, stage.StatusHolding} {
		rows, err := session.List(ctx, worker.Filter{Status: status, Cells: true, Limit: 1})
		if err != nil || len(rows) > 0 {
			return true
		}
	}
	return false
}
