// Package toml reads TOML with go-toml, keeping what an importer needs and decoders throw away: the order of keys, and
// the line that each stands in.
package toml

import "fmt"

// Kind is the type of a value.
type Kind int

// The types of TOML.
const (
	String Kind = iota
	Integer
	Float
	Boolean
	Time
	Array
	TableKind
)

var kindNames = [...]string{"a text", "an integer", "a number", "a boolean", "a date or time", "an array", "a table"}

func (k Kind) String() string { return kindNames[k] }

// Value is one value and where it stands.
type Value struct {
	Kind Kind
	// Text is what a String says. Another simple value is as it is written, an Integer in decimal.
	Text  string
	Int   int64
	Float float64
	Bool  bool
	List  []*Value
	Table *Table
	// Line counts from 1.
	Line int
}

// Table is a mapping in the order of the file.
type Table struct {
	Entries []Entry
	// Line is that of the header, or of the first key.
	Line int

	index   map[string]int
	decoded map[string]any
}

// Entry is a key with its value.
type Entry struct {
	Key   string
	Value *Value
}

// Get returns the value of a key, nil when there is none. A nil table has no keys.
func (t *Table) Get(key string) *Value {
	if t == nil {
		return nil
	}
	if i, ok := t.index[key]; ok {
		return t.Entries[i].Value
	}
	return nil
}

func (t *Table) set(key string, v *Value) {
	if t.index == nil {
		t.index = map[string]int{}
	}
	t.index[key] = len(t.Entries)
	t.Entries = append(t.Entries, Entry{key, v})
}

// Error is what is wrong with a document, and where.
type Error struct {
	Line, Column int
	Message      string
}

func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message) }

// Native is the value as plain Go: map[string]any, []any, string, int64, float64, bool. A date or time is its text.
func (v *Value) Native() any {
	switch v.Kind {
	case Integer:
		return v.Int
	case Float:
		return v.Float
	case Boolean:
		return v.Bool
	case Array:
		list := make([]any, 0, len(v.List))
		for _, e := range v.List {
			list = append(list, e.Native())
		}
		return list
	case TableKind:
		return v.Table.Native()
	}
	return v.Text
}

// Native is the table as plain Go.
func (t *Table) Native() map[string]any {
	m := make(map[string]any, len(t.Entries))
	for _, e := range t.Entries {
		m[e.Key] = e.Value.Native()
	}
	return m
}
