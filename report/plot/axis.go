package plot

import (
	"math"
)

// axis maps values to places.
type axis struct {
	low, high  float64 // values
	start, end float64 // places
	log        bool
}

// decades is how often ten has to go into the range of positive values before they are shown on a logarithmic axis.
const decades = 1.5

// newAxis covers the values, with a little room; logarithmic where they span decades.
func newAxis(values []float64, start, end float64) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if finite(v) {
			low, high = min(low, v), max(high, v)
		}
	}
	if low > high {
		low, high = 0, 1
	}
	a := axis{low: low, high: high, start: start, end: end}
	switch {
	case low > 0 && math.Log10(high/low) >= decades:
		a.log = true
	case low == high:
		room := math.Abs(low) * 0.1
		if room == 0 {
			room = 1
		}
		a.low, a.high = low-room, high+room
	default:
		room := high*0.04 - low*0.04
		a.low, a.high = low-room, high+room
		if low >= 0 && low < high*0.35 { // near enough: a length then means what it looks like
			a.low = 0
		}
	}
	return a
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// at is the place of a value, kept within the axis.
func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		low, high = math.Log10(low), math.Log10(high)
		v = math.Log10(max(v, a.low))
	}
	if high == low || !finite(high-low) || math.IsNaN(v) {
		return a.start
	}
	share := min(max((v-low)/(high-low), 0), 1)
	return a.start + share*(a.end-a.start)
}

// ticks are round values along the axis, about as many as asked.
func (a axis) ticks(about int) []float64 {
	if a.log {
		return a.logTicks(about)
	}
	span := a.high - a.low
	if !finite(span) || span <= 0 {
		return []float64{a.low}
	}
	raw := span / float64(about)
	size := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if size*factor >= raw*0.999 {
			size *= factor
			break
		}
	}
	var list []float64
	for i := math.Ceil(a.low/size - 1e-9); i*size <= a.high*(1+1e-12) && len(list) <= 3*about; i++ {
		list = append(list, clip(i*size, size))
	}
	return list
}

// clip takes the dust of floating point off a multiple of a size.
func clip(v, size float64) float64 {
	if math.Abs(v) < size*1e-9 {
		return 0
	}
	return v
}

// logTicks are powers of ten, every so many that they don't crowd; with 2 and 5 between where there are few.
func (a axis) logTicks(about int) []float64 {
	first, last := math.Floor(math.Log10(a.low)), math.Ceil(math.Log10(a.high))
	every := max(math.Ceil((last-first)/float64(about)), 1)
	between := []float64{1}
	switch {
	case last-first <= 2:
		between = []float64{1, 2, 5}
	case last-first <= 3:
		between = []float64{1, 3}
	}
	var list []float64
	for e := first; e <= last; e += every {
		for _, factor := range between {
			if v := factor * math.Pow(10, e); v >= a.low*0.999 && v <= a.high*1.001 {
				list = append(list, v)
			}
		}
	}
	return list
}
