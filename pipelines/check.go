package pipelines

import (
	"fmt"
	"slices"
	"strings"
)

// checkExpressions type-checks every expression of every file. The same text in the same file and context is compiled
// once.
func (d *Document) checkExpressions() {
	type sameness struct {
		file, text string
		context    context
		want       kind
	}
	type outcome struct {
		compiled *compiled
		faults   []expressionFault
	}
	done := map[sameness]outcome{}
	total := 0
	for _, s := range d.scopes() {
		for _, e := range d.files.sources[s.src.path].exprs {
			if d.files.faults.full() {
				return
			}
			key := sameness{s.src.path, e.text, e.context, e.want}
			o, ok := done[key]
			if !ok {
				if total += len(e.text) + 16; total > maxExpressionSum {
					d.files.faults.faultf(e.at, "the expressions of a pipeline have more than %d bytes together", maxExpressionSum)
					return
				}
				o.compiled, o.faults = compile(e.text, e.want, d.isGroup, scopeNames{s, e.context})
				done[key] = o
			}
			e.compiled = o.compiled
			for _, f := range o.faults {
				d.files.faults.suggestf(e.placeOf(f.offset), f.suggestion, "%s", f.message)
			}
		}
	}
}

// placeOf gives the place of an offset in the expression, as near as it is known.
func (e *expression) placeOf(offset int) place {
	at := e.at
	if e.exact && !strings.Contains(e.text, "\n") {
		at.column += offset
	}
	return at
}

// scopes lists one scope of each file. Those of one file differ in values only, not in types.
func (d *Document) scopes() []*scope {
	all := []*scope{d.root}
	seen := map[*source]bool{d.root.src: true}
	for _, n := range d.stages {
		for s := n.scope; s != nil; s = s.parent {
			if !seen[s.src] {
				seen[s.src] = true
				all = append(all, s)
			}
		}
	}
	return all
}

// checkStages looks at what stages say of groups, artifacts and each other.
func (d *Document) checkStages() {
	c := &stageChecker{doc: d, faults: d.files.faults, artifacts: map[string][]*stageNode{}}
	c.checkBuilds()
	c.checkGroups()
	for _, n := range d.stages {
		if c.faults.full() {
			return
		}
		c.checkWhen(n)
		switch {
		case n.syntax.schedule != nil:
			c.checkSchedule(n)
		case n.syntax.network != nil:
			c.checkNetworkStage(n)
		case n.syntax.run != nil:
			c.checkRun(n)
		case n.syntax.collect != nil:
			c.checkCollect(n)
		}
	}
	c.checkSideBySide()
	if only := d.files.bundle.Only; only != "" && d.byName[only] == nil {
		d.flagFault("--only", unknown("stage", only, d.stageNames()))
	}
}

// scheduled lists the groups that a schedule stage places.
func (n *stageNode) scheduled(d *Document) []string {
	if n.syntax.schedule.has("groups") {
		return texts(n.syntax.schedule.groups)
	}
	return d.groupNames()
}

// runGroups lists the groups that take part in a run stage, in the order of the file.
func (n *stageNode) runGroups(d *Document) []string {
	if n.syntax.run.has("groups") {
		return texts(n.syntax.run.groups)
	}
	return slices.DeleteFunc(d.groupNames(), func(g string) bool { return !n.placed.has(d.groupIndex[g]) })
}

type stageChecker struct {
	doc       *Document
	faults    *collector
	artifacts map[string][]*stageNode // artifact → the stages that build it
}

func (c *stageChecker) checkBuilds() {
	for _, n := range c.doc.stages {
		for _, a := range n.syntax.build {
			if built := c.artifacts[a.key]; len(built) > 0 && built[0].syntax != n.syntax {
				c.faults.faultf(a.at, "the artifact `%s` is already built by the stage `%s`", a.key, built[0].name)
			}
			c.artifacts[a.key] = append(c.artifacts[a.key], n)
		}
	}
}

// checkGroups holds each group's artifact against the build stages.
func (c *stageChecker) checkGroups() {
	for _, g := range c.doc.groups {
		a := g.syntax.artifact
		if a.text == "" {
			continue
		}
		if len(c.artifacts[a.text]) == 0 {
			p := unknown("artifact", a.text, sortedKeys(c.artifacts))
			c.faults.suggestf(a.at, p.suggestion, "%s: no build stage makes it", p.message)
		}
	}
}

func (c *stageChecker) checkWhen(n *stageNode) { c.checkEnded(n, n.syntax.when) }

// checkEnded refuses an expression that asks for the outcome of a stage which may not have ended.
func (c *stageChecker) checkEnded(n *stageNode, e *expression) {
	if e == nil || e.compiled == nil {
		return
	}
	for _, s := range e.compiled.slots {
		if s.root != "stages" {
			continue
		}
		other := c.doc.stage(s.segments[0])
		if other != nil && !c.doc.disordered && !c.doc.precedes(other, n) {
			c.faults.faultf(e.at, "the stage `%s` has not always ended when `%s` begins: name it in `needs`", other.name, n.name)
		}
	}
}

// known checks names of groups, each at most once.
func (c *stageChecker) known(names []name) {
	seen := map[string]bool{}
	for _, n := range names {
		switch {
		case c.faults.full():
			return
		case n.text == "":
		case !c.doc.isGroup(n.text):
			p := unknown("group", n.text, c.doc.groupNames())
			c.faults.suggestf(n.at, p.suggestion, "%s", p.message)
		case seen[n.text]:
			c.faults.faultf(n.at, "the group `%s` is named twice", n.text)
		}
		seen[n.text] = true
	}
}

func (c *stageChecker) checkSchedule(n *stageNode) {
	s := n.syntax.schedule
	c.known(s.groups)
	if s.has("groups") && len(s.groups) == 0 || len(c.doc.groups) == 0 {
		c.faults.faultf(s.place, "there is no group to place")
	}
	for _, name := range n.scheduled(c.doc) {
		i, ok := c.doc.groupIndex[name]
		if !ok {
			continue
		}
		artifact := c.doc.groups[i].syntax.artifact.text
		builds := c.artifacts[artifact]
		if !c.doc.disordered && len(builds) > 0 && !slices.ContainsFunc(builds, func(b *stageNode) bool { return c.doc.precedes(b, n) }) {
			c.faults.faultf(n.syntax.key("schedule"), "the artifact `%s` of the group `%s` is not built before this stage: `%s` must come before it",
				artifact, name, builds[0].name)
		}
	}
}

func (c *stageChecker) checkNetworkStage(n *stageNode) {
	if n.placed.empty() && !c.doc.disordered {
		c.faults.faultf(n.syntax.key("network"), "no instance is placed yet: a schedule stage must come before this one")
	}
	c.checkNetwork(n.syntax.network)
	if text, ok := n.syntax.network.regions.literal.(string); ok {
		c.checkRegions(n.syntax.network.regions.at, text)
	}
}

// checkNetwork checks the groups and regions that a network names.
func (c *stageChecker) checkNetwork(net *networkSyntax) {
	for i := range net.links {
		l := &net.links[i]
		if c.faults.full() {
			return
		}
		for _, end := range append(slices.Clone(l.between), l.from, l.to) {
			c.checkEnd(end)
		}
	}
	natted := map[string]bool{}
	for _, t := range net.nat {
		c.known(t.groups)
		for _, g := range t.groups {
			if natted[g.text] {
				c.faults.faultf(g.at, "the group `%s` is behind two routers", g.text)
			}
			natted[g.text] = true
		}
	}
	for _, b := range net.inbound {
		c.known(b.groups)
		for _, g := range b.groups {
			if natted[g.text] {
				c.faults.faultf(g.at, "the group `%s` is behind a NAT, whose type says what comes in: `inbound` can't be set for it", g.text)
			}
		}
	}
}

func (c *stageChecker) checkEnd(end name) {
	if end.text == "" || c.doc.isGroup(end.text) || c.doc.groupsOf(end.text) != nil {
		return
	}
	candidates := c.doc.groupNames()
	for _, g := range c.doc.groups {
		if r := g.syntax.region.text; r != "" && !slices.Contains(candidates, r) {
			candidates = append(candidates, r)
		}
	}
	p := unknown("group or region", end.text, candidates)
	c.faults.suggestf(end.at, p.suggestion, "%s", p.message)
}

// groupsOf lists the groups that a name in a link means: the group of that name, else those of the region.
func (d *Document) groupsOf(end string) []string {
	if d.isGroup(end) {
		return []string{end}
	}
	return d.byRegion[end]
}

func (c *stageChecker) checkRegions(at place, file string) {
	target, ok := c.doc.files.join(c.faults, at, file)
	if !ok {
		return
	}
	r := c.doc.readRegions(target, at)
	if r == nil {
		return
	}
	for _, g := range c.doc.groups {
		if name := g.syntax.region; name.text != "" && !slices.Contains(r.names, name.text) {
			p := unknown("region", name.text, r.names)
			c.faults.suggestf(name.at, p.suggestion, "%s: %s has no row or column for it", p.message, target)
		}
	}
}

func (c *stageChecker) checkRun(n *stageNode) {
	r := n.syntax.run
	c.known(r.groups)
	if r.has("groups") && len(r.groups) == 0 {
		c.faults.faultf(r.key("groups"), "no group takes part")
	}
	switch {
	case c.doc.disordered:
	case n.placed.empty():
		c.faults.faultf(n.syntax.key("run"), "no instance is placed yet: a schedule stage must come before this one")
	default:
		for _, g := range r.groups {
			if c.doc.isGroup(g.text) && !n.placed.has(c.doc.groupIndex[g.text]) {
				c.faults.faultf(g.at, "the group `%s` is not placed yet: no schedule stage before this one has it", g.text)
			}
		}
	}
	c.checkEvents(n)
}

func (c *stageChecker) checkCollect(n *stageNode) {
	s := n.syntax.collect
	for _, e := range s.assert {
		c.checkEnded(n, e)
	}
	if s.elasticsearch != nil {
		c.checkAfterRuns(n, s.key("elasticsearch"), "logs are pushed")
	}
	if len(s.export) > 0 {
		c.checkAfterRuns(n, s.key("export"), "metrics are exported")
	}
}

// checkAfterRuns refuses what may be done only when every run stage has ended, in a stage that may come before one's end.
func (c *stageChecker) checkAfterRuns(n *stageNode, at place, what string) {
	if c.doc.disordered {
		return
	}
	for _, other := range c.doc.stages {
		if other.syntax.run != nil && !c.doc.precedes(other, n) {
			c.faults.faultf(at, "%s only after every run stage has ended, and `%s` may not have: put this stage after it", what, other.name)
		}
	}
}

// checkSideBySide refuses two run stages at the same time on the same group.
func (c *stageChecker) checkSideBySide() {
	if c.doc.disordered {
		return
	}
	var runs []*stageNode
	var groups []set
	for _, n := range c.doc.stages {
		if n.syntax.run != nil {
			runs = append(runs, n)
			groups = append(groups, c.doc.groupSet(n.runGroups(c.doc)))
		}
	}
	for i, a := range runs {
		for j := i + 1; j < len(runs) && !c.faults.full(); j++ {
			b := runs[j]
			if c.doc.precedes(a, b) || c.doc.precedes(b, a) {
				continue
			}
			if shared := groups[i].meets(groups[j]); shared >= 0 {
				c.faults.faultf(b.syntax.key("run"), "the stages `%s` and `%s` run side by side, and both have the group `%s`",
					a.name, b.name, c.doc.groups[shared].name)
			}
		}
	}
}

// resolveAnchor says whether a name in a moment is an event's or a state's.
func resolveAnchor(a Anchor, isEvent func(string) bool) (Anchor, error) {
	if isEvent(a.State) {
		a.Event, a.State = a.State, ""
		return a, nil
	}
	if a.Healed {
		return a, fmt.Errorf("unknown event `%s`", clip(a.State))
	}
	return a, nil
}
