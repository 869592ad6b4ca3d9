package pipelines

import (
	"slices"
	"strings"
)

// scope is what the expressions of one spliced file see: the file's own parameters, and everything of the pipeline.
type scope struct {
	doc        *Document
	src        *source
	parameters []entry[parameterSyntax]
	// with and parent are set for an included file: the values that it was given, and whose names those may use.
	with   map[string]value
	parent *scope
	index  map[string]int // of parameters
}

func newScope(doc *Document, src *source, parameters []entry[parameterSyntax]) *scope {
	s := &scope{doc: doc, src: src, parameters: parameters, index: make(map[string]int, len(parameters))}
	for i, p := range parameters {
		s.index[p.key] = i
	}
	return s
}

func (s *scope) parameter(name string) (*parameterSyntax, bool) {
	i, ok := s.index[name]
	if !ok {
		return nil, false
	}
	return &s.parameters[i].value, true
}

// scopeNames are the names that an expression in a context of a scope may use.
type scopeNames struct {
	*scope
	context context
}

// seen lists the roots that a context sees.
func (c context) seen() []string {
	switch c {
	case contextGroup:
		return []string{"parameters", "matrix", "env"}
	case contextExclude:
		return []string{"matrix", "env"}
	case contextStage:
		return []string{"parameters", "matrix", "groups", "env"}
	case contextSecret:
		return []string{"secrets"}
	}
	return []string{"parameters", "matrix", "groups", "stages", "metrics", "outcomes", "env"}
}

// typeOf implements names.
func (n scopeNames) typeOf(r reference) (kind, *problem) {
	if !slices.Contains(n.context.seen(), r.root) {
		return "", hidden(r, n.context)
	}
	if p := checkLength(r); p != nil {
		return "", p
	}
	first := r.segments[0]
	switch r.root {
	case "parameters":
		if p, ok := n.parameter(first); ok {
			return p.inferred, nil
		}
		return "", unknown("parameter", first, keysOf(n.parameters))
	case "matrix":
		if k, ok := n.doc.axisKinds[first]; ok {
			return k, nil
		}
		return "", unknown("axis of the matrix", first, n.doc.axisNames())
	case "env":
		if slices.Contains(texts(n.doc.syntax.env), first) {
			return kindString, nil
		}
		return "", problemf(nearest(first, texts(n.doc.syntax.env)), "the variable `%s` is not listed under the top-level `env`", clip(first))
	case "secrets":
		return kindString, nil
	case "groups":
		if !n.doc.isGroup(first) {
			return "", unknown("group", first, n.doc.groupNames())
		}
		return fieldKind(r, groupFields)
	case "outcomes":
		if !n.doc.isGroup(first) {
			return "", unknown("group", first, n.doc.groupNames())
		}
		return fieldKind(r, outcomeFields)
	case "stages":
		if n.doc.stage(first) == nil {
			return "", unknown("stage", first, n.doc.stageNames())
		}
		return fieldKind(r, stageFields)
	}
	m, p := readMetric(r, n.doc.isGroup)
	if p == nil && m.event != "" {
		p = n.phase(m)
	}
	return m.kind, p
}

// phase checks the event that a metric is asked for the time around of.
func (n scopeNames) phase(m metric) *problem {
	ends, there := n.doc.events[m.event]
	switch {
	case !there:
		return unknown("event", m.event, sortedKeys(n.doc.events))
	case m.phase == PhaseAfter && !ends:
		return problemf("", "nothing is measured after `%s`: it lasts until its stage is over, since it has no `for`, `pause` or `restart`", m.event)
	}
	return nil
}

// hidden explains why a root can't be used.
func hidden(r reference, c context) *problem {
	switch r.root {
	case "secrets":
		return problemf("", "a secret can only be used in the `notify` of a suite, so that no run can print it")
	case "stages", "metrics", "outcomes":
		return problemf("", "`%s` is not known before the run: use it in `when` or `assert`", r.root)
	}
	return problemf("", "`%s` can't be used here, only %s", r.root, strings.Join(c.seen(), ", "))
}

// fieldsOf is how many segments follow a root; metrics have their own rule.
var fieldsOf = map[string]int{"parameters": 1, "matrix": 1, "env": 1, "secrets": 1, "groups": 2, "outcomes": 2, "stages": 2}

func checkLength(r reference) *problem {
	want, fixed := fieldsOf[r.root]
	if len(r.segments) == 0 || len(r.segments) < want && !r.presence {
		shape := map[string]string{"groups": "groups.<name>.instances", "outcomes": "outcomes.<group>.succeeded",
			"stages": "stages.<name>.outcome", "metrics": "metrics.<name>.p95"}[r.root]
		if shape == "" {
			shape = r.root + ".<name>"
		}
		return problemf("", "`%s` is no value by itself: write %s", r.text, shape)
	}
	if fixed && len(r.segments) > want {
		return problemf("", "`%s` has nothing called `%s`", strings.Join(append([]string{r.root}, r.segments[:want]...), "."), r.segments[want])
	}
	return nil
}

func unknown(what, name string, candidates []string) *problem {
	suggestion := nearest(name, candidates)
	if suggestion != "" {
		return problemf(suggestion, "unknown %s `%s`", what, clip(name))
	}
	return problemf("", "unknown %s `%s` (%s)", what, clip(name), known(candidates))
}

// Fields of what expressions see.
var (
	groupFields   = map[string]kind{"instances": kindInt, "region": kindString, "artifact": kindString, "role": kindString}
	outcomeFields = map[string]kind{"succeeded": kindInt, "failed": kindInt, "crashed": kindInt, "silent": kindInt, "killed": kindInt}
	stageFields   = map[string]kind{"outcome": kindString}
)

func fieldKind(r reference, fields map[string]kind) (kind, *problem) {
	if len(r.segments) == 1 {
		return kindBool, nil // inside has(…)
	}
	if k, ok := fields[r.segments[1]]; ok {
		return k, nil
	}
	return "", problemf(nearest(r.segments[1], sortedKeys(fields)), "`%s.%s` has nothing called `%s`, only %s",
		r.root, r.segments[0], clip(r.segments[1]), strings.Join(sortedKeys(fields), ", "))
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// metric is a reference to a figure of a metric.
type metric struct {
	key   string // in Variables.Metrics
	stat  string // "" inside has(metrics.name)
	phase string // one of Phases; "" without event
	event string
	kind  kind
}

// readMetric reads metrics.[group.]name[.during.event].stat, or another phase in the place of during.
func readMetric(r reference, isGroup func(string) bool) (metric, *problem) {
	segments := r.segments
	var m metric
	if len(segments) == 0 {
		return m, checkLength(r)
	}
	m.key, segments = segments[0], segments[1:]
	if isGroup(m.key) && len(segments) > 0 {
		m.key, segments = m.key+"."+segments[0], segments[1:]
	}
	if len(segments) >= 2 && slices.Contains(Phases, segments[0]) {
		m.phase, m.event = segments[0], segments[1]
		m.key, segments = m.key+"."+m.phase+"."+m.event, segments[2:]
	}
	switch {
	case len(segments) == 0 && r.presence:
		m.kind = kindBool
		return m, nil
	case len(segments) == 0:
		return m, problemf("", "`%s` is a metric: write which figure of it, one of %s", r.text, strings.Join(summaryFields, ", "))
	case !slices.Contains(summaryFields, segments[0]):
		return m, problemf(nearest(segments[0], summaryFields), "a metric has no figure `%s`, only %s (a name with dots is written metrics[\"…\"])",
			clip(segments[0]), strings.Join(summaryFields, ", "))
	case len(segments) > 1:
		return m, problemf("", "`%s`: nothing can follow the figure `%s`", r.text, segments[0])
	}
	m.stat, m.kind = segments[0], kindFloat
	if m.stat == "count" {
		m.kind = kindInt
	}
	return m, nil
}

// figure returns one figure of a summary: an int64 or a float64.
func (s Summary) figure(stat string) any {
	if stat == "count" {
		return s.Count
	}
	return s.Figure(stat)
}

// count returns one count by its name in expressions.
func (o Outcomes) count(name string) int64 {
	switch name {
	case "succeeded":
		return int64(o.Succeeded)
	case "failed":
		return int64(o.Failed)
	case "crashed":
		return int64(o.Crashed)
	case "killed":
		return int64(o.Killed)
	}
	return int64(o.Silent)
}

// field returns what expressions see of a group.
func (g Group) field(name string) any {
	switch name {
	case "instances":
		return int64(g.Instances)
	case "region":
		return g.Region
	case "artifact":
		return g.Artifact
	}
	return g.Role
}
