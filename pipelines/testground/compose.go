package testground

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// composed makes one pipeline of a composition: each artifact is built once, then each run is placed and run, whatever
// became of the ones before it.
func (im *importer) composed(m *manifest, c *composition) *pipeline {
	before := len(im.faults)
	tc, ok := m.testCase(c.testCase)
	if !ok {
		im.fault(c.file, c.caseLine, "the plan %s has no test case %s", m.name, c.testCase)
		return nil
	}
	base := identifier(strings.TrimSuffix(path.Base(c.file), path.Ext(c.file)), "composition")
	p := &pipeline{file: m.fileFor(base), name: identifier(c.title, base), about: c.about(m)}
	sources := im.artifacts(p, m, c)
	r := im.runnerOf(m, c.runner, c.runSettings)
	groupNames, stageNames := allocator{}, allocator{}
	for _, reserved := range []string{"build", "place", "gather"} {
		stageNames.name(reserved)
	}
	for _, run := range c.runs {
		counts, total, ok := im.counts(c, run)
		if !ok {
			continue
		}
		if total < tc.min || total > tc.max {
			im.fault(c.file, max(run.line, c.caseLine), "run `%s` has %s: the case %s takes %s", run.id, instances(total), tc.name, tc.bounds())
		}
		st := stage{name: stageNames.name(identifier(run.id, "run")), place: stageNames.name(identifier("place-"+run.id, "place")), testCase: c.testCase, timeout: r.timeout, why: r.why}
		for i, g := range run.groups {
			one := im.groupOf(c, run, g, r)
			one.instances, one.note = counts[i].number, counts[i].note
			one.artifact = sources[g.of].artifact
			im.params(&one, c, run, g, tc)
			im.outcomeOf(&one, sources[g.of].source, tc)
			im.nameGroup(&one, &groupNames, len(c.runs) > 1, run.id, g.id)
			st.groups = append(st.groups, one.name)
			p.groups = append(p.groups, one)
		}
		p.runs = append(p.runs, st)
		if len(c.runs) == 1 && run.total > 0 {
			p.instances = run.total
		}
	}
	if len(im.faults) > before {
		return nil
	}
	return p
}

// fileFor names the file of a composition, so that it isn't that of a test case.
func (m *manifest) fileFor(base string) string {
	if slices.ContainsFunc(m.cases, func(c testCase) bool { return identifier(c.name, "case") == base }) {
		base += "-composition"
	}
	return base + ".yaml"
}

func (c *composition) about(m *manifest) string {
	text := fmt.Sprintf("Test case %s of Testground's plan %s, from the composition %s", c.testCase, m.name, path.Base(c.file))
	if c.author != "" {
		text += " by " + c.author
	}
	return text + "."
}

// built is what a group of the composition runs.
type built struct {
	artifact string
	source   source
}

// artifacts makes one of every kind of build; groups that build alike share it.
func (im *importer) artifacts(p *pipeline, m *manifest, c *composition) map[string]built {
	all, byKey, used := map[string]built{}, map[string]string{}, map[string]bool{}
	taken := allocator{}
	var wanted []string // the groups that runs use, in the order of the file
	for _, g := range c.groups {
		if slices.ContainsFunc(c.runs, func(r runSpec) bool {
			return slices.ContainsFunc(r.groups, func(x runGroup) bool { return x.of == g.id })
		}) {
			wanted = append(wanted, g.id)
		} else {
			im.report.add(Row{c.file, g.line, "groups." + g.id, Needless, "no run uses this group"})
		}
	}
	for _, id := range wanted {
		g := c.group(id)
		builder := im.chooseBuilder(m, cmp.Or(g.builder, c.builder), g.line, c.file)
		if builder == "" {
			continue
		}
		used[builder] = true
		src := im.sourceOf(builder, settingsOf(g.build.config, c.build.config, find(m.builders, builder)), g.build.over(c.build))
		name, there := byKey[src.key()]
		if !there {
			name = taken.name(identifier(m.name, "plan"))
			if len(wanted) > 1 && len(byKey) > 0 {
				name = taken.name(identifier(m.name+"-"+g.id, "plan"))
			}
			byKey[src.key()] = name
			p.artifacts = append(p.artifacts, artifact{name, src})
		}
		all[id] = built{name, src}
	}
	im.unused(m, used, c.runner)
	return all
}

// over lays a group's build over that of the whole: selectors as a whole, dependencies one by one.
func (b buildSettings) over(whole buildSettings) buildSettings {
	out := buildSettings{selectors: b.selectors, dependencies: slices.Clone(b.dependencies)}
	if len(out.selectors) == 0 {
		out.selectors = whole.selectors
	}
	for _, d := range whole.dependencies {
		if !slices.ContainsFunc(b.dependencies, func(x dependency) bool { return x.module == d.module }) {
			out.dependencies = append(out.dependencies, d)
		}
	}
	return out
}

// counted numbers, as they are written.
type figure struct{ number, note string }

// counts works out how many instances each group of a run has.
func (im *importer) counts(c *composition, run runSpec) (all []figure, total int, ok bool) {
	ok = true
	for _, g := range run.groups {
		n := g.instances
		if !n.given() {
			n = c.group(g.of).instances
		}
		f := figure{number: strconv.Itoa(n.count)}
		count := n.count
		switch {
		case !n.given():
			im.fault(c.file, g.line, "group `%s` of run `%s` has no number of instances", g.id, run.id)
			ok = false
		case n.share > 0 && run.total == 0:
			im.fault(c.file, g.line, "group `%s` of run `%s` has a percentage, which needs `total_instances`", g.id, run.id)
			ok = false
		case n.share > 0:
			count = int(math.Round(n.share * float64(run.total)))
			f = figure{strconv.Itoa(count), fmt.Sprintf("%s of %d", percent(n.share), run.total)}
		}
		total += count
		all = append(all, f)
	}
	if ok && run.total != 0 && total != run.total {
		im.fault(c.file, run.line, "the groups of run `%s` have %s together, and `total_instances` is %d", run.id, instances(total), run.total)
		ok = false
	}
	return all, total, ok
}

func percent(share float64) string {
	return strconv.FormatFloat(math.Round(share*1e8)/1e6, 'f', -1, 64) + "%"
}

func instances(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return strconv.Itoa(n) + " instances"
}

// groupOf is a group of a run with all but its number and parameters.
func (im *importer) groupOf(c *composition, run runSpec, g runGroup, r runner) group {
	spec := c.group(g.of)
	res := g.resources
	if res.cpu == "" {
		res.cpu = spec.resources.cpu
	}
	if res.memory == "" {
		res.memory = spec.resources.memory
	}
	res.line = max(res.line, spec.resources.line)
	out := group{ports: r.ports, env: map[string]string{}, profiles: laid(g.run.profiles, spec.run.profiles, c.shared.profiles)}
	maps.Copy(out.env, r.env)
	out.cpu, out.memory = im.quantities(res, r)
	return out
}

// params are those of a group in a run, from the nearest to the farthest: of the group in the run, of the run, of the
// group, of the whole, of the test case.
func (im *importer) params(g *group, c *composition, run runSpec, in runGroup, tc testCase) {
	usual := map[string]string{}
	for _, p := range tc.params {
		usual[p.name] = p.value
	}
	all := laid(in.run.params, run.params, c.group(in.of).run.params, c.shared.params, usual)
	g.params = all
	for _, name := range sortedKeys(all) {
		if strings.ContainsAny(name+all[name], "=|") {
			g.unpackable = append(g.unpackable, name)
		}
		if !labelPattern.MatchString(name) {
			im.fault(c.file, in.line, "the parameter %q of group `%s` can't be handed over: %s", name, in.id, labelRule)
		}
	}
}

// nameGroup names a group, with its run where there are several, and keeps what Testground calls it where that is not
// a name here.
func (im *importer) nameGroup(g *group, taken *allocator, several bool, run, id string) {
	wish := id
	if several {
		wish = run + "-" + id
	}
	g.name = taken.name(identifier(wish, "group"))
	if g.name != id {
		g.env["TEST_GROUP_ID"] = id
	}
}
