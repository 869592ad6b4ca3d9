package pipelines

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// reference is a name that an expression uses: `parameters.rtt`, `stages.warm-up.outcome`, `metrics["a.b"].p95`.
type reference struct {
	root       string
	segments   []string
	text       string // as it is written
	start, end int    // byte offsets
	presence   bool   // inside has(…), whose text is included
}

// roots are the first words of references, with what expressions see of them.
var roots = []string{"parameters", "matrix", "groups", "stages", "metrics", "outcomes", "env", "secrets"}

// references finds the names in an expression. Names of stages, groups, events and metrics may hold a `-`, which CEL
// would take for a minus: what stands right behind `stages.`, `groups.`, `outcomes.`, `metrics.` and, in these,
// `before.`, `during.` and `after.` is one name, and so is what follows a group in `metrics`.
func references(text string, isGroup func(string) bool) []reference {
	var all []reference
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '"' || c == '\'':
			i = skipString(text, i)
		case c == '/' && strings.HasPrefix(text[i:], "//"):
			if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
				i += end
			} else {
				i = len(text)
			}
		case isWordStart(c):
			end := wordEnd(text, i, false)
			word := text[i:end]
			if end < len(text) && (text[end] == '"' || text[end] == '\'') && len(word) <= 2 {
				i = skipString(text, end) // a raw string
				continue
			}
			if !slices.Contains(roots, word) || precededByDot(text, i) {
				i = end
				continue
			}
			r := readReference(text, i, end, isGroup)
			if outer, ok := presenceTest(text, r); ok {
				r = outer
			}
			all = append(all, r)
			i = r.end
		case c >= '0' && c <= '9':
			i = wordEnd(text, i, false)
		default:
			i++
		}
	}
	return all
}

func isWordStart(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func wordEnd(text string, i int, dashes bool) int {
	for i < len(text) && (isWordStart(text[i]) || text[i] >= '0' && text[i] <= '9' || dashes && text[i] == '-') {
		i++
	}
	return i
}

func precededByDot(text string, i int) bool {
	return strings.HasSuffix(strings.TrimRight(text[:i], " \t\r\n"), ".")
}

// skipString returns the offset behind the string that begins at i; an unclosed one ends with the text.
func skipString(text string, i int) int {
	quote := text[i : i+1]
	if strings.HasPrefix(text[i:], strings.Repeat(quote, 3)) {
		quote = strings.Repeat(quote, 3)
	}
	raw := i > 0 && (text[i-1] == 'r' || text[i-1] == 'R')
	for i += len(quote); i < len(text); i++ {
		if text[i] == '\\' && !raw {
			i++
		} else if strings.HasPrefix(text[i:], quote) {
			return i + len(quote)
		}
	}
	return len(text)
}

// readReference reads the segments behind a root that ends at `end`.
func readReference(text string, start, end int, isGroup func(string) bool) reference {
	r := reference{root: text[start:end]}
	for {
		next, segment := end, ""
		switch {
		case next < len(text) && text[next] == '.':
			stop := wordEnd(text, next+1, r.dashes(isGroup))
			segment = strings.TrimRight(text[next+1:stop], "-")
			next += 1 + len(segment)
		case next+1 < len(text) && text[next] == '[' && (text[next+1] == '"' || text[next+1] == '\''):
			stop := skipString(text, next+1)
			if stop < len(text) && text[stop] == ']' && !strings.Contains(text[next:stop], `\`) {
				segment = text[next+2 : stop-1]
				next = stop + 1
			}
		}
		if segment == "" || next < len(text) && text[next] == '(' {
			break
		}
		r.segments = append(r.segments, segment)
		end = next
	}
	r.start, r.end, r.text = start, end, text[start:end]
	return r
}

// dashes says whether the next segment is a name that may hold a `-`.
func (r reference) dashes(isGroup func(string) bool) bool {
	n := len(r.segments)
	switch r.root {
	case "stages", "groups", "outcomes":
		return n == 0
	case "metrics":
		return n == 0 || n >= 2 && slices.Contains(Phases, r.segments[n-1]) || n == 1 && isGroup(r.segments[0])
	}
	return false
}

// presenceTest widens a reference to the has(…) around it.
func presenceTest(text string, r reference) (reference, bool) {
	before := strings.TrimRight(text[:r.start], " ")
	after := strings.TrimLeft(text[r.end:], " ")
	if !strings.HasSuffix(before, "has(") || !strings.HasPrefix(after, ")") {
		return r, false
	}
	start := len(before) - len("has(")
	if start > 0 && (isWordStart(text[start-1]) || text[start-1] == '.') {
		return r, false
	}
	r.start, r.end, r.presence = start, len(text)-len(after)+1, true
	return r, true
}

// blank replaces the references by the names of slots, padded so that every other character stays where it was.
func blank(text string, all []reference, slot func(i int) string) string {
	var b strings.Builder
	last := 0
	for i, r := range all {
		b.WriteString(text[last:r.start])
		name := slot(i)
		b.WriteString(name)
		if missing := utf8.RuneCountInString(text[r.start:r.end]) - len(name); missing > 0 {
			b.WriteString(strings.Repeat(" ", missing))
		}
		last = r.end
	}
	return b.String() + text[last:]
}

// problem is what is wrong with a reference.
type problem struct {
	message, suggestion string
}

func problemf(suggestion, format string, args ...any) *problem {
	return &problem{fmt.Sprintf(format, args...), suggestion}
}

// names tells the types of references.
type names interface {
	typeOf(r reference) (kind, *problem)
}
