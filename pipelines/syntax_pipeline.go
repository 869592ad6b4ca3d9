package pipelines

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// context says what the expressions of a place may name; empty: no expression can stand there.
type context string

const (
	contextGroup   context = "group"   // parameters, matrix, env
	contextStage   context = "stage"   // and groups
	contextVerdict context = "verdict" // and what a run gave: stages, metrics, outcomes
	contextExclude context = "exclude" // matrix, env
	contextSecret  context = "secret"  // secrets
)

// pipelineSyntax is a pipeline file.
type pipelineSyntax struct {
	located
	name        name
	description value
	seed        *uint64
	instances   value
	env         []name
	parameters  []entry[parameterSyntax]
	matrix      *matrixSyntax
	groups      []entry[groupSyntax]
	stages      []stageItem
}

// stagesSyntax is a file that is included.
type stagesSyntax struct {
	located
	parameters []entry[parameterSyntax]
	stages     []stageItem
}

var pipelineObject = &object[pipelineSyntax]{
	name: "pipeline", doc: "A pipeline: what takes part and what is done, in order.",
	fields: []field[pipelineSyntax]{
		key("pipeline", "The document's kind and its name.", pipelineName,
			func(p *pipelineSyntax) *name { return &p.name }).required(),
		key("description", "What the pipeline shows, for people.", proseForm,
			func(p *pipelineSyntax) *value { return &p.description }),
		key("seed", "Where every random choice of a run comes from: the same seed gives the same choices.", form[*uint64](seedForm{}),
			func(p *pipelineSyntax) **uint64 { return &p.seed }).
			defaultsTo("derived from the name and the parameters"),
		key("instances", "What the groups must add up to; refused when they don't.", totalForm,
			func(p *pipelineSyntax) *value { return &p.instances }),
		key("env", "The environment variables that expressions may name as `env.NAME`; one that isn't set is empty.",
			list[name]{elem: environName}, func(p *pipelineSyntax) *[]name { return &p.env }),
		key("parameters", "Typed parameters by name, overridden with `--set name=value`, a matrix or a suite.",
			parametersForm, func(p *pipelineSyntax) *[]entry[parameterSyntax] { return &p.parameters }),
		key("matrix", "One child run per combination of values.", pointer[matrixSyntax]{matrixObject},
			func(p *pipelineSyntax) **matrixSyntax { return &p.matrix }),
		key("groups", "Who takes part: sets of like instances by name.", groupsForm,
			func(p *pipelineSyntax) *[]entry[groupSyntax] { return &p.groups }),
		key("stages", "What is done. A stage without `needs` needs the one before it; stages with no path between them run side by side.",
			list[stageItem]{elem: stageItemForm{}}, func(p *pipelineSyntax) *[]stageItem { return &p.stages }).required(),
	},
}

var stagesObject = &object[stagesSyntax]{
	name: "included file", doc: "A file that `include` splices in. Its expressions see its own parameters, not those of the pipeline.",
	fields: []field[stagesSyntax]{
		key("parameters", "Parameters of the file, given with `with`.", parametersForm,
			func(s *stagesSyntax) *[]entry[parameterSyntax] { return &s.parameters }),
		key("stages", "The stages that take the place of the `include`.", list[stageItem]{elem: stageItemForm{}},
			func(s *stagesSyntax) *[]stageItem { return &s.stages }).required(),
	},
}

// totalForm is worked out with the stages, once the groups stand.
var totalForm = inContext[value]{contextGroup, intForm(1)}

// inContext lets expressions inside a form name things.
type inContext[V any] struct {
	context context
	form    form[V]
}

func (c inContext[V]) decode(d *decoder, n *yaml.Node) V {
	defer func(before context) { d.context = before }(d.context)
	d.context = c.context
	return c.form.decode(d, n)
}
func (c inContext[V]) describe() *description { return c.form.describe() }

// seedForm is an unsigned 64-bit number.
type seedForm struct{}

func (seedForm) decode(d *decoder, raw *yaml.Node) *uint64 {
	n := d.enter(raw)
	if n == nil {
		return nil
	}
	defer d.leave()
	v, err := strconv.ParseUint(strings.ReplaceAll(n.Value, "_", ""), 0, 64)
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!str" || err != nil {
		d.fault(raw, "expected a seed (an integer from 0 to 18446744073709551615), found %s", nodeKind(n))
		return nil
	}
	return &v
}

func (seedForm) describe() *description {
	zero := int64(0)
	return &description{kind: kindInt, literal: true, min: &zero}
}

// parameterSyntax is a parameter, in its short or its long form.
type parameterSyntax struct {
	located
	kindName    value
	fallback    value
	description value
	enum        []value
	// inferred is the type of the short form's default.
	inferred kind
}

var parametersForm = mapping[parameterSyntax]{
	what: "parameter", keys: identifierPattern, rule: identifierRule,
	elem: either[parameterSyntax]{parameterShort{}, parameterObject},
}

var parameterObject = &object[parameterSyntax]{
	name: "parameter", doc: "A parameter in its long form. The short form is just a default, whose type is taken: `80ms` is a duration, `\"80ms\"` in quotes a text.",
	fields: []field[parameterSyntax]{
		key("type", "The type of the value.", literalEnum(parameterKinds...),
			func(p *parameterSyntax) *value { return &p.kindName }).defaultsTo("that of the default"),
		key("default", "The value unless another is given; without one, a run must be given a value.", form[value](anyForm{}),
			func(p *parameterSyntax) *value { return &p.fallback }),
		key("description", "What it is for.", proseForm, func(p *parameterSyntax) *value { return &p.description }),
		key("enum", "The values that are allowed.", list[value]{elem: anyForm{}},
			func(p *parameterSyntax) *[]value { return &p.enum }),
	},
	check: checkParameter,
}

// parameterShort is a default alone.
type parameterShort struct{}

func (parameterShort) decode(d *decoder, raw *yaml.Node) parameterSyntax {
	p := parameterSyntax{located: located{place: d.at(raw)}, fallback: anyForm{}.decode(d, raw)}
	if t, ok := p.fallback.literal.(typed); ok {
		p.inferred, p.fallback.literal = t.kind, t.value
	}
	return p
}

func (parameterShort) describe() *description { return anyForm{}.describe() }

// anyForm is a literal of a type that is found out later: it holds a typed.
type anyForm struct{}

// typed is a literal with the type it seems to have and the node it came from.
type typed struct {
	kind  kind
	value any
	node  *yaml.Node
}

var anyScalar = &scalar{kind: kindText, literal: true}

func (anyForm) decode(d *decoder, raw *yaml.Node) value {
	v := value{at: d.at(raw), form: anyScalar}
	n := d.enter(raw)
	if n == nil {
		return v
	}
	defer d.leave()
	if n.Kind != yaml.ScalarNode {
		d.fault(raw, "expected a single value, found %s", nodeKind(n))
		return v
	}
	if strings.HasPrefix(n.Value, "=") {
		d.fault(raw, "no expression can stand here: write the value itself")
		return v
	}
	k, literal, err := inferNode(n)
	if err != nil {
		d.fault(raw, "%v", err)
		return v
	}
	v.literal = typed{k, literal, n}
	return v
}

func (anyForm) describe() *description { return &description{kind: "any", literal: true} }

// as reads the literal again as the kind that it is meant to have.
func (v value) as(faults *collector, k kind) any {
	t, ok := v.literal.(typed)
	if !ok {
		return nil
	}
	literal, err := k.parseNode(t.node)
	if err != nil {
		faults.faultf(v.at, "%v", err)
		return nil
	}
	return literal
}

// checkParameter settles the type of the long form, and reads default and enum as that type.
func checkParameter(d *decoder, p *parameterSyntax) {
	if text, ok := p.kindName.literal.(string); ok {
		p.inferred = kind(text)
	} else if t, ok := p.fallback.literal.(typed); ok {
		p.inferred = t.kind
	} else if len(p.enum) > 0 {
		if t, ok := p.enum[0].literal.(typed); ok {
			p.inferred = t.kind
		}
	}
	if p.inferred == "" {
		if !p.kindName.written() && !p.fallback.written() {
			d.faults.faultf(p.place, "a parameter needs a `type` or a `default`")
		}
		p.inferred = kindString
		return
	}
	if len(p.enum) > maxAxis {
		d.faults.faultf(p.key("enum"), "an enum has at most %d values, this one has %d", maxAxis, len(p.enum))
		p.enum = p.enum[:maxAxis]
	}
	p.fallback.literal = p.fallback.as(d.faults, p.inferred)
	for i := range p.enum {
		p.enum[i].literal = p.enum[i].as(d.faults, p.inferred)
	}
	if err := p.allows(p.fallback.literal); p.fallback.literal != nil && err != nil {
		d.faults.faultf(p.fallback.at, "the default %v", err)
	}
}

// allows checks a value of the right type against the enum.
func (p *parameterSyntax) allows(v any) error {
	if len(p.enum) == 0 {
		return nil
	}
	var choices []string
	for _, e := range p.enum {
		if e.literal == v {
			return nil
		}
		if e.literal != nil {
			choices = append(choices, textOf(e.literal))
		}
	}
	return fmt.Errorf("`%s` is not one of %s", clip(textOf(v)), strings.Join(choices, ", "))
}

// matrixSyntax is one child run per combination.
type matrixSyntax struct {
	located
	axes        []entry[[]value]
	include     [][]entry[value]
	exclude     []excludeSyntax
	maxParallel value
}

// excludeSyntax is a row of values or an expression.
type excludeSyntax struct {
	row  []entry[value]
	when *expression
}

var rowForm = mapping[value]{what: "axis", keys: identifierPattern, rule: identifierRule, elem: anyForm{}}

var matrixObject = &object[matrixSyntax]{
	name: "matrix", doc: "The combinations of the values of all axes. An axis that has the name of a parameter sets it.",
	fields: []field[matrixSyntax]{
		key("axes", "Axis to its values. An expression names the cell's value as `matrix.<axis>`.",
			mapping[[]value]{what: "axis", keys: identifierPattern, rule: identifierRule, elem: list[value]{elem: anyForm{}}},
			func(m *matrixSyntax) *[]entry[[]value] { return &m.axes }).required(),
		key("exclude", "Combinations to leave out: rows of values that match when all of theirs do, or expressions over `matrix`.",
			list[excludeSyntax]{elem: either[excludeSyntax]{
				converted[*expression, excludeSyntax]{condition{contextExclude}, func(e *expression) excludeSyntax { return excludeSyntax{when: e} }},
				converted[[]entry[value], excludeSyntax]{rowForm, func(r []entry[value]) excludeSyntax { return excludeSyntax{row: r} }},
			}},
			func(m *matrixSyntax) *[]excludeSyntax { return &m.exclude }),
		key("include", "Rows added after `exclude`: one that names every axis is a further combination; one that names fewer sets further parameters in the combinations it matches.",
			list[[]entry[value]]{elem: rowForm}, func(m *matrixSyntax) *[][]entry[value] { return &m.include }),
		key("maxParallel", "How many child runs there are at once.", &scalar{kind: kindInt, literal: true, min: ptr(int64(1))},
			func(m *matrixSyntax) *value { return &m.maxParallel }).defaultsTo("1"),
	},
}

func ptr[T any](v T) *T { return &v }

// groupSyntax is a group; each value falls back to that of the group it extends.
type groupSyntax struct {
	located
	extends    name
	artifact   name
	instances  value
	region     name
	cpu        value
	memory     value
	role       value
	parameters []entry[value]
	outcome    value
	args       []value
	env        []entry[value]
	ports      []entry[value]
	profiles   []entry[value]
	testground value
}

var groupsForm = mapping[groupSyntax]{what: "group", keys: namePattern, rule: nameRule, elem: groupObject}

var groupObject = &object[groupSyntax]{
	name: "group", doc: "A set of like instances.", context: contextGroup,
	fields: []field[groupSyntax]{
		key("extends", "A group whose keys this one takes over; `parameters`, `env`, `ports` and `profiles` are laid over key by key.",
			groupName, func(g *groupSyntax) *name { return &g.extends }),
		key("artifact", "What the instances run: a name under some `build`. Needed, here or in the group that is extended.", artifactName,
			func(g *groupSyntax) *name { return &g.artifact }),
		key("instances", "How many there are. Needed, here or in the group that is extended.", intForm(0),
			func(g *groupSyntax) *value { return &g.instances }),
		key("region", "The region that the instances are in, for `regions` and links.", regionName,
			func(g *groupSyntax) *name { return &g.region }),
		key("cpu", "What one instance asks for: `50m` is 50 thousandths of a core.", coresForm,
			func(g *groupSyntax) *value { return &g.cpu }).defaultsTo("nothing"),
		key("memory", "What one instance asks for.", sizeForm, func(g *groupSyntax) *value { return &g.memory }).defaultsTo("nothing"),
		key("role", "A free text that the instance reads as TEST_INSTANCE_ROLE.", stringForm,
			func(g *groupSyntax) *value { return &g.role }),
		key("parameters", "Handed to every instance, as text; the `params` of a run are laid over them.", paramsForm,
			func(g *groupSyntax) *[]entry[value] { return &g.parameters }),
		key("outcome", "Who decides about success. `report`: an instance that reports no outcome has failed. `exit`: the exit status decides, and a reported failure still fails.",
			enumForm(OutcomeReport, OutcomeExit), func(g *groupSyntax) *value { return &g.outcome }).defaultsTo(OutcomeReport),
		key("args", "Arguments after the artifact's own.", list[value]{elem: textForm},
			func(g *groupSyntax) *[]value { return &g.args }),
		key("env", "Environment variables of the instances.",
			mapping[value]{what: "variable", keys: environPattern, rule: environRule, elem: textForm},
			func(g *groupSyntax) *[]entry[value] { return &g.env }),
		key("ports", "Label to port: the instance reads each as `<LABEL>_PORT`.",
			mapping[value]{what: "port", keys: environPattern, rule: environRule, elem: portForm},
			func(g *groupSyntax) *[]entry[value] { return &g.ports }),
		key("profiles", "What is profiled, handed over as TEST_CAPTURE_PROFILES: `{cpu: \"\", heap: 30s}`.",
			mapping[value]{what: "profile", keys: labelPattern, rule: "it has only letters, digits, dots, _ and -", elem: textForm},
			func(g *groupSyntax) *[]entry[value] { return &g.profiles }),
		key("testground", "Whether the parameters must pass through TEST_INSTANCE_PARAMS, whose values can't hold `=` or `|`.", boolForm,
			func(g *groupSyntax) *value { return &g.testground }).defaultsTo("true"),
	},
}

var paramsForm = mapping[value]{what: "parameter", keys: labelPattern,
	rule: "it begins with a letter or _ and has at most 63 letters, digits, dots, _ and -", elem: textForm}

var portForm = &scalar{kind: kindInt, min: ptr(int64(1)), allow: func(v any) error {
	if n, ok := v.(int64); ok && n > 65535 {
		return fmt.Errorf("%d is not a port (1 to 65535)", n)
	}
	return nil
}}

// inherit fills what the group does not say from the one that it extends.
func (g groupSyntax) inherit(base groupSyntax) groupSyntax {
	if g.artifact.text == "" {
		g.artifact = base.artifact
	}
	if g.region.text == "" {
		g.region = base.region
	}
	for _, v := range []struct {
		own  *value
		from value
	}{
		{&g.instances, base.instances}, {&g.cpu, base.cpu}, {&g.memory, base.memory}, {&g.role, base.role},
		{&g.outcome, base.outcome}, {&g.testground, base.testground},
	} {
		if !v.own.written() {
			*v.own = v.from
		}
	}
	if g.args == nil {
		g.args = base.args
	}
	g.parameters = overlay(base.parameters, g.parameters)
	g.env = overlay(base.env, g.env)
	g.ports = overlay(base.ports, g.ports)
	g.profiles = overlay(base.profiles, g.profiles)
	return g
}

// overlay lays entries over others, key by key.
func overlay[V any](under, over []entry[V]) []entry[V] {
	if len(under) == 0 {
		return over
	}
	index := make(map[string]int, len(under))
	all := slices.Clone(under)
	for i, e := range all {
		index[e.key] = i
	}
	for _, e := range over {
		if i, ok := index[e.key]; ok {
			all[i] = e
		} else {
			all = append(all, e)
		}
	}
	return all
}
