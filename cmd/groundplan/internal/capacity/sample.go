package capacity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
)

// Sample is the pipeline to be run for measuring: at most each instances of every group, one run stage, and of the
// other stages only those that it needs. Nothing disturbs it (events), nothing is proved, asserted, pushed or tried again,
// and the run stage is over after at most bound. An empty name takes the first run stage.
func Sample(p pipelines.Resolved, name string, each int, bound pipelines.Duration) (pipelines.Resolved, error) {
	run, err := runStage(p, name)
	if err != nil {
		return pipelines.Resolved{}, err
	}
	chain := chainTo(p, run.Name)
	p.Name = shorten("capacity-"+p.Name, 63)
	p.Groups = slices.Clone(p.Groups)
	for i := range p.Groups {
		p.Groups[i].Instances = min(p.Groups[i].Instances, each)
	}
	var stages []pipelines.Stage
	for _, s := range p.Stages {
		if chain.kept[s.Name] {
			s.Needs = chain.bridge(s)
			stages = append(stages, plain(s, bound))
		}
	}
	p.Stages = stages
	p.Digest = ""
	data, err := json.Marshal(p)
	if err != nil {
		return pipelines.Resolved{}, fmt.Errorf("digesting the sample of %s: %w", p.Name, err)
	}
	sum := sha256.Sum256(data)
	p.Digest = hex.EncodeToString(sum[:])
	return p, nil
}

func shorten(name string, most int) string {
	return strings.TrimRight(name[:min(len(name), most)], "-")
}

// runStage finds the stage to be measured.
func runStage(p pipelines.Resolved, name string) (pipelines.Stage, error) {
	var names []string
	for _, s := range p.Stages {
		if s.Kind != pipelines.KindRun {
			continue
		}
		if name == "" || s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return pipelines.Stage{}, fmt.Errorf("the pipeline %s has no run stage: there is nothing to measure", p.Name)
	}
	return pipelines.Stage{}, fmt.Errorf("%q is no run stage of %s: choose one of %s", name, p.Name, strings.Join(names, ", "))
}

// chain is the stages of a pipeline, of which some are kept.
type chain struct {
	stages map[string]pipelines.Stage
	kept   map[string]bool
}

// chainTo keeps a run stage and those before it that build, place and connect what it runs.
func chainTo(p pipelines.Resolved, run string) chain {
	c := chain{stages: map[string]pipelines.Stage{}, kept: map[string]bool{}}
	for _, s := range p.Stages {
		c.stages[s.Name] = s
	}
	for _, s := range c.before(run) {
		switch s.Kind {
		case pipelines.KindBuild, pipelines.KindSchedule, pipelines.KindNetwork:
			c.kept[s.Name] = true
		}
	}
	c.kept[run] = true
	return c
}

// before is a stage and all that it needs, directly or not.
func (c chain) before(name string) []pipelines.Stage {
	var all []pipelines.Stage
	seen := map[string]bool{}
	for waiting := []string{name}; len(waiting) > 0; waiting = waiting[1:] {
		if s := c.stages[waiting[0]]; !seen[s.Name] {
			seen[s.Name] = true
			all = append(all, s)
			waiting = append(waiting, s.Needs...)
		}
	}
	return all
}

// bridge is what a stage needs of those that are kept: of one that isn't, what that one needs.
func (c chain) bridge(s pipelines.Stage) []string {
	var needs []string
	waiting := slices.Clone(s.Needs)
	seen := map[string]bool{}
	for ; len(waiting) > 0; waiting = waiting[1:] {
		name := waiting[0]
		switch {
		case seen[name]:
		case c.kept[name]:
			needs = append(needs, name)
		default:
			waiting = append(waiting, c.stages[name].Needs...)
		}
		seen[name] = true
	}
	return needs
}

// plain is a stage without what has nothing to do with measuring.
func plain(s pipelines.Stage, bound pipelines.Duration) pipelines.Stage {
	s.When, s.Retry, s.OnFailure, s.HoldFor = "", pipelines.Retry{}, pipelines.OnFailureAbort, 0
	switch {
	case s.Run != nil:
		run := *s.Run
		run.Events, run.FailFast = nil, false
		s.Run = &run
		s.Timeout = min(s.Timeout, bound)
	case s.Network != nil:
		network := *s.Network
		network.Verify = pipelines.Verify{Off: true}
		s.Network = &network
	}
	return s
}
