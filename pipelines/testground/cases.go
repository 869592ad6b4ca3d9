package testground

import (
	"fmt"
	"strconv"
	"strings"
)

// cases makes a pipeline of every test case: what `testground run single` does, with its flags as parameters.
func (im *importer) cases(m *manifest) []*pipeline {
	builder := im.chooseBuilder(m, "", 0, im.in.Manifest.Name)
	if builder == "" {
		return nil
	}
	im.unused(m, map[string]bool{builder: true}, "")
	src := im.sourceOf(builder, settingsOf(find(m.builders, builder)), buildSettings{})
	r := im.runnerOf(m, "", nil)
	files, pipelineNames := allocator{}, allocator{}
	var made []*pipeline
	for _, c := range m.cases {
		name := withoutRepeat(m.name, c.name)
		p := &pipeline{
			name: pipelineNames.name(identifier(name, "plan")), file: files.name(identifier(c.name, "case")) + ".yaml",
			about:     fmt.Sprintf("Test case %s of Testground's plan %s, for %s.", c.name, m.name, c.bounds()),
			artifacts: []artifact{{identifier(m.name, "plan"), src}},
		}
		p.groups = []group{im.single(m, c, r, src)}
		p.runs = []stage{{name: "run", testCase: c.name, timeout: r.timeout, why: r.why}}
		im.parametersOf(p, c)
		made = append(made, p)
	}
	return made
}

// withoutRepeat names a case of a plan, once where both have the same name.
func withoutRepeat(plan, name string) string {
	if plan == name {
		return name
	}
	return plan + "-" + name
}

// single is the one group that `testground run single` makes, and calls so.
func (im *importer) single(m *manifest, c testCase, r runner, src source) group {
	g := group{name: "single", artifact: identifier(m.name, "plan"), instances: "=parameters.instances",
		ports: r.ports, env: r.env}
	g.cpu, g.memory = im.quantities(resources{}, r)
	im.outcomeOf(&g, src, c)
	return g
}

// parametersOf declares the parameters of a case, and hands them to its run.
func (im *importer) parametersOf(p *pipeline, c testCase) {
	taken := allocator{separator: "_"}
	taken.name("instances")
	p.parameters = append(p.parameters, parameter{name: "instances", value: strconv.Itoa(max(c.usual, 1)), about: c.bounds()})
	for _, param := range c.params {
		if !labelPattern.MatchString(param.name) {
			im.fault(im.in.Manifest.Name, c.line, "the parameter %q of case %s can't be handed over: %s", param.name, c.name, labelRule)
			continue
		}
		name := taken.name(strings.NewReplacer(".", "_", "-", "_").Replace(param.name))
		one := parameter{name: name, value: strconv.Quote(param.value), about: param.about}
		if param.number {
			one.value = param.value
		}
		if param.missing {
			one.kind, one.about = "string", join(param.about, "the manifest has no default", "; ")
		}
		p.parameters = append(p.parameters, one)
		p.runs[0].params = append(p.runs[0].params, field{quoted(param.name), "=parameters." + name})
		p.check(param.name, param.value)
	}
}

// check notes what Testground's packed form of parameters can't carry: there it is dropped without a word.
func (p *pipeline) check(name, value string) {
	if strings.ContainsAny(name+value, "=|") {
		for i := range p.groups {
			p.groups[i].unpackable = append(p.groups[i].unpackable, name)
		}
	}
}

// outcomeOf decides who tells about success: the report, except where the program can't give one.
func (im *importer) outcomeOf(g *group, src source, c testCase) {
	if src.kind != "go" {
		return
	}
	row := Row{File: im.in.Manifest.Name, Line: c.line, Key: "case " + c.name, State: Changed}
	switch im.program.caseOf(src.module, src.program, c.name) {
	case silent:
		g.outcome = "exit"
		row.Became = "outcome: exit: the program has nothing of the SDK that reports outcomes"
	case absent:
		row.Became = "the program has no case of this name: it panics"
	case plain:
		row.State = Mapped
		row.Became = "a TestCaseFn: its outcome is read from its stdout, where Testground misses it unless the plan attaches a sync client"
	default:
		return
	}
	im.report.add(row)
}

// unused notes the builders and runners of the manifest that nothing uses.
func (im *importer) unused(m *manifest, used map[string]bool, runner string) {
	for _, b := range m.builders {
		if !used[b.name] {
			im.report.add(Row{b.settings.file, b.settings.line(), b.settings.path, Needless, "another builder is used"})
		}
	}
	if runner == "" {
		runner = m.runner
	}
	for i, r := range m.runners {
		if r.name != runner && (runner != "" || i > 0) {
			im.report.add(Row{r.settings.file, r.settings.line(), r.settings.path, Needless, "another runner's settings are used"})
		}
	}
}
