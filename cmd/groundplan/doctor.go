package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/doctor"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/network"
	"github.com/groundplan/groundplan/worker"
)

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look at what this machine must have", Args: args(cobra.NoArgs),
		Long: "Look at what this machine must have to carry runs out, and say what to do about what is missing. The exit status is\n" +
			"3 when something is missing that no run can do without.",
	}
	var form *string
	on := cmd.Flags().String("on", groundLocal, "where runs are to happen: local, or kubernetes to look at the cluster too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *on != groundLocal && *on != groundKubernetes {
			return usage(fmt.Errorf("--on %s: choose local or kubernetes", *on))
		}
		return a.doctor(cmd.Context(), *form, *on)
	}
	form = output(cmd, "text", "json")
	return cmd
}

func (a *app) doctor(ctx context.Context, form, on string) error {
	config, err := a.config()
	if err != nil {
		return err
	}
	subject := doctor.Subject{
		Home: string(config.Home), Temporal: config.Temporal, Redis: config.Redis,
		Supported: launch.Supported, Network: network.Try,
		Services: func(ctx context.Context) (string, error) { return a.embedded(ctx, config) },
	}
	if config.Elasticsearch != "" {
		subject.Elasticsearch = func(ctx context.Context) error { return worker.ExamineElasticsearch(ctx, config) }
	}
	if on == groundKubernetes {
		subject.Cluster = func(ctx context.Context) (string, error) { return worker.ExamineCluster(ctx, config) }
	}
	findings := doctor.Examine(ctx, subject)
	if form == "json" {
		err = a.json(findings)
	} else {
		_, err = fmt.Fprint(a.out, a.findings(findings))
	}
	if err != nil {
		return err
	}
	for _, f := range findings {
		if f.Level == doctor.Fail {
			return &exitError{errSaid, exitInvalid}
		}
	}
	return nil
}

// embedded says what is up of the embedded services.
func (a *app) embedded(ctx context.Context, config worker.Config) (string, error) {
	session, err := a.find(ctx, config)
	if err != nil {
		return "", err
	}
	if session == nil {
		return "embedded, started when needed", nil
	}
	defer session.Close()
	info := session.Info()
	return fmt.Sprintf("embedded, up since %s (process %d)", info.Started.Local().Format("15:04:05"), info.PID), nil
}

func (a *app) findings(findings []doctor.Finding) string {
	marks := map[doctor.Level]terminal.Cell{
		doctor.OK:   {Text: "✔ ok", Style: terminal.Green},
		doctor.Warn: {Text: "! warn", Style: terminal.Yellow},
		doctor.Fail: {Text: "✘ fail", Style: terminal.Red},
	}
	var rows [][]terminal.Cell
	for _, f := range findings {
		rows = append(rows, []terminal.Cell{marks[f.Level], terminal.Text(f.Name), terminal.Text(terminal.Clean(f.Text))})
		if f.Fix != "" {
			rows = append(rows, []terminal.Cell{{}, {}, {Text: "→ " + f.Fix, Style: terminal.Dim}})
		}
	}
	return a.out.Unbounded().Table(rows)
}
