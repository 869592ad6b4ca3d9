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
	begun := begun(log)
	for _, result := range results {
		if result.Kind != pipelines.KindRun {
			continue
		}
		if at, known := begun[stage.Key(result.Stage, result.Attempt)]; known && at.Before(result.Started) {
			result.Started = at
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
			times.Stages[group] = append(times.Stages[group], metrics.Window{Stage: result.Stage, From: result.Started, To: result.Ended})
		}
		if len(earlier) > 0 {
			times.Superseded[group] = append(times.Superseded[group], earlier...)
		}
	}
	return nil
}

// begun is when each attempt began, by the log. What carried one may have died, so that its result knows only when another
// took it up.
func begun(log []runs.Event) map[string]time.Time {
	at := map[string]time.Time{}
	for _, e := range log {
		if _, known := at[e.Attempt]; e.Kind == eventStageStarted && !known {
			at[e.Attempt] = e.Time
		}
	}
	return at
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
