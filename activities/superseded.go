package activities

import (
	"fmt"
	"time"

	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// superseded finds, by group, the times of those attempts of run stages that their results aren't of: another attempt
// has taken their place. Instances write on where an earlier attempt stopped, so that time is all that tells them apart.
func superseded(folder runs.Folder, log []runs.Event, results []stage.Result) (map[string][]metrics.Window, error) {
	times := map[string][]metrics.Window{}
	for _, result := range results {
		if result.Kind != pipelines.KindRun || result.Attempt < 2 {
			continue
		}
		windows := earlier(log, result)
		groups := map[string]bool{}
		if err := eachRow(folder.Stage(result.Stage), func(row control.Instance) { groups[row.Group] = true }); err != nil {
			return nil, fmt.Errorf("reading what became of the instances in stage %q: %w", result.Stage, err)
		}
		for group := range groups {
			times[group] = append(times[group], windows...)
		}
	}
	return times, nil
}

// earlier has the windows of a stage's attempts before the one that a result is of. An attempt whose end isn't in the log
// ended before the next one started.
func earlier(log []runs.Event, result stage.Result) []metrics.Window {
	var windows []metrics.Window
	open := -1
	for _, e := range log {
		if e.Stage != result.Stage || e.Attempt == "" || e.Kind != eventStageStarted && e.Kind != eventStageEnded {
			continue
		}
		if open >= 0 {
			windows[open].To = e.Time
			if e.Kind == eventStageStarted {
				windows[open].To = e.Time.Add(-time.Nanosecond)
			}
			open = -1
		}
		if e.Kind == eventStageStarted && e.Attempt != stage.Key(result.Stage, result.Attempt) {
			open = len(windows)
			windows = append(windows, metrics.Window{Event: e.Attempt, From: e.Time})
		}
	}
	return windows
}
