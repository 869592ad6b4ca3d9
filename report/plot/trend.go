package plot

import (
	"html"
	"html/template"
	"strings"
)

// Turn is a figure at one of a row of times.
type Turn struct {
	Value float64 // not a number where there is none
	// Class is the verdict's word, for its look.
	Class string
}

// Trend draws a figure from turn to turn, the oldest at the left; what was worse has another sign than what wasn't.
func Trend(title, description string, unit Unit, turns []Turn) template.HTML {
	var values []float64
	for _, t := range turns {
		values = append(values, t.Value)
	}
	y := newAxis(values, plotBottom, plotTop+4)
	x := axis{low: -0.5, high: float64(max(len(turns), 1)) - 0.5, start: plotLeft + 14, end: plotRight}
	d := chart(title, description)
	ticks := y.ticks(4)
	d.add(`<g class="grid">`)
	for _, t := range ticks {
		d.add(`<path d="M%s %sH%s"/>`, n(plotLeft+14), n(y.at(t)), n(plotRight))
	}
	d.add(`</g><g class="label">`)
	for _, t := range ticks {
		d.text(plotLeft+10, y.at(t)+4, "end", unit.tick(t))
	}
	d.text(plotLeft+14, plotBottom+17, "start", "oldest")
	d.text(plotRight, plotBottom+17, "end", "newest")
	d.add(`</g><path class="line s1" d="%s"/>`, joined(turns, x, y))
	for i, t := range turns {
		if finite(t.Value) {
			d.add(`<path class="sign %s" d="%s"/>`, html.EscapeString(t.Class), sign(t.Class, x.at(float64(i)), y.at(t.Value)))
		}
	}
	return d.done()
}

// joined is the line through the turns that have a value.
func joined(turns []Turn, x, y axis) string {
	var b strings.Builder
	to := "M"
	for i, t := range turns {
		if finite(t.Value) {
			b.WriteString(to + n(x.at(float64(i))) + " " + n(y.at(t.Value)))
			to = "L"
		}
	}
	return b.String()
}

// sign is a verdict's form around a place: a cross for what failed, a triangle for what is invalid, a square for the rest.
func sign(class string, x, y float64) string {
	switch class {
	case "failed", "regressed":
		return "M" + n(x-3.5) + " " + n(y-3.5) + "l7 7m0-7l-7 7"
	case "invalid":
		return "M" + n(x) + " " + n(y-4.5) + "l4.5 8h-9z"
	}
	return "M" + n(x-2.5) + " " + n(y-2.5) + "h5v5h-5z"
}
