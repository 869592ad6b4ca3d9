package testground

import (
	"encoding/json"
	"fmt"

	"github.com/groundplan/groundplan/pipelines/testground/internal/toml"
)

// manifest is a plan's manifest.toml.
type manifest struct {
	name    string
	builder string // the default one
	runner  string
	// builders and runners are in the order of the file.
	builders []configured
	runners  []configured
	cases    []testCase
}

// configured is a builder or runner with its settings.
type configured struct {
	name     string
	settings *section
}

// testCase is one of the plan's.
type testCase struct {
	name     string
	line     int
	min, max int
	usual    int // the default number of instances
	params   []param
}

// param is a parameter of a test case.
type param struct {
	name, kind, about string
	// value is the default as Testground hands it over; number says that the manifest has it as an integer.
	value   string
	number  bool
	missing bool
}

func (im *importer) readManifest() *manifest {
	s := im.parse(im.in.Manifest.Name, im.in.Manifest.Data)
	if s == nil {
		return nil
	}
	m := &manifest{name: s.text("name")}
	if m.name == "" {
		im.fault(s.file, 1, "`name` is missing: is this a Testground manifest?")
		return nil
	}
	s.row("name", Mapped, "name of the artifact, beginning of the pipelines' names")
	if defaults := s.sub("defaults"); defaults != nil {
		m.builder, m.runner = defaults.text("builder"), defaults.text("runner")
		defaults.row("builder", Mapped, "the source that is built where a composition names no builder")
		defaults.row("runner", Needless, "where a run takes place is said by `groundplan run --on`")
		defaults.done()
	}
	m.builders, m.runners = s.configurations("builders"), s.configurations("runners")
	if extra := s.sub("extra_sources"); extra != nil {
		s.row("extra_sources", Needless, "builds see the whole repository; folders outside of it can't be reached")
	}
	for _, c := range s.subs("testcases") {
		m.cases = append(m.cases, im.readCase(c))
	}
	if len(m.cases) == 0 {
		im.fault(s.file, 0, "has no `[[testcases]]`")
	}
	s.done()
	return m
}

func (s *section) configurations(key string) []configured {
	sub := s.sub(key)
	if sub == nil {
		return nil
	}
	var all []configured
	for _, e := range sub.table.Entries {
		if settings := sub.sub(e.Key); settings != nil {
			all = append(all, configured{e.Key, settings})
		}
	}
	return all
}

func (im *importer) readCase(s *section) testCase {
	c := testCase{name: s.text("name"), line: s.line(), min: 1, max: maxInstances}
	if c.name == "" {
		im.fault(s.file, s.line(), "`%s` has no `name`", s.path)
	}
	s.row("name", Mapped, "case %s", c.name)
	if n := s.sub("instances"); n != nil {
		if v := n.count("min"); v > 0 {
			c.min = v
		}
		if v := n.bound("max"); v > 0 {
			c.max = v
		}
		c.usual = n.count("default")
		s.row("instances", Mapped, "%s", im.either("parameter instances, with its bounds in the description", "what the composition's numbers are held against"))
		n.done()
	}
	if c.usual == 0 {
		c.usual = c.min
	}
	if params := s.sub("params"); params != nil {
		for _, e := range params.table.Entries {
			if p := params.sub(e.Key); p != nil {
				c.params = append(c.params, im.readParam(e.Key, p))
			}
		}
	}
	s.done()
	return c
}

// either chooses between what is said of test cases and of a composition.
func (im *importer) either(cases, composition string) string {
	if im.in.Composition != nil {
		return composition
	}
	return cases
}

func (im *importer) readParam(name string, s *section) param {
	p := param{name: name, kind: s.text("type"), about: s.text("desc")}
	if unit := s.text("unit"); unit != "" {
		p.about = join(p.about, "in "+unit, ", ")
	}
	for _, key := range []string{"options", "values"} {
		if choice := s.choice(key); choice != "" {
			p.about = join(p.about, "one of "+choice, "; ")
			const unheld = "Testground doesn't hold values against it"
			if im.in.Composition != nil {
				s.row(key, Needless, unheld)
			} else {
				s.row(key, Changed, "in the description of parameter %s: %s either", p.name, unheld)
			}
		}
	}
	v := s.value("default", toml.String, toml.Integer, toml.Float, toml.Boolean, toml.Array, toml.TableKind, toml.Time)
	switch {
	case v == nil:
		// What Testground makes of a default that isn't there, and plans see.
		p.value, p.missing = "null", true
	case v.Kind == toml.String || v.Kind == toml.Time:
		p.value = v.Text
	default:
		p.number = v.Kind == toml.Integer
		data, err := json.Marshal(v.Native())
		if err != nil {
			im.fault(s.file, v.Line, "`%s` can't be written as text: %v", s.name("default"), err)
		}
		p.value = string(data)
	}
	im.report.add(Row{s.file, s.line(), s.path, Mapped, im.either("parameter "+p.name, "its default is in the groups' parameters")})
	if p.missing {
		im.report.add(Row{s.file, s.line(), s.path + ".default", Changed, "missing: instances are handed the text null, as by Testground"})
	}
	s.done()
	return p
}

func (m *manifest) testCase(name string) (testCase, bool) {
	for _, c := range m.cases {
		if c.name == name {
			return c, true
		}
	}
	return testCase{}, false
}

func find(all []configured, name string) *section {
	for _, c := range all {
		if c.name == name {
			return c.settings
		}
	}
	return nil
}

func names(all []configured) []string {
	var out []string
	for _, c := range all {
		out = append(out, c.name)
	}
	return out
}

func join(a, b, between string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + between + b
}

// bounds says how many instances a case takes.
func (c testCase) bounds() string {
	if c.min == c.max {
		return "exactly " + instances(c.min)
	}
	return fmt.Sprintf("%d to %d instances", c.min, c.max)
}
