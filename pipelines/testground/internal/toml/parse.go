package toml

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep arrays and tables are nested.
const maxDepth = 64

// parser is where the statements of a document go.
type parser struct {
	scanner
	root, current *Table
	depth         int
	// lineAt is the line of the byte at lineOf: counted on from there, so that a document is counted once.
	lineOf, lineAt int
}

// Parse reads a document. The error is an *Error.
func Parse(text string) (root *Table, err error) {
	p := &parser{scanner: scanner{text: strings.TrimPrefix(text, "\ufeff")}, root: &Table{Line: 1}, lineAt: 1}
	defer func() {
		stop := recover()
		if b, ok := stop.(bail); ok {
			root, err = nil, b.err
		} else if stop != nil {
			panic(stop)
		}
	}()
	if !utf8.ValidString(p.text) {
		p.failAt(invalidAt(p.text), "the file isn't UTF-8")
	}
	p.current = p.root
	for p.space(); !p.end(); p.space() {
		if p.peek() == '[' {
			p.header()
		} else {
			p.assignment(p.current)
		}
		p.endOfLine()
	}
	return p.root, nil
}

func invalidAt(text string) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}

func (p *parser) line() int {
	if p.at > p.lineOf {
		p.lineAt += strings.Count(p.text[p.lineOf:p.at], "\n")
		p.lineOf = p.at
	}
	return p.lineAt
}

// header reads [table] or [[element of an array]] and makes it the current table.
func (p *parser) header() {
	start, line := p.at, p.line()
	array := p.skip("[[")
	if !array {
		p.at++
	}
	key := p.key()
	if array {
		p.expect("]]", "behind the name of an array of tables")
	} else {
		p.expect("]", "behind the name of a table")
	}
	if len(key) > maxDepth {
		p.failAt(start, "the name has more than %d parts", maxDepth)
	}
	parent := p.root
	for _, name := range key[:len(key)-1] {
		parent = p.within(parent, name, start, line)
	}
	name := key[len(key)-1]
	if array {
		p.current = p.element(parent, name, start, line)
	} else {
		p.current = p.table(parent, name, start, line)
	}
}

// within is the table that a header goes through; of an array it is the last one.
func (p *parser) within(parent *Table, name string, start, line int) *Table {
	v := parent.Get(name)
	switch {
	case v == nil:
		t := &Table{Line: line}
		parent.set(name, &Value{Kind: TableKind, Table: t, Line: line})
		return t
	case v.Kind == TableKind && !v.Table.fixed:
		return v.Table
	case v.Kind == Array && !v.fixed:
		return v.List[len(v.List)-1].Table
	}
	p.failAt(start, "`%s` is %s since line %d, and can't be added to", name, v.Kind, v.Line)
	return nil
}

func (p *parser) table(parent *Table, name string, start, line int) *Table {
	v := parent.Get(name)
	if v == nil {
		t := &Table{Line: line, defined: true}
		parent.set(name, &Value{Kind: TableKind, Table: t, Line: line})
		return t
	}
	if v.Kind != TableKind || v.Table.defined || v.Table.dotted || v.Table.fixed {
		p.failAt(start, "`%s` stands in line %d already", name, v.Line)
	}
	v.Table.defined = true
	return v.Table
}

func (p *parser) element(parent *Table, name string, start, line int) *Table {
	v := parent.Get(name)
	if v == nil {
		v = &Value{Kind: Array, Line: line}
		parent.set(name, v)
	} else if v.Kind != Array || v.fixed {
		p.failAt(start, "`%s` is %s since line %d, and can't be added to", name, v.Kind, v.Line)
	}
	t := &Table{Line: line, defined: true}
	v.List = append(v.List, &Value{Kind: TableKind, Table: t, Line: line})
	return t
}

// assignment reads key = value.
func (p *parser) assignment(into *Table) {
	start, line := p.at, p.line()
	key := p.key()
	p.expect("=", "behind the key `"+strings.Join(key, ".")+"`")
	if len(key) > maxDepth {
		p.failAt(start, "the key has more than %d parts", maxDepth)
	}
	for _, name := range key[:len(key)-1] {
		v := into.Get(name)
		if v == nil {
			v = &Value{Kind: TableKind, Table: &Table{Line: line, dotted: true}, Line: line}
			into.set(name, v)
		}
		if v.Kind != TableKind || v.Table.defined || v.Table.fixed {
			p.failAt(start, "`%s` is %s since line %d, and can't be added to", name, v.Kind, v.Line)
		}
		v.Table.dotted = true
		into = v.Table
	}
	name := key[len(key)-1]
	if v := into.Get(name); v != nil {
		p.failAt(start, "`%s` stands in line %d already", name, v.Line)
	}
	p.blanks()
	v := p.value()
	v.Line = line
	into.set(name, v)
}

func (p *parser) value() *Value {
	if p.depth++; p.depth > maxDepth {
		p.fail("values are nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	line := p.line()
	switch c := p.peek(); c {
	case '"', '\'':
		return &Value{Kind: String, Text: p.quoted(), Line: line}
	case '[':
		return p.array(line)
	case '{':
		return p.inlineTable(line)
	}
	return p.bare(line)
}

func (p *parser) array(line int) *Value {
	v := &Value{Kind: Array, Line: line, fixed: true}
	p.at++
	for {
		p.space()
		if p.skip("]") {
			return v
		}
		v.List = append(v.List, p.value())
		p.space()
		if !p.skip(",") && p.peek() != ']' {
			p.fail("expected `,` or `]` in an array, found %s", p.found())
		}
	}
}

// inlineTable reads {…}. As TOML 1.1 will, it allows line breaks and a comma at the end.
func (p *parser) inlineTable(line int) *Value {
	t := &Table{Line: line}
	p.at++
	for {
		p.space()
		if p.skip("}") {
			break
		}
		p.assignment(t)
		p.space()
		if !p.skip(",") && p.peek() != '}' {
			p.fail("expected `,` or `}` in a table, found %s", p.found())
		}
	}
	freeze(t)
	return &Value{Kind: TableKind, Table: t, Line: line}
}

// freeze closes an inline table, with the tables that its dotted keys made.
func freeze(t *Table) {
	t.fixed = true
	for _, e := range t.Entries {
		if e.Value.Kind == TableKind {
			freeze(e.Value.Table)
		}
	}
}

var (
	integerForm = regexp.MustCompile(`^([+-]?(0|[1-9](_?[0-9])*)|0x[0-9a-fA-F](_?[0-9a-fA-F])*|0o[0-7](_?[0-7])*|0b[01](_?[01])*)$`)
	floatForm   = regexp.MustCompile(`^[+-]?(0|[1-9](_?[0-9])*)(\.[0-9](_?[0-9])*)?([eE][+-]?[0-9](_?[0-9])*)?$`)
	timeForm    = regexp.MustCompile(`^([0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?|[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?)$`)
	dateForm    = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)
)

// bare reads what stands without quotes.
func (p *parser) bare(line int) *Value {
	start := p.at
	word := p.word()
	if dateForm.MatchString(word) && p.at+1 < len(p.text) && p.text[p.at] == ' ' && p.text[p.at+1] >= '0' && p.text[p.at+1] <= '9' {
		p.at++
		p.word()
		word = p.text[start:p.at]
	}
	v := &Value{Line: line}
	digits := strings.ReplaceAll(word, "_", "")
	switch {
	case word == "true" || word == "false":
		v.Kind, v.Bool = Boolean, word == "true"
	case integerForm.MatchString(word):
		n, err := strconv.ParseInt(digits, integerBase(digits), 64)
		if err != nil {
			p.failAt(start, "%s doesn't fit into 64 bits", word)
		}
		v.Kind, v.Int = Integer, n
	case floatForm.MatchString(word):
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			p.failAt(start, "%s is too large", word)
		}
		v.Kind, v.Float = Float, n
	case strings.TrimLeft(word, "+-") == "inf" && len(word) <= 4:
		v.Kind, v.Float = Float, math.Inf(1-2*strings.Count(word, "-"))
	case strings.TrimLeft(word, "+-") == "nan" && len(word) <= 4:
		v.Kind, v.Float = Float, math.NaN()
	case timeForm.MatchString(word):
		v.Kind, v.Text = Time, word
	case word == "":
		p.failAt(start, "expected a value, found %s", p.found())
	default:
		p.failAt(start, "`%s` is no value: texts stand in quotes", word)
	}
	return v
}

// integerBase is 0, for the base that the prefix names, where there is one: a decimal number may have leading signs.
func integerBase(digits string) int {
	if len(digits) > 1 && digits[0] == '0' {
		return 0
	}
	return 10
}

func (p *parser) word() string {
	start := p.at
	for !p.end() && !strings.ContainsRune(" \t\r\n,]}#=", rune(p.peek())) {
		p.at++
	}
	return p.text[start:p.at]
}
