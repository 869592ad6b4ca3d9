package pipelines

import (
	"slices"
	"strconv"
)

// compared lays a comparison over stages of which none compares. It goes into the last collect stage that always runs;
// where every one has a `when`, into the last one; and where there is none, into one more behind all others.
func compared(stages []Stage, with *Compare) []Stage {
	if with == nil || slices.ContainsFunc(stages, func(s Stage) bool { return s.Collect != nil && s.Collect.Compare != nil }) {
		return stages
	}
	last := -1
	for i, s := range stages {
		if s.Collect != nil && (last < 0 || s.When == "" || stages[last].When != "") {
			last = i
		}
	}
	if last >= 0 {
		stages[last].Collect.Compare = with
		return stages
	}
	needed := map[string]bool{}
	for _, s := range stages {
		for _, need := range s.Needs {
			needed[need] = true
		}
	}
	added := Stage{
		Name: "compare", Kind: KindCollect, Timeout: DefaultTimeout, OnFailure: OnFailureAbort,
		Collect: &Collect{Outputs: true, Compare: with},
	}
	for n := 2; slices.ContainsFunc(stages, func(s Stage) bool { return s.Name == added.Name }); n++ {
		added.Name = "compare-" + strconv.Itoa(n)
	}
	for _, s := range stages {
		if !needed[s.Name] {
			added.Needs = append(added.Needs, s.Name)
		}
	}
	return append(stages, added)
}
