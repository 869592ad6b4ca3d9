package activities

import (
	"context"
	"fmt"
	"maps"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// Record writes the run's record. It is asked at the start of a run, when it holds, and at its end; every time it writes
// the whole record.
func (a *Activities) Record(_ context.Context, in stage.Record) error {
	folder := a.folder(in.Run)
	if err := runs.CheckID(in.Run.ID); err != nil {
		return badPipeline(err)
	}
	record := a.record(in)
	if err := folder.WritePipeline(in.Pipeline); err != nil {
		return fmt.Errorf("recording %s: %w", in.Run.ID, err)
	}
	if err := folder.WriteRecord(record); err != nil {
		return fmt.Errorf("recording %s: %w", in.Run.ID, err)
	}
	return nil
}

// record is the record without what the run's folder knows.
func (a *Activities) record(in stage.Record) runs.Record {
	p := in.Pipeline
	record := runs.Record{
		ID: in.Run.ID, Pipeline: p.Name, Description: p.Description, File: p.File, Digest: p.Digest, Seed: p.Seed,
		Parameters: p.Parameters, Cell: p.Cell, Ground: in.Run.Ground, Commit: in.Run.Commit, Suite: in.Run.Suite,
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
