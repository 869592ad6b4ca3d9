package activities

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// Record writes the run's record. It is asked at the start of a run, when it holds, and at its end; every time it writes
// the whole record.
func (a *Activities) Record(ctx context.Context, in stage.Record) error {
	if err := runs.CheckID(in.Run.ID); err != nil {
		return badPipeline(err)
	}
	if err := a.write(in); err != nil {
		return fmt.Errorf("recording %s: %w", in.Run.ID, err)
	}
	event := runs.Event{Kind: eventRun + in.Status, Text: "the run is " + in.Status}
	if in.Status == stage.StatusEnded {
		event.Text = "the run ended"
	}
	if in.Reason != "" { // it begins with the verdict
		event.Text += ": " + in.Reason
	}
	if last, err := a.folder(in.Run).ReadEvents(); err != nil || len(last) == 0 || last[len(last)-1].Kind != event.Kind {
		a.event(ctx, in.Run, event) // unless an attempt before this one, which could not say so, did
	}
	return nil
}

// write writes the files of the record. The pipeline is first: who sees a record finds its pipeline.
func (a *Activities) write(in stage.Record) error {
	folder := a.folder(in.Run)
	record := a.record(in)
	var err error
	if record.Groups, err = figures(folder, in.Pipeline.Groups, in.Results); err != nil {
		return err
	}
	err = runs.ReadJSON(folder.Metrics(), &record.Metrics)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the metrics: %w", err)
	}
	if err := folder.WritePipeline(in.Pipeline); err != nil {
		return err
	}
	return folder.WriteRecord(record)
}

// record is the record without what the run's folder knows.
func (a *Activities) record(in stage.Record) runs.Record {
	p := in.Pipeline
	record := runs.Record{
		ID: in.Run.ID, Pipeline: p.Name, Description: p.Description, File: p.File, Digest: p.Digest, Seed: p.Seed,
		Parameters: p.Parameters, Cell: p.Cell, Ground: in.Run.Ground, Root: in.Run.Root, Commit: in.Run.Commit, Suite: in.Run.Suite, Turn: in.Run.Turn, From: in.Run.From,
		Status: in.Status, Verdict: in.Verdict, Reason: in.Reason, Started: in.Started, Ended: in.Ended,
		Stages: in.Results, Tries: in.Tries, Cells: in.Cells, Versions: maps.Clone(a.Versions),
	}
	if !in.Ended.IsZero() {
		record.Seconds = in.Ended.Sub(in.Started).Seconds()
	}
	for _, result := range in.Results {
		record.Assertions = append(record.Assertions, result.Assertions...)
	}
	return record
}
