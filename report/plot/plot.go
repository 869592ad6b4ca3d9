// Package plot draws the pictures of reports as SVG: pure functions from figures to text.
//
// Pictures carry no colours of their own: their parts have classes (s1 to s6 for series, the verdicts' words, axis, grid,
// label) that a stylesheet gives colours to. There are two sorts. A chart is as wide as a phone, 360 units, and has its
// own text; pages set several side by side where there is room. A lane is one row without text that stretches to whatever
// width it is given, beside text that the page sets.
package plot

import (
	"fmt"
	"html"
	"html/template"
	"strconv"
	"strings"
)

// The frame of a chart, in units of a pixel on a phone.
const (
	width, height                    = 360.0, 196.0
	left, right, top, bottom         = 40.0, 10.0, 8.0, 26.0
	plotLeft, plotRight              = left, width - right
	plotTop, plotBottom              = top, height - bottom
	serieses                         = 6
	charWidth                float64 = 6.1 // of a digit in the labels, at most
)

// drawing is an SVG under way.
type drawing struct{ strings.Builder }

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(d, format, args...) }

// text writes a label.
func (d *drawing) text(x, y float64, anchor, text string) {
	d.add(`<text x="%s" y="%s" text-anchor="%s">%s</text>`, n(x), n(y), anchor, html.EscapeString(text))
}

// chart begins a picture with a name and a description for those who don't see it.
func chart(title, description string) *drawing {
	d := &drawing{}
	d.add(`<svg class="chart" viewBox="0 0 %s %s" role="img" aria-label="%s"><title>%[3]s</title><desc>%[4]s</desc>`,
		n(width), n(height), html.EscapeString(title+": "+description), html.EscapeString(description))
	return d
}

func (d *drawing) done() template.HTML {
	d.WriteString("</svg>")
	return template.HTML(d.String()) //nolint:gosec // every text in it was escaped
}

// n writes a place with at most one digit behind the point.
func n(v float64) string {
	text := strconv.FormatFloat(v, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0")
}

// class is that of the series with a number from 0.
func class(series int) string { return "s" + strconv.Itoa(series%serieses+1) }

// Swatch is the line of a series, for a legend.
func Swatch(series int) template.HTML {
	return template.HTML(`<svg class="swatch" viewBox="0 0 24 8" aria-hidden="true"><path class="line ` + class(series) + `" d="M0 4H24"/></svg>`) //nolint:gosec // no text in it
}
