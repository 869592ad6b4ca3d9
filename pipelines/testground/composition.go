package testground

import (
	"maps"
	"slices"

	"github.com/groundplan/groundplan/pipelines/testground/internal/toml"
)

// composition is a composition as it was read.
type composition struct {
	file         string
	title        string
	author       string
	testCase     string
	caseLine     int
	total        int
	builder      string
	build        buildSettings
	runner       string
	runSettings  *section // run_config, nil without one
	shared       runSettings
	groups       []groupSpec
	runs         []runSpec
	declaredRuns bool
}

// buildSettings are build_config and build, of the whole or of a group.
type buildSettings struct {
	config       *section
	selectors    []string
	dependencies []dependency
}

// dependency is a module that is to be another one, or another version.
type dependency struct {
	module, target, version string
	line                    int
}

// runSettings are what instances are handed.
type runSettings struct {
	params   map[string]string
	profiles map[string]string
	artifact string
}

// counted is how many instances there are: a number, or a part of the total.
type counted struct {
	count int
	share float64
}

func (c counted) given() bool { return c.count != 0 || c.share != 0 }

// resources are what one instance asks for, as Kubernetes quantities.
type resources struct {
	cpu, memory string
	line        int
}

// groupSpec is one of [[groups]].
type groupSpec struct {
	id        string
	line      int
	builder   string
	build     buildSettings
	resources resources
	instances counted
	run       runSettings
}

// runSpec is one of [[runs]], or the one that a composition without them stands for.
type runSpec struct {
	id     string
	line   int
	total  int
	params map[string]string
	groups []runGroup
}

// runGroup is one of [[runs.groups]].
type runGroup struct {
	id, of    string
	line      int
	resources resources
	instances counted
	run       runSettings
}

func (im *importer) readComposition() *composition {
	before := len(im.faults)
	text, ok := im.expand(*im.in.Composition)
	if !ok {
		return nil
	}
	s := im.parse(im.in.Composition.Name, []byte(text))
	if s == nil {
		return nil
	}
	c := &composition{file: s.file}
	if meta := s.sub("metadata"); meta != nil {
		c.title, c.author = meta.text("name"), meta.text("author")
		meta.row("name", Mapped, "the pipeline's name")
		meta.row("author", Mapped, "in the description")
		meta.done()
	}
	im.readGlobal(c, s.sub("global"))
	for _, g := range s.subs("groups") {
		c.groups = append(c.groups, im.readGroup(g))
	}
	for _, r := range s.subs("runs") {
		c.declaredRuns = true
		c.runs = append(c.runs, im.readRun(r))
	}
	s.done()
	im.checkComposition(c)
	if len(im.faults) > before {
		return nil
	}
	return c
}

func (im *importer) readGlobal(c *composition, s *section) {
	if s == nil {
		im.fault(c.file, 0, "has no `[global]`: is this a composition?")
		return
	}
	s.text("plan")
	s.row("plan", Needless, "the plan is the folder that is imported")
	c.testCase = s.text("case")
	if v := s.table.Get("case"); v != nil {
		c.caseLine = v.Line
	} else {
		im.fault(c.file, s.line(), "`global.case` is missing")
	}
	s.row("case", Mapped, "the case of every run stage")
	c.total = s.count("total_instances")
	s.row("total_instances", Mapped, "the number that the groups must add up to, and that percentages are of")
	s.value("concurrent_builds", toml.Integer)
	s.row("concurrent_builds", Needless, "artifacts are built side by side as the machine allows")
	s.value("disable_metrics", toml.Boolean)
	s.row("disable_metrics", Needless, "metrics travel by the outputs, nothing is sent while a run is under way")
	c.builder = s.text("builder")
	s.row("builder", Mapped, "the kind of source")
	c.runner = s.text("runner")
	s.row("runner", Needless, "where a run takes place is said by `groundplan run --on`")
	c.runSettings = s.sub("run_config")
	c.build = s.buildSettings()
	c.shared = s.sub("run").runSettings()
	s.done()
}

// buildSettings reads build_config and build.
func (s *section) buildSettings() buildSettings {
	b := buildSettings{config: s.sub("build_config")}
	build := s.sub("build")
	if build == nil {
		return b
	}
	b.selectors = build.texts("selectors")
	build.row("selectors", Mapped, "build tags")
	for _, d := range build.subs("dependencies") {
		one := dependency{d.text("module"), d.text("target"), d.text("version"), d.line()}
		b.dependencies = append(b.dependencies, one)
		d.done()
	}
	build.row("dependencies", Mapped, "replace")
	build.checkBuild(b.selectors, b.dependencies)
	build.done()
	return b
}

// runSettings reads the settings of `run`; s may be nil.
func (s *section) runSettings() runSettings {
	if s == nil {
		return runSettings{}
	}
	r := s.instanceSettings()
	r.artifact = s.text("artifact")
	s.row("artifact", Lost, "an artifact of an earlier build: it is built again, which costs nothing when nothing changed")
	s.done()
	return r
}

func (s *section) instanceSettings() runSettings {
	r := runSettings{params: s.pairs("test_params"), profiles: s.pairs("profiles")}
	s.names("profiles", r.profiles, labelPattern, labelRule)
	s.row("test_params", Mapped, "parameters")
	s.row("profiles", Mapped, "profiles")
	return r
}

func (s *section) instances() counted {
	n := s.sub("instances")
	if n == nil {
		return counted{}
	}
	c := counted{n.count("count"), n.number("percentage")}
	if c.count != 0 && c.share != 0 {
		s.im.fault(s.file, n.line(), "`%s` has a count and a percentage: only one can be meant", n.path)
	}
	if c.share < 0 || c.share > 1 {
		s.im.fault(s.file, n.line(), "`%s` is %v: it goes from 0 to 1", n.name("percentage"), c.share)
	}
	s.row("instances", Mapped, "instances")
	n.row("percentage", Changed, "worked out to a number")
	n.done()
	return c
}

func (s *section) resources() resources {
	r := s.sub("resources")
	if r == nil {
		return resources{}
	}
	out := resources{cpu: r.text("cpu"), memory: r.text("memory"), line: r.line()}
	r.row("cpu", Mapped, "cpu")
	r.row("memory", Mapped, "memory")
	r.done()
	return out
}

func (im *importer) readGroup(s *section) groupSpec {
	g := groupSpec{id: s.text("id"), line: s.line(), builder: s.text("builder"), build: s.buildSettings(),
		resources: s.resources(), instances: s.instances(), run: s.sub("run").runSettings()}
	if g.id == "" {
		im.fault(s.file, s.line(), "`%s` has no `id`", s.path)
	}
	s.row("id", Mapped, "group %s", g.id)
	s.row("builder", Mapped, "the kind of source")
	s.done()
	return g
}

func (im *importer) readRun(s *section) runSpec {
	r := runSpec{id: s.text("id"), line: s.line(), total: s.count("total_instances"), params: s.pairs("test_params")}
	if r.id == "" {
		im.fault(s.file, s.line(), "`%s` has no `id`", s.path)
	}
	s.row("id", Mapped, "run stage %s", r.id)
	s.row("total_instances", Mapped, "the number that percentages are of")
	s.row("test_params", Mapped, "parameters of the run's groups")
	for _, g := range s.subs("groups") {
		one := runGroup{id: g.text("id"), of: g.text("group_id"), line: g.line(), resources: g.resources(),
			instances: g.instances(), run: g.instanceSettings()}
		if one.id == "" {
			im.fault(g.file, g.line(), "`%s` has no `id`", g.path)
		}
		if one.of == "" {
			one.of = one.id
		}
		g.row("id", Mapped, "group %s of run %s", one.id, r.id)
		g.row("group_id", Mapped, "artifact and defaults of group %s", one.of)
		g.done()
		r.groups = append(r.groups, one)
	}
	if len(r.groups) == 0 {
		im.fault(s.file, s.line(), "run `%s` has no `[[runs.groups]]`", r.id)
	}
	s.done()
	return r
}

// checkComposition makes the run that a composition without any stands for, and refuses what doesn't fit together.
func (im *importer) checkComposition(c *composition) {
	if len(c.groups) == 0 {
		im.fault(c.file, 0, "has no `[[groups]]`")
	}
	ids := map[string]int{}
	for _, g := range c.groups {
		if line, twice := ids[g.id]; twice {
			im.fault(c.file, g.line, "group `%s` stands in line %d already", g.id, line)
		}
		ids[g.id] = g.line
	}
	if !c.declaredRuns {
		run := runSpec{id: "run", total: c.total}
		for _, g := range c.groups {
			run.groups = append(run.groups, runGroup{id: g.id, of: g.id, line: g.line})
		}
		c.runs = []runSpec{run}
	}
	runs := map[string]int{}
	for _, r := range c.runs {
		if line, twice := runs[r.id]; twice {
			im.fault(c.file, r.line, "run `%s` stands in line %d already", r.id, line)
		}
		runs[r.id] = r.line
		groups := map[string]int{}
		for _, g := range r.groups {
			if _, there := ids[g.of]; !there {
				im.fault(c.file, g.line, "run `%s` names the group `%s`, which there isn't", r.id, g.of)
			}
			if line, twice := groups[g.id]; twice {
				im.fault(c.file, g.line, "run `%s` has the group `%s` in line %d already", r.id, g.id, line)
			}
			groups[g.id] = g.line
		}
	}
}

func (c *composition) group(id string) groupSpec {
	i := slices.IndexFunc(c.groups, func(g groupSpec) bool { return g.id == id })
	return c.groups[i]
}

// laid fills what is missing or empty in the first from the others, the nearest first: Testground's precedence, where
// an empty value counts as none.
func laid(layers ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, layer := range layers {
		for _, key := range slices.Sorted(maps.Keys(layer)) {
			if out[key] == "" {
				out[key] = layer[key]
			}
		}
	}
	return out
}
