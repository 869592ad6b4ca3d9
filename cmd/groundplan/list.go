package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
)

type listOptions struct {
	pipeline string
	verdict  string
	limit    int
	cells    bool
}

func (a *app) listCommand() *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List runs, the newest first", Args: args(cobra.NoArgs)}
	var form *string
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.list(cmd.Context(), o, *form) }
	form = output(cmd, "text", "json")
	cmd.Flags().StringVar(&o.pipeline, "pipeline", "", "only runs of that pipeline")
	cmd.Flags().StringVar(&o.verdict, "verdict", "", "only runs with that verdict or status: "+strings.Join(standings, ", "))
	_ = cmd.RegisterFlagCompletionFunc("verdict", cobra.FixedCompletions(standings, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().IntVarP(&o.limit, "limit", "n", 20, "at most so many; 0: all")
	cmd.Flags().BoolVar(&o.cells, "cells", false, "also the child runs of matrices")
	return cmd
}

// standings are how a run can stand, or have ended.
var standings = []string{
	string(stage.Passed), string(stage.Failed), string(stage.Invalid), string(stage.Cancelled),
	stage.StatusRunning, stage.StatusHolding, interrupted,
}

// check refuses what no run can be.
func (o *listOptions) check() error {
	if o.verdict != "" && !slices.Contains(standings, strings.ToLower(o.verdict)) {
		return usage(fmt.Errorf("--verdict %s: choose one of %s", o.verdict, strings.Join(standings, ", ")))
	}
	if o.limit < 0 {
		return usage(fmt.Errorf("--limit %d: it must be 0 (all) or more", o.limit))
	}
	return nil
}

func (a *app) list(ctx context.Context, o listOptions, form string) error {
	if err := o.check(); err != nil {
		return err
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	records, faults := config.Home.List()
	session, err := a.find(ctx, config)
	if err != nil {
		a.tell("%v: only what is on this machine is shown", err)
	}
	if session != nil {
		defer session.Close()
		rows, err := session.List(ctx, worker.Filter{Cells: true})
		if err != nil {
			return fmt.Errorf("listing the runs: %w", err)
		}
		records = joined(records, rows)
	}
	for i := range records {
		records[i] = settle(records[i], session != nil)
	}
	known := len(records)
	records = o.pick(records)
	if form == "json" {
		return a.json(append([]runs.Record{}, records...)) // an empty list is [], not null
	}
	if faults != nil {
		a.tell("some runs can't be shown: %v", faults)
	}
	switch {
	case known == 0:
		a.tell("No runs. `groundplan run FILE` starts one.")
		return nil
	case len(records) == 0:
		a.tell("None of %s is like that.", count(known, "run"))
		return nil
	}
	_, err = fmt.Fprint(a.out, report.Runs(a.out, records, time.Now()))
	return err
}

// joined adds the runs that only Temporal knows, and takes its word for what is under way.
func joined(records []runs.Record, rows []worker.Row) []runs.Record {
	at := map[string]int{}
	for i, rec := range records {
		at[rec.ID] = i
	}
	for _, row := range rows {
		i, ok := at[row.ID]
		switch {
		case !ok:
			records = append(records, placeholder(row))
		case row.Status != stage.StatusEnded:
			records[i].Status, records[i].Verdict = row.Status, row.Verdict
		}
	}
	slices.SortStableFunc(records, func(a, b runs.Record) int { return b.Started.Compare(a.Started) })
	return records
}

var cellID = regexp.MustCompile(`^(.+)\.[1-9][0-9]*$`)

// pick keeps what the flags ask for.
func (o *listOptions) pick(records []runs.Record) []runs.Record {
	ids := map[string]bool{}
	for _, rec := range records {
		ids[rec.ID] = true
	}
	var out []runs.Record
	for _, rec := range records {
		parent := cellID.FindStringSubmatch(rec.ID)
		isCell := parent != nil && ids[parent[1]]
		wanted := o.verdict == "" || strings.EqualFold(o.verdict, string(rec.Verdict)) || strings.EqualFold(o.verdict, rec.Status)
		if (o.cells || !isCell) && (o.pipeline == "" || o.pipeline == rec.Pipeline) && wanted {
			out = append(out, rec)
		}
	}
	if o.limit > 0 && len(out) > o.limit {
		out = out[:o.limit]
	}
	return out
}
