package plot

import (
	"html/template"
	"math"
	"strings"
)

// Point is a place on a curve: a share Y of the values are at most X.
type Point struct{ X, Y float64 }

// Curve is a cumulative distribution.
type Curve struct {
	Name   string
	Points []Point // ascending
}

// CDF draws cumulative distributions over one axis of values: which share of them is at most how large.
func CDF(title, description string, unit Unit, curves []Curve) template.HTML {
	var values []float64
	for _, c := range curves {
		for _, p := range c.Points {
			values = append(values, p.X)
		}
	}
	x := newAxis(values, plotLeft, plotRight)
	y := axis{low: 0, high: 1, start: plotBottom, end: plotTop}
	d := chart(title, description)
	d.add(`<g class="grid">`)
	for _, share := range []float64{0.25, 0.5, 0.75, 1} {
		d.add(`<path d="M%s %sH%s"/>`, n(plotLeft), n(y.at(share)), n(plotRight))
	}
	d.add(`</g>`)
	d.frame(x, unit)
	d.add(`<g class="label">`)
	for _, tick := range []struct {
		share float64
		text  string
	}{{0, "0"}, {0.5, "50 %"}, {0.9, "90 %"}, {1, ""}} {
		d.text(plotLeft-5, y.at(tick.share)+4, "end", tick.text)
	}
	d.add(`</g>`)
	for i, c := range curves {
		d.add(`<path class="line %s" d="%s"/>`, class(i), stairs(c.Points, x, y))
	}
	return d.done()
}

// stairs is the path of a distribution: it rises at each value.
func stairs(points []Point, x, y axis) string {
	var b strings.Builder
	last := ""
	for i, p := range points {
		if !finite(p.X) || !finite(p.Y) {
			continue
		}
		px, py := n(x.at(p.X)), n(y.at(p.Y))
		switch {
		case b.Len() == 0:
			b.WriteString("M" + px + " " + n(y.at(0)) + "V" + py)
		case px == last:
			b.WriteString("V" + py)
		default:
			b.WriteString("H" + px + "V" + py)
		}
		last = px
		if i == len(points)-1 {
			b.WriteString("H" + n(plotRight))
		}
	}
	return b.String()
}

// frame draws the axis of values below a chart, with as many labels as there is room for.
func (d *drawing) frame(x axis, unit Unit) {
	ticks := x.ticks(5)
	d.add(`<g class="axis"><path d="M%s %sH%s`, n(plotLeft), n(plotBottom), n(plotRight))
	for _, t := range ticks {
		d.add(`M%s %sv4`, n(x.at(t)), n(plotBottom))
	}
	d.add(`"/></g><g class="label">`)
	end := math.Inf(-1)
	for _, t := range ticks {
		text, at := unit.tick(t), x.at(t)
		half := float64(len([]rune(text))) * charWidth / 2
		at = min(at, width-half-1)
		if at-half < end+6 {
			continue
		}
		d.text(at, plotBottom+17, "middle", text)
		end = at + half
	}
	d.add(`</g>`)
}
