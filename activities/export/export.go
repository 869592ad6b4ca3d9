// Package export gives a run's metrics, and the traces of its plans, to other programs: as files in the run's folder, and
// sent to a Prometheus, a Pushgateway or an OpenTelemetry collector where one is configured.
package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Run is what is exported, and what it is labelled with.
type Run struct {
	ID, Pipeline, Suite, Ground string
	// Cell holds the values of a matrix cell; nil for a run of none.
	Cell map[string]any
	// Started is when the first run stage began, and Ended when the last one ended: the time of the figures.
	Started, Ended time.Time

	Folder runs.Folder
	Groups []pipelines.Group
	Times  metrics.Times
	// Series are those of metrics.Summarise.
	Series []metrics.Series
	// Only says which metrics' values are written as rows; nil: all.
	Only func(metric string) bool
}

// Span works out Started and Ended of a run from the times of its stages; now where it has none.
func Span(times metrics.Times, now time.Time) (started, ended time.Time) {
	for _, stages := range times.Stages {
		for _, w := range stages {
			if started.IsZero() || w.From.Before(started) {
				started = w.From
			}
			if w.To.After(ended) {
				ended = w.To
			}
		}
	}
	if ended.IsZero() {
		return now, now
	}
	return started, ended
}

// Targets are where exports are sent. What isn't configured is only written to files.
type Targets struct {
	// Prometheus is the URL of a Pushgateway or of a remote write endpoint.
	Prometheus string
	// OTLP is the URL of an OTLP/HTTP endpoint, without /v1/metrics.
	OTLP string
	// Headers go with every request to OTLP; see ParseHeaders.
	Headers map[string]string
}

// Outcome is what became of an export.
type Outcome struct {
	// Notes are sentences that a person should read: names that collided, lines that are no spans, points that were refused.
	Notes []string
	// Unsent is why something could not be sent; empty when all was. The files are there all the same.
	Unsent string
}

// Export writes the forms (pipelines.ExportParquet and others) into the run's folder and sends them to their targets, until
// deadline. say is told what is being done. The error says that a file could not be written.
func Export(ctx context.Context, run Run, forms []string, to Targets, deadline time.Time, say func(string)) (Outcome, error) {
	var o Outcome
	var unsent []error
	s := newSender(deadline, say, to.secrets())
	defer s.close()
	for _, form := range forms {
		say("writing metrics as " + form)
		var sent error
		var err error
		switch form {
		case pipelines.ExportParquet:
			err = whole(run.Folder.Parquet(), func(w io.Writer) error { return Parquet(ctx, w, run) })
		case pipelines.ExportPrometheus:
			err = whole(run.Folder.Prometheus(), func(w io.Writer) error { return Prometheus(w, run) })
			o.Notes = append(o.Notes, newNames(run.Series).collisions()...)
			if err == nil && to.Prometheus != "" {
				sent = s.prometheus(ctx, to.Prometheus, run)
			}
		case pipelines.ExportOTLP:
			err = whole(run.Folder.OTLP(), func(w io.Writer) error { return OTLP(w, run) })
			if err == nil && to.OTLP != "" {
				var notes []string
				notes, sent = s.otlp(ctx, to, run)
				o.Notes = append(o.Notes, notes...)
			}
		default:
			err = fmt.Errorf("no form %q is known", form)
		}
		if err != nil {
			return o, fmt.Errorf("exporting metrics as %s: %w", form, err)
		}
		unsent = append(unsent, sent)
	}
	if ctx.Err() != nil {
		return o, context.Cause(ctx)
	}
	if err := errors.Join(unsent...); err != nil {
		o.Unsent = sentence(unsent) + "; the files are in " + string(run.Folder)
	}
	return o, nil
}

func sentence(faults []error) string {
	text := ""
	for _, err := range faults {
		if err == nil {
			continue
		}
		if text != "" {
			text += "; "
		}
		text += err.Error()
	}
	return text
}

// whole writes a file complete or not at all.
func whole(path string, write func(io.Writer) error) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	if err := errors.Join(write(temp), temp.Chmod(0o644), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
