package toml

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxDepth bounds how deep arrays and tables are nested, and how many parts a key has.
const maxDepth = 64

// parser gives the decoded values their order and lines, which the syntax tree knows.
type parser struct {
	unstable.Parser
	newlines []int // their offsets
}

// Parse reads a document. The error is an *Error.
func Parse(text string) (*Table, error) {
	data := []byte(strings.TrimPrefix(text, "\ufeff"))
	decoded := map[string]any{}
	if err := toml.Unmarshal(data, &decoded); err != nil {
		return nil, positioned(err)
	}
	p := &parser{}
	for i, c := range data {
		if c == '\n' {
			p.newlines = append(p.newlines, i)
		}
	}
	root := &Table{Line: 1, decoded: decoded}
	current := root
	for p.Reset(data); p.NextExpression(); {
		var err error
		switch n := p.Expression(); n.Kind {
		case unstable.KeyValue:
			err = p.assign(current, n, 0)
		case unstable.ArrayTable:
			current, err = p.element(root, n)
		default:
			current, err = p.table(root, n)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := p.Error(); err != nil {
		return nil, positioned(err)
	}
	return root, nil
}

func positioned(err error) *Error {
	line, column := 1, 1
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		line, column = wrong.Position()
	}
	return &Error{line, column, strings.TrimPrefix(err.Error(), "toml: ")}
}

// line is that of the first thing in a node whose place is known; outer where there is none.
func (p *parser) line(n *unstable.Node, outer int) int {
	for ; n.Valid(); n = n.Child() {
		if n.Raw.Length > 0 {
			before, _ := slices.BinarySearch(p.newlines, int(n.Raw.Offset))
			return before + 1
		}
	}
	return outer
}

// key is where an expression's key leads: the table that holds its last part. Tables on the way that aren't there yet are
// made; of an array it is the last one.
func (p *parser) key(from *Table, n *unstable.Node) (holder *Table, name string, line int, err error) {
	line = p.line(n, 1)
	var parts []string
	for it := n.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
	}
	if len(parts) > maxDepth {
		return nil, "", 0, &Error{line, 1, fmt.Sprintf("a key has more than %d parts", maxDepth)}
	}
	last := len(parts) - 1
	for _, part := range parts[:last] {
		from = within(from, part, line)
	}
	return from, parts[last], line, nil
}

func within(from *Table, name string, line int) *Table {
	v := from.Get(name)
	if v == nil {
		decoded, _ := from.decoded[name].(map[string]any)
		v = &Value{Kind: TableKind, Table: &Table{Line: line, decoded: decoded}, Line: line}
		from.set(name, v)
	}
	if v.Kind == Array {
		v = v.List[len(v.List)-1]
	}
	return v.Table
}

// table is that of a [header].
func (p *parser) table(root *Table, n *unstable.Node) (*Table, error) {
	holder, name, line, err := p.key(root, n)
	if err != nil {
		return nil, err
	}
	return within(holder, name, line), nil
}

// element is that of a [[header]].
func (p *parser) element(root *Table, n *unstable.Node) (*Table, error) {
	holder, name, line, err := p.key(root, n)
	if err != nil {
		return nil, err
	}
	array := holder.Get(name)
	if array == nil {
		array = &Value{Kind: Array, Line: line}
		holder.set(name, array)
	}
	list, _ := holder.decoded[name].([]any)
	decoded, _ := list[len(array.List)].(map[string]any)
	t := &Table{Line: line, decoded: decoded}
	array.List = append(array.List, &Value{Kind: TableKind, Table: t, Line: line})
	return t, nil
}

func (p *parser) assign(into *Table, n *unstable.Node, depth int) error {
	holder, name, line, err := p.key(into, n)
	if err != nil {
		return err
	}
	v, err := p.value(n.Value(), holder.decoded[name], line, depth)
	if err != nil {
		return err
	}
	v.Line = line
	holder.set(name, v)
	return nil
}

func (p *parser) value(n *unstable.Node, decoded any, outer, depth int) (*Value, error) {
	v := &Value{Line: p.line(n, outer)}
	if depth++; depth > maxDepth {
		return nil, &Error{v.Line, 1, fmt.Sprintf("values are nested more than %d deep", maxDepth)}
	}
	children := n.Children()
	switch decoded := decoded.(type) {
	case string:
		v.Kind, v.Text = String, decoded
	case int64:
		v.Kind, v.Int, v.Text = Integer, decoded, strconv.FormatInt(decoded, 10)
	case float64:
		v.Kind, v.Float, v.Text = Float, decoded, string(n.Data)
	case bool:
		v.Kind, v.Bool, v.Text = Boolean, decoded, string(n.Data)
	case []any:
		v.Kind = Array
		for i := 0; children.Next(); i++ {
			e, err := p.value(children.Node(), decoded[i], v.Line, depth)
			if err != nil {
				return nil, err
			}
			v.List = append(v.List, e)
		}
	case map[string]any:
		v.Kind, v.Table = TableKind, &Table{Line: v.Line, decoded: decoded}
		for children.Next() {
			if err := p.assign(v.Table, children.Node(), depth); err != nil {
				return nil, err
			}
		}
	default:
		v.Kind, v.Text = Time, string(n.Data)
	}
	return v, nil
}
