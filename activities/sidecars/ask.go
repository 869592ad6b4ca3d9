// Package sidecars is what all grounds have in common: what a stage asks of the sidecars of its run, and the result that
// the stage has by their answers, in the same words wherever instances live.
package sidecars

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Key names one attempt of a stage to a sidecar.
func Key(in stage.Input) string { return stage.Key(in.Stage.Name, in.Attempt) }

// Placement is what a sidecar is asked to hold for groups; the string is why it can't be asked. A later placement takes
// the place of an earlier one in what all groups run, so that each names the programs of all that have one by then.
// program is what a group runs of its artifact, or why it can't be run there.
func Placement(in stage.Input, groups []string, program func(pipelines.Group, stage.Artifact) (control.Group, string)) (control.Placement, string) {
	ask := control.Placement{
		Run:      in.Run.ID,
		Pipeline: in.Pipeline,
		Seed:     in.Seed,
		Groups:   groups,
		Env:      map[string]string{"TEST_REPO": filepath.Base(in.Run.Root), "TEST_TAG": in.Run.Commit},
	}
	for _, group := range in.Groups {
		artifact, made := in.Artifacts[group.Artifact]
		asked, why := control.Group{Group: group}, ""
		if made {
			asked, why = program(group, artifact)
		} else {
			why = fmt.Sprintf("group %s needs the artifact %s, and no build stage before this one has made it", group.Name, group.Artifact)
		}
		if why != "" && slices.Contains(groups, group.Name) {
			return ask, why
		}
		ask.All = append(ask.All, asked)
	}
	for _, name := range groups {
		if !slices.ContainsFunc(in.Groups, func(g pipelines.Group) bool { return g.Name == name }) {
			return ask, fmt.Sprintf("there is no group %q", name)
		}
	}
	return ask, ""
}

// Network is what a sidecar is asked to make of the data network by a network stage.
func Network(in stage.Input) *control.Network {
	return &control.Network{State: *in.Stage.Network, Key: Key(in), Stage: in.Stage.Name, Seed: in.Seed}
}

// RunStage is what a sidecar is asked to open the gate for.
func RunStage(in stage.Input) control.RunStage {
	run := in.Stage.Run
	total := Instances(in, run.Groups)
	return control.RunStage{
		Stage:       in.Stage.Name,
		Groups:      run.Groups,
		Case:        run.Case,
		Params:      run.Params,
		FailFast:    run.FailFast,
		MaxFailures: total - MustSucceed(float64(run.Success), total),
		Deadline:    in.Deadline,
		Events:      run.Events,
		Seed:        in.Seed,
	}
}

// CheckParams refuses parameters that Testground's SDKs would drop without a word.
func CheckParams(in stage.Input) string {
	for _, group := range in.Groups {
		if !group.Testground || !slices.Contains(in.Stage.Run.Groups, group.Name) {
			continue
		}
		all := maps.Clone(group.Parameters)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, in.Stage.Run.Params)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if strings.ContainsAny(name, "=|") || strings.ContainsAny(all[name], "=|") {
				return fmt.Sprintf("group %s: the parameter %s (%q) holds = or |, which instances built for Testground can't receive: change it, or set `testground: false` for the group", group.Name, name, all[name])
			}
		}
	}
	return ""
}

// MustSucceed is how many of total instances a share asks for.
func MustSucceed(share float64, total int) int {
	return int(math.Ceil(share*float64(total) - 1e-9))
}

// Instances counts those of the named groups.
func Instances(in stage.Input, groups []string) int {
	total := 0
	for _, g := range in.Groups {
		if slices.Contains(groups, g.Name) {
			total += g.Instances
		}
	}
	return total
}

// InOrder sorts names of groups as the pipeline has them, each once.
func InOrder(in stage.Input, names []string) []string {
	var sorted []string
	for _, g := range in.Groups {
		if slices.Contains(names, g.Name) {
			sorted = append(sorted, g.Name)
		}
	}
	return sorted
}

// Names are those of all groups.
func Names(in stage.Input) []string {
	var all []string
	for _, g := range in.Groups {
		all = append(all, g.Name)
	}
	return all
}
