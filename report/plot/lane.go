package plot

import "html/template"

// Shape is how a part of a lane looks.
type Shape int

// The shapes. A Bar and a Band have a beginning and an end, and so has a Line; a Dot and a Rule stand at their beginning.
const (
	Bar  Shape = iota // as high as the lane, nearly
	Band              // behind the rest, as high as the lane
	Line              // in the middle, thin
	Dot               // in the middle
	Rule              // across
)

// Part is a piece of a lane, between shares 0 and 1 of its width.
type Part struct {
	Shape    Shape
	From, To float64
	Class    string
}

const laneWidth, laneHeight = 1000.0, 20.0

// Lane draws one row that stretches to any width. It stands beside text that says the same, and is nothing to those who
// don't see.
func Lane(parts ...Part) template.HTML {
	d := &drawing{}
	d.add(`<svg class="lane" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">`)
	for _, p := range parts {
		from, to := place(p.From), place(p.To)
		switch p.Shape {
		case Bar:
			d.add(`<rect class="bar %s" x="%s" y="4" width="%s" height="12"/>`, p.Class, n(from), n(max(to-from, 1)))
		case Band:
			d.add(`<rect class="band %s" x="%s" y="0" width="%s" height="20"/>`, p.Class, n(from), n(max(to-from, 1)))
		case Line:
			d.add(`<path class="line %s" d="M%s %sH%s"/>`, p.Class, n(from), n(laneHeight/2), n(to))
		case Dot:
			d.add(`<path class="dot %s" d="M%s %sh0.01"/>`, p.Class, n(from), n(laneHeight/2))
		case Rule:
			d.add(`<path class="rule %s" d="M%s 0V20"/>`, p.Class, n(from))
		}
	}
	return d.done()
}

// place is a share of a lane's width; what lies beyond stands at its end.
func place(share float64) float64 {
	if share != share {
		return 0
	}
	return min(max(share, 0), 1) * laneWidth
}

// Scale is one axis for several lanes.
type Scale struct{ axis }

// NewScale covers values, logarithmic where they span decades. At both ends there is room for a dot.
func NewScale(values []float64) Scale { return Scale{newAxis(values, 0.012, 0.988)} }

// At is the place of a value, from 0 to 1.
func (s Scale) At(v float64) float64 { return s.at(v) }

// Log says that the scale is logarithmic.
func (s Scale) Log() bool { return s.log }

// Ends are the values at both ends.
func (s Scale) Ends() (low, high float64) { return s.low, s.high }
