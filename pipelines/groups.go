package pipelines

import (
	"slices"
	"strings"
)

const (
	maxGroups    = 1000
	maxInstances = 100_000
)

// group is a group after `extends`.
type group struct {
	name   string
	at     place
	syntax groupSyntax
	circle bool // it extends itself
}

// readGroups lays each group over the one that it extends.
func (d *Document) readGroups() {
	written := d.syntax.groups
	if len(written) > maxGroups {
		d.files.faults.faultf(written[maxGroups].at, "a pipeline has at most %d groups, this one has %d", maxGroups, len(written))
		written = written[:maxGroups]
	}
	index := make(map[string]int, len(written))
	for i, e := range written {
		index[e.key] = i
		d.groups = append(d.groups, group{name: e.key, at: e.at, syntax: e.value})
	}
	d.groupIndex = index
	done := make([]bool, len(written))
	for i := range d.groups {
		d.extend(i, index, done, nil)
	}
	d.byRegion = map[string][]string{}
	for _, g := range d.groups {
		if region := g.syntax.region.text; region != "" {
			d.byRegion[region] = append(d.byRegion[region], g.name)
		}
		if g.circle {
			continue
		}
		if g.syntax.artifact.text == "" && !g.syntax.has("artifact") {
			d.files.faults.faultf(g.at, "the group `%s` needs the key `artifact`", g.name)
		}
		if !g.syntax.instances.written() {
			d.files.faults.faultf(g.at, "the group `%s` needs the key `instances`", g.name)
		}
	}
}

// weight is how much a group that extends this one takes over.
func (g *groupSyntax) weight() int {
	return len(g.args) + len(g.parameters) + len(g.env) + len(g.ports) + len(g.profiles)
}

// extend settles a group after the one that it extends; path holds the groups that wait for it.
func (d *Document) extend(i int, index map[string]int, done []bool, path []int) {
	g := &d.groups[i]
	base := g.syntax.extends
	if done[i] || base.text == "" {
		done[i] = true
		return
	}
	j, ok := index[base.text]
	if !ok {
		p := unknown("group", base.text, d.groupNames())
		d.files.faults.suggestf(base.at, p.suggestion, "%s", p.message)
		done[i] = true
		return
	}
	path = append(path, i)
	if at := slices.Index(path, j); at >= 0 {
		var names []string
		for _, k := range append(path[at:], j) {
			names = append(names, d.groups[k].name)
			done[k], d.groups[k].circle = true, true
		}
		d.files.faults.faultf(base.at, "groups extend each other in a circle: %s", strings.Join(names, " → "))
		return
	}
	d.extend(j, index, done, path)
	if d.inherited += d.groups[j].syntax.weight(); d.inherited > maxValues {
		if !done[i] {
			d.files.faults.faultf(base.at, "the groups hold more than %d values once `extends` is worked out", maxValues)
		}
		done[i] = true
		return
	}
	if !done[i] {
		g.syntax = g.syntax.inherit(d.groups[j].syntax)
		done[i] = true
	}
}
