package toml

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// scanner walks over a document byte by byte.
type scanner struct {
	text string
	at   int
}

// bail carries an Error out of the recursion; Parse recovers it.
type bail struct{ err *Error }

func (s *scanner) failAt(offset int, format string, args ...any) {
	before := s.text[:min(offset, len(s.text))]
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	panic(bail{&Error{line, column, fmt.Sprintf(format, args...)}})
}

func (s *scanner) fail(format string, args ...any) { s.failAt(s.at, format, args...) }

func (s *scanner) end() bool { return s.at >= len(s.text) }

// peek is the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.end() {
		return 0
	}
	return s.text[s.at]
}

func (s *scanner) skip(prefix string) bool {
	if strings.HasPrefix(s.text[s.at:], prefix) {
		s.at += len(prefix)
		return true
	}
	return false
}

func (s *scanner) expect(prefix, where string) {
	if !s.skip(prefix) {
		s.fail("expected `%s` %s, found %s", prefix, where, s.found())
	}
}

// found names what stands here, for messages.
func (s *scanner) found() string {
	switch c := s.peek(); {
	case s.end():
		return "the end of the file"
	case c == '\n' || c == '\r':
		return "the end of the line"
	default:
		r, _ := utf8.DecodeRuneInString(s.text[s.at:])
		return strconv.QuoteRune(r)
	}
}

func (s *scanner) blanks() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.at++
	}
}

// comment skips a comment, up to the end of its line.
func (s *scanner) comment() {
	if s.peek() != '#' {
		return
	}
	for !s.end() && s.peek() != '\n' {
		if c := s.peek(); c < ' ' && c != '\t' && c != '\r' || c == 0x7f {
			s.fail("a comment can't hold the control character %s", s.found())
		}
		s.at++
	}
}

func (s *scanner) newline() bool { return s.skip("\n") || s.skip("\r\n") }

// space skips blanks, comments and ends of lines.
func (s *scanner) space() {
	for {
		s.blanks()
		s.comment()
		if !s.newline() {
			return
		}
	}
}

// endOfLine skips what may follow a statement.
func (s *scanner) endOfLine() {
	s.blanks()
	s.comment()
	if !s.end() && !s.newline() {
		s.fail("expected the end of the line, found %s", s.found())
	}
}

func isBare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// key reads a dotted key.
func (s *scanner) key() []string {
	var parts []string
	for {
		s.blanks()
		switch c := s.peek(); {
		case c == '"':
			parts = append(parts, s.basic())
		case c == '\'':
			parts = append(parts, s.literal())
		default:
			start := s.at
			for isBare(s.peek()) {
				s.at++
			}
			if s.at == start {
				s.fail("expected a key, found %s", s.found())
			}
			parts = append(parts, s.text[start:s.at])
		}
		s.blanks()
		if !s.skip(".") {
			return parts
		}
	}
}

// quoted reads a string of any of the four forms.
func (s *scanner) quoted() string {
	switch {
	case s.skip(`"""`):
		return s.multiline('"')
	case s.skip(`'''`):
		return s.multiline('\'')
	case s.peek() == '"':
		return s.basic()
	}
	return s.literal()
}

func (s *scanner) literal() string {
	start := s.at
	s.at++
	for s.peek() != '\'' {
		s.character(start)
	}
	s.at++
	return s.text[start+1 : s.at-1]
}

func (s *scanner) basic() string {
	start := s.at
	s.at++
	var b strings.Builder
	for s.peek() != '"' {
		if s.peek() == '\\' {
			s.escape(&b)
			continue
		}
		from := s.at
		s.character(start)
		b.WriteString(s.text[from:s.at])
	}
	s.at++
	return b.String()
}

// character steps over one character of a text on one line.
func (s *scanner) character(start int) {
	c := s.peek()
	if s.end() || c == '\n' || c == '\r' {
		s.failAt(start, "the text that begins here isn't closed on its line")
	}
	s.plain(c)
}

// plain steps over a character that may stand in a text.
func (s *scanner) plain(c byte) {
	if c < ' ' && c != '\t' || c == 0x7f {
		s.fail("a text can't hold the control character %s: write it as an escape", s.found())
	}
	s.at++
}

func (s *scanner) multiline(quote byte) string {
	start := s.at - 3
	s.newline() // one right behind the quotes doesn't count
	var b strings.Builder
	for {
		switch c := s.peek(); {
		case s.end():
			s.failAt(start, "the text that begins here isn't closed")
		case c == quote:
			n := 0
			for n < 5 && s.at+n < len(s.text) && s.text[s.at+n] == quote {
				n++
			}
			s.at += n
			if n >= 3 { // up to two quotes stand before the closing three
				b.WriteString(strings.Repeat(string(quote), n-3))
				return b.String()
			}
			b.WriteString(strings.Repeat(string(quote), n))
		case c == '\\' && quote == '"':
			if !s.continued() {
				s.escape(&b)
			}
		case c == '\n' || c == '\r' && strings.HasPrefix(s.text[s.at:], "\r\n"):
			s.newline()
			b.WriteByte('\n')
		default:
			s.plain(c)
			b.WriteByte(c)
		}
	}
}

// continued skips a backslash at the end of a line, with all white space behind it.
func (s *scanner) continued() bool {
	rest := s.text[s.at+1:]
	trimmed := strings.TrimLeft(rest, " \t")
	if !strings.HasPrefix(trimmed, "\n") && !strings.HasPrefix(trimmed, "\r\n") {
		return false
	}
	s.at = len(s.text) - len(strings.TrimLeft(rest, " \t\r\n"))
	return true
}

var escapes = map[byte]string{'b': "\b", 't': "\t", 'n': "\n", 'f': "\f", 'r': "\r", '"': `"`, '\\': `\`}

func (s *scanner) escape(b *strings.Builder) {
	s.at++
	c := s.peek()
	if text, ok := escapes[c]; ok && !s.end() {
		s.at++
		b.WriteString(text)
		return
	}
	digits := map[byte]int{'u': 4, 'U': 8}[c]
	if digits == 0 {
		s.failAt(s.at-1, "`\\` and %s is no escape", s.found())
	}
	if s.at+1+digits > len(s.text) {
		s.failAt(s.at-1, "`\\%c` needs %d hexadecimal digits", c, digits)
	}
	n, err := strconv.ParseUint(s.text[s.at+1:s.at+1+digits], 16, 32)
	if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
		s.failAt(s.at-1, "`\\%s` is no character", s.text[s.at:s.at+1+digits])
	}
	s.at += 1 + digits
	b.WriteRune(rune(n))
}
