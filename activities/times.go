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

// Times finds out from a run's event log what is special about what its instances measured when, given the newest result of
// each of its stages.
func Times(folder runs.Folder, results []stage.Result) (metrics.Times, error) {
	log, err := folder.ReadEvents()
	if err != nil {
		return metrics.Times{}, err
	}
	times := metrics.Times{Windows: metrics.Windows(log), Stages: map[string][]metrics.Window{}}
	if times.Superseded, err = discarded(folder); err != nil {
		return times, err
	}
	for _, result := range results {
		if result.Kind != pipelines.KindRun {
			continue
		}
		if err := stageTimes(&times, folder, log, result); err != nil {
			return times, fmt.Errorf("reading what became of the instances in stage %q: %w", result.Stage, err)
		}
	}
	return times, nil
}

// stageTimes adds, for the groups that took part in a run stage, the time of the attempt that its result is of, and those of
// the attempts that this one has taken the place of. Instances write on where an earlier attempt stopped, so that time is all
// that tells them apart.
func stageTimes(times *metrics.Times, folder runs.Folder, log []runs.Event, result stage.Result) error {
	took := map[string]bool{} // group → whether it took part in this attempt too
	attempt := stage.Key(result.Stage, result.Attempt)
	if err := eachRow(folder.Stage(result.Stage), func(row control.Instance) {
		took[row.Group] = took[row.Group] || row.Attempt == attempt
	}); err != nil {
		return err
	}
	earlier := earlier(log, result)
	for group, in := range took {
		if in {
			times.Stages[group] = append(times.Stages[group], metrics.Window{Stage: result.Stage, From: started(log, result), To: result.Ended})
		}
		if len(earlier) > 0 {
			times.Superseded[group] = append(times.Superseded[group], earlier...)
		}
	}
	return nil
}

// started is when the attempt of a result began. What carried it may have died, so that the result knows only when another
// took it up.
func started(log []runs.Event, result stage.Result) time.Time {
	for _, e := range log {
		if e.Kind == eventStageStarted && e.Attempt == stage.Key(result.Stage, result.Attempt) && e.Time.Before(result.Started) {
			return e.Time
		}
	}
	return result.Started
}

// earlier has the windows of a stage's attempts before the one that a result is of. An attempt whose end isn't in the log
// ended before the next one started.
func earlier(log []runs.Event, result stage.Result) []metrics.Window {
	if result.Attempt < 2 {
		return nil
	}
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
			windows = append(windows, metrics.Window{Stage: e.Stage, Event: e.Attempt, From: e.Time})
		}
	}
	return windows
}
