package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/runid"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
)

// known completes a run's id from its beginning: among the folders on this machine and, with services that are up
// (session not nil), the runs that Temporal knows.
func known(ctx context.Context, config worker.Config, session *worker.Session, prefix string) (string, error) {
	ids, err := folders(config.Home)
	if err != nil {
		return "", err
	}
	id, err := runid.Find(prefix, ids)
	if err == nil || session == nil {
		return id, wrongRun(err)
	}
	rows, fault := session.List(ctx, worker.Filter{Cells: true})
	if fault != nil {
		return "", fmt.Errorf("listing the runs: %w", fault)
	}
	for _, row := range rows {
		ids = append(ids, row.ID)
	}
	id, err = runid.Find(prefix, ids)
	return id, wrongRun(err)
}

func wrongRun(err error) error {
	if err == nil {
		return nil
	}
	return usage(err)
}

// folders are the ids of the runs that have a folder here.
func folders(home runs.Home) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(string(home), "runs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the runs: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		if entry.IsDir() && runs.CheckID(entry.Name()) == nil {
			ids = append(ids, entry.Name())
		}
	}
	return ids, nil
}

// local finds a run by what is on this machine; for commands that need nothing else.
func (a *app) local(prefix string) (worker.Config, runs.Folder, error) {
	config, err := a.config()
	if err != nil {
		return config, "", err
	}
	id, err := known(context.Background(), config, nil, prefix)
	return config, config.Home.Run(id), err
}

// runArgument completes the first argument with the runs on this machine.
func (a *app) runArgument(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	config, err := a.config()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ids, _ := folders(config.Home) // a shell has no place for an error
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// interrupted is the status of a run that the record calls under way while nothing carries it.
const interrupted = "interrupted"

// settle corrects what a record says of a run under way by whether the services are up.
func settle(rec runs.Record, up bool) runs.Record {
	if !up && rec.Status != stage.StatusEnded {
		rec.Status = interrupted
		rec.Reason = fmt.Sprintf("the services that carried it are not up; `groundplan resume %s` takes it up again", rec.ID)
	}
	return rec
}

// placeholder is the record of a run whose folder is elsewhere, as far as Temporal knows it.
func placeholder(row worker.Row) runs.Record {
	return runs.Record{
		ID: row.ID, Pipeline: row.Pipeline, Status: row.Status, Verdict: row.Verdict,
		Commit: row.Commit, Suite: row.Suite, Started: row.Started, Ended: row.Ended,
	}
}
