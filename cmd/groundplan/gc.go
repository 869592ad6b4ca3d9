package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/runs/retention"
	"github.com/groundplan/groundplan/worker"
)

func (a *app) gcCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "gc", Short: "Remove old runs, and what nobody uses any more",
		Long: "Remove runs that are older, more or larger than they may be, turns of suites that are as old, and artifacts that no run\n" +
			"which stays was made with. What is said here goes before retention-age, retention-runs and retention-size of config.yaml;\n" +
			"with none of them only artifacts and leftovers go. Never removed are runs under way or held, what changed within the last\n" +
			"hour, the 10 newest turns of each suite with their runs, and runs that the newest one like them compares with.",
		Args: args(cobra.NoArgs),
	}
	var dry bool
	var form *string
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for flag, name := range map[string]string{"older-than": "retention-age", "keep": "retention-runs", "max-size": "retention-size"} {
			if f := cmd.Flags().Lookup(flag); f.Changed {
				a.set[name] = f.Value.String()
			}
		}
		return a.gc(cmd.Context(), dry, *form)
	}
	form = output(cmd, "text", "json")
	cmd.Flags().String("older-than", "", "remove runs that ended longer ago: 30d, 12h")
	cmd.Flags().String("keep", "", "keep so many runs of each pipeline, the newest ones")
	cmd.Flags().String("max-size", "", "remove the oldest runs until all take no more: 20GiB")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be removed, and remove nothing")
	return cmd
}

// gcAnswer is what gc writes as JSON.
type gcAnswer struct {
	Policy retention.Policy `json:"policy"`
	DryRun bool             `json:"dryRun"`
	Freed  int64            `json:"freed"`
	retention.Plan
}

func (a *app) gc(ctx context.Context, dry bool, form string) error {
	config, err := a.config()
	if err != nil {
		return err
	}
	session, err := a.find(ctx, config)
	if err != nil {
		return fmt.Errorf("asking which runs are under way: %w", err)
	}
	if session != nil {
		defer session.Close()
	}
	plan, err := worker.Retain(ctx, config, session, config.Retention, dry)
	if err != nil {
		return fmt.Errorf("removing: %w", err)
	}
	if form == "json" {
		return a.json(gcAnswer{Policy: config.Retention, DryRun: dry, Freed: plan.Frees(), Plan: plan})
	}
	_, err = fmt.Fprint(a.out, a.collectedText(plan, dry))
	if err == nil && config.Retention == (retention.Policy{}) {
		a.tell("No run goes unless --older-than, --keep or --max-size says so.")
	}
	return err
}

// collectedText is what goes and stays, by pipeline.
func (a *app) collectedText(plan retention.Plan, dry bool) string {
	type sum struct{ gone, kept, bytes int64 }
	sums := map[string]*sum{}
	var order []string
	count := func(name string, d retention.Decision) {
		s := sums[name]
		if s == nil {
			s = &sum{}
			sums[name] = s
			order = append(order, name)
		}
		if d.Goes {
			s.gone++
			s.bytes += d.Bytes
			return
		}
		s.kept++
	}
	for _, d := range plan.Runs {
		name := d.Pipeline
		if name == "" {
			name = "(no record)"
		}
		count(name, d)
	}
	slices.Sort(order)
	for _, d := range plan.Turns {
		count("turns of suites", d)
	}
	for _, d := range plan.Artifacts {
		count("artifacts", d)
	}
	title := func(text string) terminal.Cell {
		return terminal.Cell{Text: text, Style: terminal.Dim, Right: text != "OF"}
	}
	rows := [][]terminal.Cell{{title("OF"), title("REMOVED"), title("FREED"), title("KEPT")}}
	for _, name := range order {
		s := sums[name]
		number := func(text string) terminal.Cell { return terminal.Cell{Text: text, Right: true} }
		rows = append(rows, []terminal.Cell{
			terminal.Text(name), number(fmt.Sprint(s.gone)), number(report.Bytes(float64(s.bytes))), number(fmt.Sprint(s.kept)),
		})
	}
	var b strings.Builder
	if len(order) > 0 {
		b.WriteString(a.out.Table(rows))
	}
	word := "Freed"
	if dry {
		word = "Would free"
		for _, d := range plan.Runs {
			if d.Goes {
				fmt.Fprintf(&b, "  %s would go: %s\n", terminal.Clean(d.Name), terminal.Clean(d.Why))
			}
		}
	}
	fmt.Fprintf(&b, "%s %s.\n", word, report.Bytes(float64(plan.Frees())))
	return b.String()
}
