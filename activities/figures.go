package activities

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// life is what became of one instance over all run stages.
type life struct {
	outcome string
	memory  int64   // the largest of its stages
	cpu     float64 // over its stages
	seconds float64 // over its stages
}

// figures sums up the instances of each group over the run stages among results, of each stage the attempt that its
// result is of. An instance counts once, with the worst of its outcomes.
func figures(folder runs.Folder, groups []pipelines.Group, results []stage.Result) (map[string]runs.Group, error) {
	lives := map[string]map[int]*life{}
	for _, g := range groups {
		lives[g.Name] = map[int]*life{}
	}
	for _, result := range results {
		if result.Kind != pipelines.KindRun {
			continue
		}
		if err := readStage(folder.Stage(result.Stage), stage.Key(result.Stage, result.Attempt), lives); err != nil {
			return nil, fmt.Errorf("reading what became of the instances in stage %q: %w", result.Stage, err)
		}
	}
	sums := map[string]runs.Group{}
	for _, g := range groups {
		if len(lives[g.Name]) > 0 {
			sums[g.Name] = sumUp(g.Instances, lives[g.Name])
		}
	}
	return sums, nil
}

// readStage adds the rows of one attempt.
func readStage(path, attempt string, lives map[string]map[int]*life) error {
	seen := map[string]map[int]bool{}
	return eachRow(path, func(row control.Instance) {
		if row.Attempt != attempt || lives[row.Group] == nil || seen[row.Group][row.Index] {
			return
		}
		if seen[row.Group] == nil {
			seen[row.Group] = map[int]bool{}
		}
		seen[row.Group][row.Index] = true
		add(lives[row.Group], row)
	})
}

// eachRow reads what became of the instances of a stage, in all its attempts. A line that a killed sidecar has not
// finished is left out; a file that isn't there has no rows.
func eachRow(path string, each func(control.Instance)) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	for reader := bufio.NewReaderSize(file, 64<<10); ; {
		line, err := reader.ReadBytes('\n')
		var row control.Instance
		if json.Unmarshal(line, &row) == nil {
			each(row)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// add lays one row over what is known of its instance.
func add(group map[int]*life, row control.Instance) {
	l := group[row.Index]
	if l == nil {
		l = &life{outcome: row.Outcome}
		group[row.Index] = l
	}
	if badness[row.Outcome] > badness[l.outcome] {
		l.outcome = row.Outcome
	}
	l.memory = max(l.memory, row.PeakMemory)
	l.cpu += row.CPU
	l.seconds += max(row.Ended.Sub(row.Started).Seconds(), 0)
}

// badness orders outcomes.
var badness = map[string]int{
	control.OutcomeKilled:    -1, // it says nothing
	control.OutcomeSucceeded: 0,
	control.OutcomeSilent:    1,
	control.OutcomeFailed:    2,
	control.OutcomeCrashed:   3,
}

func sumUp(instances int, lives map[int]*life) runs.Group {
	sums := runs.Group{Instances: instances}
	var memory, cpu, seconds []float64
	for _, l := range lives {
		switch l.outcome {
		case control.OutcomeSucceeded:
			sums.Outcomes.Succeeded++
		case control.OutcomeCrashed:
			sums.Outcomes.Crashed++
		case control.OutcomeSilent:
			sums.Outcomes.Silent++
		case control.OutcomeKilled:
			sums.Outcomes.Killed++
		default:
			sums.Outcomes.Failed++
		}
		if l.memory > 0 { // else it ended before anybody could look
			memory = append(memory, float64(l.memory))
		}
		cpu = append(cpu, l.cpu)
		seconds = append(seconds, l.seconds)
	}
	sums.PeakMemory, sums.CPU, sums.Seconds = metrics.Summary(memory), metrics.Summary(cpu), metrics.Summary(seconds)
	return sums
}
