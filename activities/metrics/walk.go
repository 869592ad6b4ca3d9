package metrics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Measurement is one line of an instance's results.
type Measurement struct {
	Group    string
	Instance int
	// Time is when it was written; the zero value for a line that doesn't say.
	Time time.Time
	// Type is point, counter, ewma, gauge, histogram, meter or timer.
	Type string
	// Metric is the bare name, and Tags what stands behind it: `peer=3,from=eu`.
	Metric, Tags string
	// Stage is the run stage that it was measured in; empty for none, or where the line doesn't tell.
	Stage string
	// Phases are those that it was measured in: `during.split`.
	Phases []string
	// Summarises says that the line is a summary of many values: it has no Value.
	Summarises bool
	// Value is of a point or gauge the value, of an ewma the rate, of a counter what was added, of a meter what it counted to.
	Value float64
	// Measures is all that the line says.
	Measures map[string]float64
}

// Walk calls each with every measurement of the groups' instances that counts: instance by instance, in the order of their
// lines. It holds one line at a time. Lines that are no metrics are passed over, as Summarise counts and names them. The
// measurement is each's until it returns; its error ends the walk.
func Walk(ctx context.Context, folder runs.Folder, groups []pipelines.Group, times Times, each func(*Measurement) error) error {
	for _, group := range groups {
		for index := range group.Instances {
			w := walk{times: times, each: each, m: Measurement{Group: group.Name, Instance: index}}
			if err := w.instance(ctx, filepath.Join(folder.Outputs(group.Name, index), "results.out")); err != nil {
				return fmt.Errorf("reading metrics of %s/%d: %w", group.Name, index, err)
			}
		}
	}
	return nil
}

// walk goes through one file.
type walk struct {
	times Times
	each  func(*Measurement) error
	m     Measurement
	err   error
}

func (w *walk) instance(ctx context.Context, path string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	results, err := runs.OpenRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer results.Close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err = lines(bounded{ctx, results}, func(l line) string {
		if w.err == nil {
			if w.err = w.line(l); w.err != nil {
				stop(w.err) // what is still in the buffer is passed over
			}
		}
		return ""
	}, func(int, string) {})
	if w.err != nil {
		return w.err
	}
	return err
}

func (w *walk) line(l line) error {
	m := &w.m
	timed := !l.at.IsZero()
	if timed && w.times.superseded(m.Group, l.at) {
		return nil
	}
	m.Time, m.Type, m.Metric, m.Measures, m.Stage, m.Phases = l.at, l.Type, l.metric, l.Measures, "", m.Phases[:0]
	_, m.Tags, _ = strings.Cut(l.Name, ",")
	m.Summarises, m.Value = l.summarises(), 0
	if !m.Summarises {
		m.Value = l.number()
	}
	if timed {
		if i := w.times.stage(m.Group, l.at); i >= 0 {
			m.Stage = w.times.Stages[m.Group][i].Stage
		}
		for _, window := range w.times.Windows {
			if window.holds(l.at) {
				m.Phases = append(m.Phases, window.name())
			}
		}
	}
	return w.each(m)
}
