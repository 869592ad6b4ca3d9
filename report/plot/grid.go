package plot

import (
	"html"
	"html/template"
	"strconv"
	"strings"
)

// cell is the side of a grid's cell.
const cell = 10

// Columns is how many cells stand in a row of a grid of so many.
func Columns(cells int) int {
	switch {
	case cells <= 200:
		return min(max(cells, 1), 25)
	case cells <= 2000:
		return 50
	}
	return 100
}

// shown is how large a cell is on a screen that is wide enough, in pixels.
func shown(cells int) int {
	switch {
	case cells <= 200:
		return 18
	case cells <= 2000:
		return 13
	}
	return 8
}

// Grid draws a cell for each of many things, in rows from the left. kinds has one letter each: s is a filled square, f a
// cross, c a triangle, q a hollow square, k a bar, everything else a small dot; the letters of a kind become one path
// with the class of that letter.
func Grid(title, description, kinds string) template.HTML {
	columns := Columns(len(kinds))
	rows := (len(kinds) + columns - 1) / columns
	paths := map[byte]*strings.Builder{}
	order := "scfqk."
	for i := range len(kinds) {
		kind := kinds[i]
		if strings.IndexByte(order, kind) < 0 {
			kind = '.'
		}
		if paths[kind] == nil {
			paths[kind] = &strings.Builder{}
		}
		mark(paths[kind], kind, i%columns*cell, i/columns*cell)
	}
	d := &drawing{}
	d.add(`<svg class="grid" viewBox="0 0 %d %d" width="%d" role="img" aria-label="%s"><title>%[4]s</title><desc>%[5]s</desc>`,
		columns*cell, max(rows, 1)*cell, columns*shown(len(kinds)), html.EscapeString(title+": "+description), html.EscapeString(description))
	for i := range len(order) {
		if path := paths[order[i]]; path != nil {
			name := string(order[i])
			if name == "." {
				name = "none"
			}
			d.add(`<path class="cell %s" d="%s"/>`, name, path)
		}
	}
	return d.done()
}

// mark adds a kind's form at the corner of a cell.
func mark(b *strings.Builder, kind byte, x, y int) {
	var dx, dy int
	var form string
	switch kind {
	case 's':
		dx, dy, form = 1, 1, "h8v8h-8z"
	case 'f':
		dx, dy, form = 2, 2, "l6 6m0-6l-6 6"
	case 'c':
		dx, dy, form = 5, 1, "l4 8h-8z"
	case 'q':
		dx, dy, form = 2, 2, "h6v6h-6z"
	case 'k':
		dx, dy, form = 1, 5, "h8"
	default:
		dx, dy, form = 4, 4, "h2v2h-2z"
	}
	b.WriteString("M" + strconv.Itoa(x+dx) + " " + strconv.Itoa(y+dy) + form)
}

// Key is one cell alone, for a legend.
func Key(kind byte) template.HTML {
	var b strings.Builder
	mark(&b, kind, 0, 0)
	name := string(kind)
	if kind == '.' {
		name = "none"
	}
	return template.HTML(`<svg class="swatch key" viewBox="0 0 10 10" aria-hidden="true"><path class="cell ` + html.EscapeString(name) + `" d="` + b.String() + `"/></svg>`) //nolint:gosec // one letter, escaped
}
