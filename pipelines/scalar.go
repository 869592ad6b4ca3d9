package pipelines

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// scalar is the form of a single value: a literal of its kind or, unless literal is set, a CEL expression behind `=`.
type scalar struct {
	kind    kind
	literal bool
	enum    []string
	min     *int64 // of an int
	// allow says what is wrong with a value of the right kind; it sees literals and what expressions gave.
	allow func(v any) error
}

// value is what a scalar was: nothing, a literal, or an expression.
type value struct {
	at   place
	form *scalar
	// literal is nil when nothing (or nothing right) was written.
	literal any
	expr    *expression
}

// written says whether the key was there at all.
func (v value) written() bool { return v.form != nil }

// expression is CEL text, where it stood, and what it may name.
type expression struct {
	text    string
	at      place
	exact   bool // the text stands in the file as it is, so that offsets in it are columns
	context context
	want    kind
	// compiled is set by the type check; nil when it failed.
	compiled *compiled
}

func (s *scalar) decode(d *decoder, raw *yaml.Node) value {
	v := value{at: d.at(raw), form: s}
	n := d.enter(raw)
	if n == nil {
		return v
	}
	defer d.leave()
	if n.Kind != yaml.ScalarNode {
		d.fault(raw, "expected %s, found %s", s.expected(), nodeKind(n))
		return v
	}
	if text, ok := strings.CutPrefix(n.Value, "="); ok && n.ShortTag() == "!!str" {
		if s.literal || d.context == "" {
			d.fault(raw, "no expression can stand here: write the value itself")
			return v
		}
		v.expr = d.expression(n, text, 1, s.kind)
		return v
	}
	literal, err := s.kind.parseNode(n)
	if err == nil {
		err = s.accept(literal)
	}
	if err != nil {
		d.faults.suggestf(v.at, s.suggest(n.Value), "%v", err)
		return v
	}
	v.literal = literal
	return v
}

// expression keeps the text of an expression, which stands `skip` characters into its scalar, for the type check.
func (d *decoder) expression(n *yaml.Node, text string, skip int, want kind) *expression {
	e := &expression{text: text, at: d.at(n), context: d.context, want: want}
	column := n.Column - 1 + skip
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		column++
	}
	if line := []rune(d.src.lineText(n.Line)); column <= len(line) && strings.HasPrefix(string(line[column:]), text) {
		e.at.column, e.exact = column+1, true
	}
	d.exprs = append(d.exprs, e)
	return e
}

func (s *scalar) expected() string {
	if len(s.enum) > 0 {
		return "one of " + strings.Join(s.enum, ", ")
	}
	return s.kind.article()
}

// accept checks a value of the right kind against what the form allows beyond that.
func (s *scalar) accept(v any) error {
	if len(s.enum) > 0 {
		text := textOf(v)
		if !slices.Contains(s.enum, text) {
			return fmt.Errorf("`%s` is not one of %s", clip(text), strings.Join(s.enum, ", "))
		}
	}
	if n, ok := v.(int64); ok && s.min != nil && n < *s.min {
		return fmt.Errorf("%d is too small: at least %d", n, *s.min)
	}
	if s.allow != nil {
		return s.allow(v)
	}
	return nil
}

func (s *scalar) suggest(text string) string {
	if len(s.enum) > 0 {
		return nearest(text, s.enum)
	}
	return ""
}

func (s *scalar) describe() *description {
	return &description{kind: s.kind, literal: s.literal, enum: s.enum, min: s.min}
}

// Forms of single values that many keys share.
var (
	textForm      = &scalar{kind: kindText}
	stringForm    = &scalar{kind: kindString}
	proseForm     = &scalar{kind: kindString, literal: true}
	boolForm      = &scalar{kind: kindBool}
	durationForm  = &scalar{kind: kindDuration, allow: notNegative}
	periodForm    = &scalar{kind: kindDuration, allow: positive}
	shareForm     = &scalar{kind: kindShare}
	sizeForm      = &scalar{kind: kindSize, allow: positive}
	bandwidthForm = &scalar{kind: kindBandwidth, allow: positive}
	coresForm     = &scalar{kind: kindCores}
	filledForm    = &scalar{kind: kindString, allow: notEmpty}
)

// enumForm is a text out of a few.
func enumForm(values ...string) *scalar { return &scalar{kind: kindString, enum: values} }

// literalEnum is a text out of a few that can't be an expression, because what it says is needed to read the file.
func literalEnum(values ...string) *scalar {
	return &scalar{kind: kindString, enum: values, literal: true}
}

// intForm is an integer from least on.
func intForm(least int64) *scalar { return &scalar{kind: kindInt, min: &least} }

func notNegative(v any) error {
	if d, ok := v.(Duration); ok && d < 0 {
		return fmt.Errorf("`%s` is negative", d)
	}
	return nil
}

func positive(v any) error {
	negative := false
	switch v := v.(type) {
	case Duration:
		negative = v <= 0
	case Size:
		negative = v <= 0
	case Bandwidth:
		negative = v <= 0
	}
	if negative {
		return fmt.Errorf("`%s` must be more than 0", plain(v))
	}
	return nil
}

func notEmpty(v any) error {
	if v == "" {
		return fmt.Errorf("the text is empty")
	}
	return nil
}

// Names of things.
var (
	namePattern       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	identifierPattern = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,62}$`)
	labelPattern      = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.-]{0,62}$`)
	environPattern    = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

const (
	nameRule       = "it has 1 to 63 characters out of a-z, 0-9 and -, with a letter or digit at both ends"
	identifierRule = "it begins with a letter or _ and has at most 63 letters, digits and _"
	environRule    = "it begins with a letter or _ and has only letters, digits and _"
)

// name is a literal name and where it stood.
type name struct {
	text string
	at   place
}

// nameForm is the form of a name: of a pipeline, group, stage, artifact, event.
type nameForm struct {
	what    string
	pattern *regexp.Regexp
	rule    string
}

var (
	groupName    = nameForm{"group", namePattern, nameRule}
	stageName    = nameForm{"stage", namePattern, nameRule}
	artifactName = nameForm{"artifact", namePattern, nameRule}
	pipelineName = nameForm{"pipeline", namePattern, nameRule}
	eventName    = nameForm{"event", namePattern, nameRule}
	suiteName    = nameForm{"suite", namePattern, nameRule}
	regionName   = nameForm{"region", regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?$`),
		"it has 1 to 63 letters, digits, dots, _ and -, with a letter or digit at both ends"}
	endName     = nameForm{"group or region", regionName.pattern, regionName.rule}
	environName = nameForm{"variable", environPattern, environRule}
)

func (f nameForm) decode(d *decoder, raw *yaml.Node) name {
	n := d.enter(raw)
	if n == nil {
		return name{}
	}
	defer d.leave()
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode || tag == "!!null" || tag == "!!bool" {
		d.fault(raw, "expected the name of a %s, found %s", f.what, nodeKind(n))
		return name{}
	}
	if !f.pattern.MatchString(n.Value) {
		d.fault(raw, "`%s` is not the name of a %s: %s", clip(n.Value), f.what, f.rule)
		return name{}
	}
	return name{n.Value, d.at(raw)}
}

func (f nameForm) describe() *description {
	return &description{kind: kindString, literal: true, pattern: f.pattern.String()}
}

func texts(names []name) []string {
	all := make([]string, 0, len(names))
	for _, n := range names {
		all = append(all, n.text)
	}
	return all
}

// condition is the form of what is always an expression: `when`, `assert`.
type condition struct{ context context }

func (c condition) decode(d *decoder, raw *yaml.Node) *expression {
	n := d.enter(raw)
	if n == nil {
		return nil
	}
	defer d.leave()
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		d.fault(raw, "expected an expression, found %s", nodeKind(n))
		return nil
	}
	if strings.HasPrefix(n.Value, "=") {
		d.fault(raw, "this is always an expression: leave out the `=` before it")
		return nil
	}
	defer func(before context) { d.context = before }(d.context)
	d.context = c.context
	return d.expression(n, n.Value, 0, kindBool)
}

func (c condition) describe() *description { return &description{kind: "condition", literal: true} }

// either takes a scalar one way and everything else another way.
type either[V any] struct {
	scalar, other form[V]
}

func (e either[V]) decode(d *decoder, raw *yaml.Node) V {
	n := raw
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode {
		return e.scalar.decode(d, raw)
	}
	return e.other.decode(d, raw)
}

func (e either[V]) describe() *description {
	return &description{options: []*description{e.scalar.describe(), e.other.describe()}}
}

// converted makes one form out of another.
type converted[A, B any] struct {
	from form[A]
	to   func(A) B
}

func (c converted[A, B]) decode(d *decoder, n *yaml.Node) B { return c.to(c.from.decode(d, n)) }
func (c converted[A, B]) describe() *description            { return c.from.describe() }
