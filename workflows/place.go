package workflows

import (
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// attemptPlaced carries the stage out once more. Where the attempt before was invalid the placement may be gone, or part
// of it, so it is brought back first; when that doesn't work the stage stays as it ended, and its reason says so.
func (e *execution) attemptPlaced(ctx workflow.Context, s pipelines.Stage) (result stage.Result, final bool) {
	before, tried := e.newest(s.Name)
	if tried && before.Verdict == stage.Invalid && (s.Kind == pipelines.KindRun || s.Kind == pipelines.KindNetwork) {
		if r := e.placeAgain(ctx, s); r.Verdict != stage.Passed {
			before = e.amend(before, fmt.Sprintf("stage %q could not bring back what was lost: %s", r.Stage, r.Reason))
			return before, ctx.Err() != nil
		}
	}
	result, final = e.attempt(ctx, s)
	e.keep(result)
	return result, final
}

// placeAgain carries out again the schedule stages that s needs, directly or through others, and then the newest of its
// network stages. They converge: what is still there is kept, so that only what was lost takes time. It answers with the
// first of them that did not pass, or that all have.
func (e *execution) placeAgain(ctx workflow.Context, s pipelines.Stage) stage.Result {
	needed := ancestors(e.in.Pipeline.Stages, s)
	var again []pipelines.Stage
	var network *pipelines.Stage
	for _, r := range e.results {
		i := slices.IndexFunc(needed, func(n pipelines.Stage) bool { return n.Name == r.Stage })
		switch {
		case i < 0 || r.Verdict == stage.Skipped:
		case r.Kind == pipelines.KindSchedule:
			again = append(again, needed[i])
		case r.Kind == pipelines.KindNetwork:
			network = &needed[i]
		}
	}
	if network != nil {
		again = append(again, *network)
	}
	for _, n := range again {
		result, _ := e.attempt(ctx, n)
		e.keep(result)
		e.show(n.Name, PhaseEnded, result)
		if result.Verdict != stage.Passed {
			return result
		}
	}
	return stage.Result{Verdict: stage.Passed}
}

// amend adds to the reason of a stage's newest attempt; said twice, the second replaces the first.
func (e *execution) amend(r stage.Result, more string) stage.Result {
	reason, _, _ := strings.Cut(r.Reason, amended)
	r.Reason = shorten(reason+amended+more, longestReason)
	i := slices.IndexFunc(e.results, func(other stage.Result) bool { return other.Stage == r.Stage })
	e.results[i] = r
	return r
}

// amended stands between a stage's own reason and what came of trying to bring its placement back.
const amended = "; and then "

// ancestors are the stages that s needs, directly or through others, in the order of the file.
func ancestors(stages []pipelines.Stage, s pipelines.Stage) []pipelines.Stage {
	byName := map[string]pipelines.Stage{}
	for _, other := range stages {
		byName[other.Name] = other
	}
	found := map[string]bool{}
	for open := slices.Clone(s.Needs); len(open) > 0; {
		name := open[len(open)-1]
		open = open[:len(open)-1]
		if !found[name] {
			found[name] = true
			open = append(open, byName[name].Needs...)
		}
	}
	var all []pipelines.Stage
	for _, other := range stages {
		if found[other.Name] {
			all = append(all, other)
		}
	}
	return all
}
