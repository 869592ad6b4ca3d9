package pipelines

import "slices"

// kept has the stages that are carried out: all, or with Only that stage and what it needs.
func (d *Document) kept() set {
	kept := newSet(len(d.stages))
	only := d.byName[d.files.bundle.Only]
	if only == nil {
		for i := range d.stages {
			kept.add(i)
		}
		return kept
	}
	kept.addAll(only.before)
	kept.add(only.index)
	if only.kind != KindRun {
		return kept
	}
	// A run doesn't need what was done for other groups than its own: the runs that were before it, and their placing.
	fewer := newSet(len(d.stages))
	groups := only.runGroups(d)
	for i, n := range d.stages {
		if kept.has(i) && !n.elsewhere(d, groups) {
			fewer.add(i)
		}
	}
	for i, n := range d.stages {
		if fewer.has(i) && (n.asks(d, fewer) || n.kind == KindNetwork && !n.follows(d, fewer, KindSchedule)) {
			return kept
		}
	}
	return fewer
}

// elsewhere says whether a stage places or runs groups, and none of these.
func (n *stageNode) elsewhere(d *Document, groups []string) bool {
	var own []string
	switch n.kind {
	case KindSchedule:
		own = n.scheduled(d)
	case KindRun:
		own = n.runGroups(d)
	default:
		return false
	}
	return !slices.ContainsFunc(own, func(g string) bool { return slices.Contains(groups, g) })
}

// follows says whether a stage of that kind is kept that has ended before this one begins.
func (n *stageNode) follows(d *Document, kept set, kind Kind) bool {
	return slices.ContainsFunc(d.stages, func(other *stageNode) bool {
		return other.kind == kind && kept.has(other.index) && n.before.has(other.index)
	})
}

// asks says whether a stage's `when` asks for what another stage came to that isn't kept, or for what runs came to.
func (n *stageNode) asks(d *Document, kept set) bool {
	when := n.syntax.when
	if when == nil || when.compiled == nil {
		return false
	}
	for _, s := range when.compiled.slots {
		switch s.root {
		case "outcomes", "metrics":
			return true
		case "stages":
			if other := d.stage(s.segments[0]); other == nil || !kept.has(other.index) {
				return true
			}
		}
	}
	return false
}

// needed are the stages that a stage waits for: those that it names, and in the place of one that isn't kept those that
// that one waits for.
func (d *Document) needed(n *stageNode, kept set) []int {
	var all []int
	seen := newSet(len(d.stages))
	var visit func(needs []int)
	visit = func(needs []int) {
		for _, need := range needs {
			if seen.has(need) {
				continue
			}
			seen.add(need)
			if kept.has(need) {
				all = append(all, need)
			} else {
				visit(d.stages[need].needs)
			}
		}
	}
	visit(n.needs)
	return all
}
