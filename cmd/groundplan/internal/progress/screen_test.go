package progress

import (
	"strconv"
	"strings"
)

// screen is a small terminal: enough of one to see what a person would.
type screen struct {
	width, height int
	rows          []string // all that was ever written, the newest lines last; escapes left out
	line, column  int
	hidden        bool
	wrapped       int
}

func newScreen(width, height int) *screen {
	return &screen{width: width, height: height, rows: []string{""}}
}

func (s *screen) Write(p []byte) (int, error) {
	text := []rune(string(p))
	for i := 0; i < len(text); i++ {
		switch r := text[i]; r {
		case '\n':
			s.line++
			s.column = 0
			s.grow()
		case '\r':
			s.column = 0
		case '\x1b':
			i += s.escape(text[i+1:])
		default:
			s.put(r)
		}
	}
	return len(p), nil
}

func (s *screen) grow() {
	for len(s.rows) <= s.line {
		s.rows = append(s.rows, "")
	}
}

func (s *screen) put(r rune) {
	if s.column == s.width {
		s.wrapped++
		s.line++
		s.column = 0
		s.grow()
	}
	row := []rune(s.rows[s.line])
	for len(row) <= s.column {
		row = append(row, ' ')
	}
	row[s.column] = r
	s.rows[s.line] = string(row)
	s.column++
}

// escape carries out a control sequence and returns its length.
func (s *screen) escape(rest []rune) int {
	end := 1
	for end < len(rest) && !(rest[end] >= '@' && rest[end] <= '~') {
		end++
	}
	argument := string(rest[1:end])
	switch rest[end] {
	case 'A':
		n, _ := strconv.Atoi(argument)
		s.line = max(0, s.line-n)
	case 'J':
		s.rows = s.rows[:s.line+1]
		s.rows[s.line] = string([]rune(s.rows[s.line])[:min(s.column, len([]rune(s.rows[s.line])))])
	case 'l':
		s.hidden = true
	case 'h':
		s.hidden = false
	}
	return end + 1
}

// resize reflows lines that no longer fit, as terminals do.
func (s *screen) resize(width int) {
	var rows []string
	line := s.line
	for i, row := range s.rows {
		text := []rune(row)
		for len(text) > width {
			rows = append(rows, string(text[:width]))
			text = text[width:]
			if i < s.line {
				line++
			}
		}
		rows = append(rows, string(text))
	}
	s.rows, s.line, s.width = rows, line, width
}

func (s *screen) String() string {
	var b strings.Builder
	for _, row := range s.rows {
		b.WriteString(strings.TrimRight(row, " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
