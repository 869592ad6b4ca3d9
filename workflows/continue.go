package workflows

import (
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/pipelines"
)

// next is the input of the execution that goes on where this one was cut: nothing is under way then.
func (e *execution) next() Input {
	next := e.in
	next.Started = e.started
	next.Earlier = e.results
	next.Tries = e.tries
	next.Aborted = e.aborted
	return next
}

// skipRest ends the stages that a cut kept from beginning, of a run that was cancelled before it could continue as new.
func (e *execution) skipRest(ctx workflow.Context) {
	for _, s := range e.in.Pipeline.Stages {
		if !e.ended(s.Name) {
			e.skip(ctx, s, "the run was cancelled")
		}
	}
}

// awaits says for every stage which others end before its turn comes: those it needs, and what these need in turn where
// they have ended in an earlier execution. A resume may place anew under a stage that it doesn't run again, and those
// behind that stage wait for the placement all the same.
func awaits(stages []pipelines.Stage, ended func(name string) bool) map[string][]string {
	needs := map[string][]string{}
	for _, s := range stages {
		needs[s.Name] = s.Needs
	}
	all := map[string][]string{}
	for _, s := range stages {
		found := slices.Clone(s.Needs)
		for at := 0; at < len(found); at++ { // grows as it goes
			if _, known := needs[found[at]]; !known || !ended(found[at]) {
				continue
			}
			for _, need := range needs[found[at]] {
				if !slices.Contains(found, need) {
					found = append(found, need)
				}
			}
		}
		all[s.Name] = slices.DeleteFunc(found, func(name string) bool { _, known := needs[name]; return known && ended(name) })
	}
	return all
}
