package pipelines

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// frozen gives the text of a `when` or `assert` as it is evaluated later, by Evaluate, which sees the resolved pipeline
// only: there a parameter's value no longer tells its type, and those of included files are gone. So a name that would be
// read differently is replaced by its value; `parameters.rtt` becomes `duration("80ms")`.
func (r *resolver) frozen(in *scope, e *expression) string {
	if e == nil {
		return ""
	}
	if e.compiled == nil {
		r.tainted = true
		return e.text
	}
	var b strings.Builder
	last := 0
	for _, s := range e.compiled.slots {
		v, ok := r.lookup(in, s.reference)
		local := s.root == "parameters" && in.parent != nil
		text := ""
		switch {
		case s.root != "parameters" && s.root != "matrix":
		case s.presence && local:
			text = strconv.FormatBool(ok)
		case s.presence || !ok || !local && readsBack(v):
		default:
			text = literalText(v)
		}
		if text != "" {
			b.WriteString(e.text[last:s.start] + text)
			last = s.end
		}
	}
	return b.String() + e.text[last:]
}

// readsBack says whether the plain form of a value, once it has been through JSON, is still of the same type.
func readsBack(v any) bool {
	switch v := v.(type) {
	case bool, string:
		return true
	case int64:
		return v >= -1<<53 && v <= 1<<53
	case float64:
		return v != math.Trunc(v)
	}
	return false
}

// literalText writes a value as an expression.
func literalText(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return text
	case Duration:
		return fmt.Sprintf("duration(%q)", v.String())
	case Size:
		return fmt.Sprintf("bytes(%q)", v.String())
	case Bandwidth:
		return fmt.Sprintf("bandwidth(%q)", v.String())
	case Share:
		return fmt.Sprintf("share(%q)", v.String())
	}
	return fmt.Sprint(v)
}

// Inputs is what Evaluate sees of a resolved pipeline.
type Inputs struct {
	Parameters map[string]any
	Cell       map[string]any
	Env        map[string]string
	Groups     []Group
}

// Evaluate works out a `when` or an `assert` of a resolved pipeline. The explanation has the value of each name used,
// `metrics.rtt.p95 = 2.41`. A metric that nobody reported is an error, which lists those that are known; so is an
// expression that was never checked and is wrong.
func Evaluate(expr string, in Inputs, v Variables) (holds bool, explanation string, err error) {
	names := inputNames{in, v}
	c, faults := compile(expr, kindBool, names.isGroup, names)
	if faults != nil {
		var all []error
		for _, f := range faults {
			text := f.message
			if f.suggestion != "" {
				text += fmt.Sprintf(" (did you mean `%s`?)", f.suggestion)
			}
			all = append(all, errors.New(text))
		}
		return false, "", fmt.Errorf("evaluating `%s`: %w", clip(expr), errors.Join(all...))
	}
	result, _, err := c.eval(names.lookup)
	explanation = names.explain(c)
	if err != nil {
		if missing := names.missing(c); missing != nil {
			err = missing
		}
		return false, explanation, fmt.Errorf("evaluating `%s`: %w", clip(expr), err)
	}
	return result == true, explanation, nil
}

// inputNames are the names of a run that has been.
type inputNames struct {
	in Inputs
	v  Variables
}

func (n inputNames) group(name string) (Group, bool) {
	i := slices.IndexFunc(n.in.Groups, func(g Group) bool { return g.Name == name })
	if i < 0 {
		return Group{}, false
	}
	return n.in.Groups[i], true
}

func (n inputNames) isGroup(name string) bool { _, ok := n.group(name); return ok }

func (n inputNames) groupNames() []string {
	var all []string
	for _, g := range n.in.Groups {
		all = append(all, g.Name)
	}
	return all
}

// typeOf implements names.
func (n inputNames) typeOf(r reference) (kind, *problem) {
	if r.root == "secrets" {
		return "", hidden(r, contextVerdict)
	}
	if p := checkLength(r); p != nil {
		return "", p
	}
	first := r.segments[0]
	switch r.root {
	case "parameters", "matrix":
		values, what := n.in.Parameters, "parameter"
		if r.root == "matrix" {
			values, what = n.in.Cell, "axis of the matrix"
		}
		v, ok := values[first]
		if !ok && !r.presence {
			return "", unknown(what, first, sortedKeys(values))
		}
		return plainKind(v), nil
	case "env":
		return kindString, nil
	case "groups", "outcomes":
		if !n.isGroup(first) {
			return "", unknown("group", first, n.groupNames())
		}
		if r.root == "groups" {
			return fieldKind(r, groupFields)
		}
		return fieldKind(r, outcomeFields)
	case "stages":
		return fieldKind(r, stageFields)
	}
	m, p := readMetric(r, n.isGroup)
	return m.kind, p
}

// plainKind tells the type of a plain value; a whole number is an integer, whatever JSON made of it.
func plainKind(v any) kind {
	switch v := normal(v).(type) {
	case bool:
		return kindBool
	case int64:
		return kindInt
	case float64:
		_ = v
		return kindFloat
	}
	return kindString
}

// normal undoes what JSON does to integers.
func normal(v any) any {
	switch v := v.(type) {
	case int:
		return int64(v)
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<62 {
			return int64(v)
		}
	}
	return v
}

func (n inputNames) lookup(r reference) (any, bool) {
	first := r.segments[0]
	switch r.root {
	case "parameters":
		v, ok := n.in.Parameters[first]
		return normal(v), ok
	case "matrix":
		v, ok := n.in.Cell[first]
		return normal(v), ok
	case "env":
		v, ok := n.in.Env[first]
		return v, ok || !r.presence
	case "stages":
		v, ok := n.v.Stages[first]
		return v, ok
	}
	if r.root == "metrics" {
		m, _ := readMetric(r, n.isGroup)
		s, ok := n.v.Metrics[m.key]
		return s.figure(m.stat), ok
	}
	g, ok := n.group(first)
	if !ok || len(r.segments) < 2 {
		return true, ok
	}
	if r.root == "groups" {
		return g.field(r.segments[1]), true
	}
	return n.v.Outcomes[first].count(r.segments[1]), true
}

// explain lists the names of an expression with their values.
func (n inputNames) explain(c *compiled) string {
	var parts []string
	for _, s := range c.slots {
		v, ok := n.lookup(s.reference)
		part := s.text + " = " + textOf(v)
		if t, isText := v.(string); isText {
			part = s.text + " = " + strconv.Quote(t)
		}
		if !ok {
			part = s.text + " is missing"
		} else if s.presence {
			part = s.text + " is there"
		}
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ", ")
}

// missing says which names have no value.
func (n inputNames) missing(c *compiled) error {
	var all []error
	for _, s := range c.slots {
		if _, ok := n.lookup(s.reference); ok || s.presence {
			continue
		}
		switch s.root {
		case "metrics":
			m, _ := readMetric(s.reference, n.isGroup)
			p := unknown("metric", m.key, sortedKeys(n.v.Metrics))
			text := p.message + ": no instance reported it"
			if p.suggestion != "" {
				text += fmt.Sprintf(" (did you mean `%s`?)", p.suggestion)
			}
			all = append(all, errors.New(text))
		case "stages":
			all = append(all, fmt.Errorf("the stage `%s` has not ended (%s)", s.segments[0], known(sortedKeys(n.v.Stages))))
		default:
			all = append(all, fmt.Errorf("`%s` has no value", s.text))
		}
	}
	return errors.Join(all...)
}
