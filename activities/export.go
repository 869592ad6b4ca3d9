package activities

import (
	"context"
	"time"

	"github.com/groundplan/groundplan/activities/export"
	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// Exported is a run that has ended, as it can be exported: what its instances measured is read anew. files is how many of
// them left any results.
func Exported(ctx context.Context, folder runs.Folder, record runs.Record) (run export.Run, files int, err error) {
	pipeline, err := folder.ReadPipeline()
	if err != nil {
		return run, 0, err
	}
	times, err := Times(folder, record.Stages)
	if err != nil {
		return run, 0, err
	}
	found, err := metrics.Summarise(ctx, folder, pipeline.Groups, times, func(int) {})
	if err != nil {
		return run, 0, err
	}
	run = export.Run{
		ID: record.ID, Pipeline: record.Pipeline, Suite: record.Suite, Ground: record.Ground, Cell: record.Cell,
		Folder: folder, Groups: pipeline.Groups, Times: times, Series: found.Series,
	}
	run.Started, run.Ended = export.Span(times, record.Ended)
	return run, found.Files, nil
}

// export writes the metrics for other programs, in the forms that the stage asks for, and sends them where a target is
// configured. That comes after every run stage: the language sees to it.
func (a *Activities) export(ctx context.Context, in stage.Input, found metrics.Report, report func(stage.Progress)) (export.Outcome, error) {
	if len(in.Stage.Collect.Export) == 0 {
		return export.Outcome{}, nil
	}
	folder := a.folder(in.Run)
	times, err := Times(folder, in.Stages)
	if err != nil {
		return export.Outcome{}, err
	}
	run := export.Run{
		ID: in.Run.ID, Pipeline: in.Pipeline, Suite: in.Run.Suite, Ground: in.Run.Ground, Cell: in.Cell,
		Folder: folder, Groups: in.Groups, Times: times, Series: found.Series,
	}
	run.Started, run.Ended = export.Span(times, time.Now())
	return export.Export(ctx, run, in.Stage.Collect.Export, a.Exports, in.Deadline, func(note string) {
		report(stage.Progress{Note: note})
	})
}
