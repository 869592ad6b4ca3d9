package pipelines

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// decoder reads the nodes of one file into syntax types. It never stops at a fault, only at a limit.
type decoder struct {
	src     *source
	faults  *collector
	values  int
	aliases int
	depth   int
	stopped bool
	context context
	// exprs are all expressions of the file, in order, for the type check.
	exprs []*expression
}

// form is how something is written: it reads a node, and describes itself for the schema and the reference. The keys
// that a mapping knows, what is suggested for an unknown one, the JSON Schema and docs/pipeline.md all come from forms.
type form[V any] interface {
	decode(d *decoder, n *yaml.Node) V
	describe() *description
}

// description is what schema and reference are made of.
type description struct {
	name    string // of a mapping with fixed keys; empty for others
	doc     string
	fields  []fieldDescription
	elem    *description // of a list or of a mapping with free keys
	list    bool
	keys    string // pattern of free keys
	kind    kind
	literal bool // no expression
	enum    []string
	pattern string
	min     *int64
	options []*description // alternatives
}

type fieldDescription struct {
	name, doc, fallback string
	required            bool
	form                *description
}

func (d *decoder) at(n *yaml.Node) place { return d.src.at(n.Line, n.Column) }

func (d *decoder) fault(n *yaml.Node, format string, args ...any) {
	d.faults.faultf(d.at(n), format, args...)
}

// enter follows an alias and counts; it returns nil once a limit is broken. Each enter that gave a node has a leave.
func (d *decoder) enter(n *yaml.Node) *yaml.Node {
	if d.stopped {
		return nil
	}
	problem := ""
	from := n
	for n.Kind == yaml.AliasNode {
		d.aliases++
		n = n.Alias
	}
	d.values++
	d.depth++
	switch {
	case d.aliases > maxAliases:
		problem = fmt.Sprintf("the file expands more than %d aliases", maxAliases)
	case d.values > maxValues:
		problem = fmt.Sprintf("the file holds more than %d values once its aliases are expanded", maxValues)
	case d.depth > maxDepth:
		problem = fmt.Sprintf("nesting is deeper than the limit of %d", maxDepth)
	case d.faults.full():
		d.stopped = true
		return nil
	}
	if problem != "" {
		d.stopped = true
		d.fault(from, "%s", problem)
		return nil
	}
	return n
}

func (d *decoder) leave() { d.depth-- }

// pair is a key of a mapping and its value.
type pair struct {
	key, value *yaml.Node
}

// pairs lists what a mapping holds: duplicate keys are faults, and merge keys (`<<`) are laid under the others.
func (d *decoder) pairs(n *yaml.Node) []pair {
	own := make([]pair, 0, len(n.Content)/2)
	first := make(map[string]*yaml.Node, len(n.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		for k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		switch {
		case k.Kind != yaml.ScalarNode:
			d.fault(k, "a key must be a plain text, found %s", nodeKind(k))
		case k.ShortTag() == "!!merge":
			merged = append(merged, v)
		case first[k.Value] != nil:
			d.fault(n.Content[i], "the key `%s` stands here twice (first in line %d)", clip(k.Value), first[k.Value].Line)
		default:
			first[k.Value] = k
			own = append(own, pair{k, v})
		}
	}
	for _, m := range merged {
		for _, p := range d.merge(m) {
			if first[p.key.Value] == nil {
				first[p.key.Value] = p.key
				own = append(own, p)
			}
		}
	}
	return own
}

// merge lists what a merge key brings in.
func (d *decoder) merge(n *yaml.Node) []pair {
	from := d.enter(n)
	if from == nil {
		return nil
	}
	defer d.leave()
	switch from.Kind {
	case yaml.MappingNode:
		d.values += len(from.Content)
		return d.pairs(from)
	case yaml.SequenceNode:
		var all []pair
		for _, item := range from.Content {
			all = append(all, d.merge(item)...)
		}
		return all
	}
	d.fault(n, "`<<` merges a mapping or a list of mappings, found %s", nodeKind(from))
	return nil
}

// located is embedded by syntax types that remember where they stood.
type located struct {
	place place
	keys  map[string]place
}

func (l *located) locate(at place, keys map[string]place) { l.place, l.keys = at, keys }

// has says whether the key was written.
func (l *located) has(key string) bool { _, ok := l.keys[key]; return ok }

// key is where a key stood, or the whole when it was not written.
func (l *located) key(name string) place {
	if p, ok := l.keys[name]; ok {
		return p
	}
	return l.place
}

// field is one key of an object.
type field[T any] struct {
	name, doc, fallback string
	isRequired          bool
	read                func(d *decoder, n *yaml.Node, into *T)
	form                func() *description
}

// key makes a field of the form f that is kept where `at` says.
func key[T, V any](name, doc string, f form[V], at func(*T) *V) field[T] {
	return field[T]{
		name: name, doc: doc, form: f.describe,
		read: func(d *decoder, n *yaml.Node, into *T) { *at(into) = f.decode(d, n) },
	}
}

func (f field[T]) required() field[T]              { f.isRequired = true; return f }
func (f field[T]) defaultsTo(text string) field[T] { f.fallback = text; return f }

// object is a mapping with fixed keys.
type object[T any] struct {
	name, doc string
	fields    []field[T]
	// context, when not empty, is what expressions inside may name.
	context context
	// check looks at what holds between the fields.
	check func(d *decoder, v *T)
}

func (o *object[T]) decode(d *decoder, raw *yaml.Node) T {
	var v T
	keys := map[string]place{}
	if l, ok := any(&v).(interface {
		locate(place, map[string]place)
	}); ok {
		l.locate(d.at(raw), keys)
	}
	n := d.enter(raw)
	if n == nil {
		return v
	}
	defer d.leave()
	if n.Kind != yaml.MappingNode {
		d.fault(raw, "expected %s (a mapping of %s), found %s", o.name, o.someKeys(), nodeKind(n))
		return v
	}
	if o.context != "" {
		defer func(before context) { d.context = before }(d.context)
		d.context = o.context
	}
	for _, p := range d.pairs(n) {
		keys[p.key.Value] = d.at(p.key)
		i := slices.IndexFunc(o.fields, func(f field[T]) bool { return f.name == p.key.Value })
		if i < 0 {
			d.faults.suggestf(d.at(p.key), nearest(p.key.Value, o.keys()), "unknown key `%s` in %s", clip(p.key.Value), o.name)
			continue
		}
		o.fields[i].read(d, p.value, &v)
	}
	for _, f := range o.fields {
		if _, ok := keys[f.name]; f.isRequired && !ok && !d.stopped {
			d.fault(raw, "%s needs the key `%s`", o.name, f.name)
		}
	}
	if o.check != nil && !d.stopped {
		o.check(d, &v)
	}
	return v
}

func (o *object[T]) keys() []string {
	names := make([]string, 0, len(o.fields))
	for _, f := range o.fields {
		names = append(names, f.name)
	}
	return names
}

func (o *object[T]) someKeys() string {
	names := o.keys()
	if len(names) > 4 {
		names = append(names[:4:4], "…")
	}
	return strings.Join(names, ", ")
}

func (o *object[T]) describe() *description {
	d := &description{name: o.name, doc: o.doc}
	for _, f := range o.fields {
		d.fields = append(d.fields, fieldDescription{f.name, f.doc, f.fallback, f.isRequired, f.form()})
	}
	return d
}

// pointer makes a form whose value is nil when the key is not written.
type pointer[T any] struct{ form form[T] }

func (p pointer[T]) decode(d *decoder, n *yaml.Node) *T {
	v := p.form.decode(d, n)
	return &v
}
func (p pointer[T]) describe() *description { return p.form.describe() }

// list is a sequence of one form. With orOne a single element may stand for a list of it.
type list[V any] struct {
	elem  form[V]
	orOne bool
}

func (l list[V]) decode(d *decoder, raw *yaml.Node) []V {
	n := d.enter(raw)
	if n == nil {
		return nil
	}
	defer d.leave()
	if n.Kind != yaml.SequenceNode {
		if l.orOne {
			return []V{l.elem.decode(d, raw)}
		}
		d.fault(raw, "expected a list, found %s", nodeKind(n))
		return nil
	}
	items := make([]V, 0, len(n.Content))
	for _, c := range n.Content {
		if d.stopped {
			break
		}
		items = append(items, l.elem.decode(d, c))
	}
	return items
}

func (l list[V]) describe() *description {
	elem := l.elem.describe()
	all := &description{list: true, elem: elem}
	if l.orOne {
		return &description{options: []*description{elem, all}}
	}
	return all
}

// entry is one key of a mapping with free keys.
type entry[V any] struct {
	key   string
	at    place
	value V
}

// mapping is a mapping with free keys, in the order of the file.
type mapping[V any] struct {
	what string // what a key names, for messages
	keys *regexp.Regexp
	rule string // what the keys look like, in words
	elem form[V]
}

func (m mapping[V]) decode(d *decoder, raw *yaml.Node) []entry[V] {
	n := d.enter(raw)
	if n == nil {
		return nil
	}
	defer d.leave()
	if n.Kind != yaml.MappingNode {
		d.fault(raw, "expected a mapping of %ss, found %s", m.what, nodeKind(n))
		return nil
	}
	var all []entry[V]
	for _, p := range d.pairs(n) {
		if d.stopped {
			break
		}
		if m.keys != nil && !m.keys.MatchString(p.key.Value) {
			d.fault(p.key, "`%s` is not the name of a %s: %s", clip(p.key.Value), m.what, m.rule)
		}
		all = append(all, entry[V]{p.key.Value, d.at(p.key), m.elem.decode(d, p.value)})
	}
	return all
}

func (m mapping[V]) describe() *description {
	d := &description{elem: m.elem.describe(), keys: ".*"}
	if m.keys != nil {
		d.keys = m.keys.String()
	}
	return d
}

func keysOf[V any](entries []entry[V]) []string {
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.key)
	}
	return names
}
