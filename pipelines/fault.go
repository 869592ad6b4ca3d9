package pipelines

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxFaults is how many faults of one document are kept; a file of nothing but faults must not flood anybody.
	maxFaults = 200
	// snippetWidth is how much of a long line is quoted around the fault, in characters.
	snippetWidth = 120
)

// Fault is one thing that is wrong with a document, and where.
type Fault struct {
	// File is relative to the repository root, or a flag's name (`--set`) when the fault is not in a file.
	File string `json:"file"`
	// Line and Column count from 1, Column in characters; both are 0 when the fault is not in a file.
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	// Suggestion is what was likely meant; empty when nothing is near.
	Suggestion string `json:"suggestion,omitempty"`
	// Source is the line that Line names.
	Source string `json:"source,omitempty"`

	order int // of the file among those read
}

// Error gives the fault as `file:line:column: what is wrong (did you mean …?)` and the line with a caret under it.
func (f Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	b.WriteString(": " + f.Message)
	if f.Suggestion != "" {
		fmt.Fprintf(&b, " (did you mean `%s`?)", f.Suggestion)
	}
	if f.Line > 0 {
		text, column := excerpt(f.Source, f.Column)
		number := strconv.Itoa(f.Line)
		fmt.Fprintf(&b, "\n  %s | %s\n  %s | %s^", number, text, strings.Repeat(" ", len(number)), padding(text, column))
	}
	return b.String()
}

// excerpt cuts a long line down to what surrounds the column, which counts from 1 in the line and in what is returned.
func excerpt(line string, column int) (string, int) {
	runes := []rune(strings.TrimRight(line, " \t\r"))
	if len(runes) <= snippetWidth {
		return string(runes), column
	}
	start := min(max(0, column-1-snippetWidth/2), len(runes)-snippetWidth)
	cut := string(runes[start : start+snippetWidth])
	column -= start
	if start > 0 {
		cut, column = "… "+cut, column+2
	}
	if start+snippetWidth < len(runes) {
		cut += " …"
	}
	return cut, column
}

// padding is the blank space before the caret: tabs stay tabs, so that the caret stands under its character.
func padding(text string, column int) string {
	var b strings.Builder
	for i, r := range []rune(text) {
		if i >= column-1 {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// Faults is everything that is wrong with a document, in the order of its files and lines.
type Faults []Fault

// Error prints all faults.
func (fs Faults) Error() string {
	texts := make([]string, 0, len(fs))
	for _, f := range fs {
		texts = append(texts, f.Error())
	}
	return strings.Join(texts, "\n")
}

// collector gathers faults while a document is read.
type collector struct {
	faults []Fault
	seen   map[Fault]bool
	more   int // faults beyond maxFaults
}

func (c *collector) add(f Fault) {
	if c.seen == nil {
		c.seen = map[Fault]bool{}
	}
	if c.seen[f] {
		return
	}
	if len(c.faults) >= maxFaults {
		c.more++
		return
	}
	c.seen[f] = true
	c.faults = append(c.faults, f)
}

// err returns all faults in order, or nil.
func (c *collector) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	all := slices.Clone(c.faults)
	slices.SortStableFunc(all, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if c.more > 0 {
		all = append(all, Fault{File: all[0].File, Message: fmt.Sprintf("and %d faults more", c.more)})
	}
	return Faults(all)
}

// full says that no further fault would be kept: what only looks for faults may stop.
func (c *collector) full() bool { return len(c.faults) >= maxFaults }

// place is a position in a file; the zero value is nowhere.
type place struct {
	src          *source
	line, column int
}

// String gives `file:line:column`.
func (p place) String() string {
	if p.src == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", p.src.path, p.line, p.column)
}

// fault makes a fault at the place.
func (p place) fault(suggestion, format string, args ...any) Fault {
	f := Fault{Message: fmt.Sprintf(format, args...), Suggestion: suggestion, Line: p.line, Column: p.column}
	if p.src != nil {
		f.File, f.Source, f.order = p.src.path, p.src.lineText(p.line), p.src.order
	}
	return f
}

// faultf adds a fault at the place.
func (c *collector) faultf(at place, format string, args ...any) {
	c.add(at.fault("", format, args...))
}

// suggestf adds a fault at the place with what was likely meant.
func (c *collector) suggestf(at place, suggestion, format string, args ...any) {
	c.add(at.fault(suggestion, format, args...))
}
