package workflows

import (
	"fmt"
	"slices"

	"github.com/groundplan/groundplan/pipelines"
)

// check refuses an input that RunPipeline couldn't carry through. Package pipelines gives nothing of the kind; but a
// run can be started by any client, and a graph that never ends would hold its placement for ever.
func check(in Input) error {
	if in.Run.ID == "" {
		return fmt.Errorf("the input names no run")
	}
	if len(in.Pipeline.Stages) == 0 {
		return fmt.Errorf("pipeline %q has no stages", in.Pipeline.Name)
	}
	seen := map[string]bool{}
	for _, s := range in.Pipeline.Stages {
		if s.Name == "" || seen[s.Name] {
			return fmt.Errorf("stage names must be unique and not empty, but %q (%s) isn't", s.Name, s.Position)
		}
		seen[s.Name] = true
		if err := checkStage(s); err != nil {
			return fmt.Errorf("stage %q (%s): %w", s.Name, s.Position, err)
		}
	}
	for _, earlier := range in.Earlier {
		if !seen[earlier.Stage] {
			return fmt.Errorf("there is an earlier result of stage %q, which the pipeline doesn't have", earlier.Stage)
		}
	}
	return checkGraph(in.Pipeline.Stages)
}

func checkStage(s pipelines.Stage) error {
	bodies := map[pipelines.Kind]bool{
		pipelines.KindBuild:    len(s.Build) > 0,
		pipelines.KindSchedule: s.Schedule != nil,
		pipelines.KindNetwork:  s.Network != nil,
		pipelines.KindRun:      s.Run != nil,
		pipelines.KindCollect:  s.Collect != nil,
	}
	set, known := bodies[s.Kind]
	if !known {
		return fmt.Errorf("there is no activity for the kind %q", s.Kind)
	}
	if !set {
		return fmt.Errorf("its kind is %s, but nothing says what to %s", s.Kind, s.Kind)
	}
	known = slices.Contains([]string{"", pipelines.OnFailureAbort, pipelines.OnFailureHold, pipelines.OnFailureContinue}, s.OnFailure)
	if !known {
		return fmt.Errorf("onFailure %q is none of hold, abort, continue", s.OnFailure)
	}
	return nil
}

// checkGraph takes away stages whose needs are all taken away, until none is left.
func checkGraph(stages []pipelines.Stage) error {
	names := map[string]bool{}
	for _, s := range stages {
		names[s.Name] = true
	}
	gone := map[string]bool{}
	rest := slices.Clone(stages)
	for len(rest) > 0 {
		before := len(rest)
		for _, s := range rest {
			for _, need := range s.Needs {
				if !names[need] {
					return fmt.Errorf("stage %q (%s) needs %q, which the pipeline doesn't have", s.Name, s.Position, need)
				}
			}
			if !slices.ContainsFunc(s.Needs, func(n string) bool { return !gone[n] }) {
				gone[s.Name] = true
			}
		}
		rest = slices.DeleteFunc(rest, func(s pipelines.Stage) bool { return gone[s.Name] })
		if len(rest) == before {
			return fmt.Errorf("stage %q (%s) needs itself, through %q", rest[0].Name, rest[0].Position, rest[0].Needs)
		}
	}
	return nil
}
