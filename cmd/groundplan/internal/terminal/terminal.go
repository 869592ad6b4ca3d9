// Package terminal knows what can be shown where a command writes: whether a person looks at it live, how wide it is, which
// colours it has; and how text is made to fit there.
package terminal

import (
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// Style is how a piece of text looks where colours are shown.
type Style string

// The styles in use: the sixteen basic colours only, so that the user's own palette decides.
const (
	Plain  Style = ""
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	Cyan   Style = "36"
)

// Where no terminal says how large it is.
const (
	defaultWidth  = 80
	defaultHeight = 24
)

// Terminal is a place to write to.
type Terminal struct {
	io.Writer
	// Window asks for the width and height in cells; nil: 80 by 24.
	Window func() (width, height int)
	// Live says that lines may be redrawn.
	Live bool
	// Color says that styles are shown.
	Color bool
}

// New looks at w. Colours are shown on a terminal unless plain is set, NO_COLOR is not empty or TERM is "dumb"; a dumb
// terminal isn't live either.
func New(w io.Writer, plain bool, getenv func(string) string) *Terminal {
	t := &Terminal{Writer: w}
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return t
	}
	t.Window = func() (int, int) {
		if w, h, err := term.GetSize(int(file.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
		return defaultWidth, defaultHeight
	}
	t.Live = getenv("TERM") != "dumb"
	t.Color = t.Live && !plain && getenv("NO_COLOR") == ""
	return t
}

// Size is the width and height in cells.
func (t *Terminal) Size() (width, height int) {
	if t.Window == nil {
		return defaultWidth, defaultHeight
	}
	return t.Window()
}

// Paint gives text a style, where styles are shown.
func (t *Terminal) Paint(s Style, text string) string {
	if !t.Color || s == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// Clean makes text from elsewhere (an instance, a compiler) safe to show: one line, without control characters, so that
// it can neither move the cursor nor change the title of the terminal.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, text)
}

// Width is the number of cells that text without styles takes.
func Width(text string) int { return runewidth.StringWidth(text) }

// Fit cuts text without styles to at most width cells, with an ellipsis where something is missing.
func Fit(text string, width int) string {
	if width <= 0 {
		return ""
	}
	return runewidth.Truncate(text, width, "…")
}

// Pad fills text without styles up to width cells.
func Pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-Width(text)))
}

// Wrap breaks text at spaces into lines of at most width cells; a word that is longer stands alone.
func Wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case Width(line)+1+Width(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
