package plot

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Unit is what a figure counts.
type Unit int

// The units. A Number has none.
const (
	Number Unit = iota
	Seconds
	Bytes
	Bits
	Share // of a whole, shown in percent
)

// UnitOf is the unit that a metric's name ends with: `lookup_seconds`, `sent_bytes`, `upload_bits`. A group before it and
// a phase behind it don't matter: `clients.lookup_seconds.during.split`.
func UnitOf(metric string) Unit {
	for part := range strings.SplitSeq(metric, ".") {
		switch {
		case strings.HasSuffix(part, "_seconds"):
			return Seconds
		case strings.HasSuffix(part, "_bytes"):
			return Bytes
		case strings.HasSuffix(part, "_bits"):
			return Bits
		case strings.HasSuffix(part, "_share"):
			return Share
		}
	}
	return Number
}

// step is one size of a unit.
type step struct {
	size float64
	name string
}

var steps = map[Unit][]step{
	Seconds: {{1e-9, "ns"}, {1e-6, "µs"}, {1e-3, "ms"}, {1, "s"}, {60, "min"}, {3600, "h"}},
	Bytes:   {{1, "B"}, {1 << 10, "KiB"}, {1 << 20, "MiB"}, {1 << 30, "GiB"}, {1 << 40, "TiB"}},
	Bits:    {{1, "bit"}, {1e3, "kbit"}, {1e6, "Mbit"}, {1e9, "Gbit"}, {1e12, "Tbit"}},
	Share:   {{0.01, "%"}},
}

// Format writes a value in about three digits, with its unit.
func (u Unit) Format(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case math.IsInf(v, 0):
		return strings.Replace(strconv.FormatFloat(v, 'g', -1, 64), "Inf", "∞", 1)
	case u == Number:
		return digits(v)
	case v == 0:
		return "0 " + zeroUnit(u)
	}
	of := u.step(v)
	return digits(v/of.size) + " " + of.name
}

// step is the size in which a value is written: what would be rounded up to the next one is written in that.
func (u Unit) step(v float64) step {
	of := step{1, ""}
	for i, s := range steps[u] {
		if i == 0 || math.Abs(v) >= s.size*0.9995 {
			of = s
		}
	}
	return of
}

func zeroUnit(u Unit) string {
	if u == Seconds {
		return "s"
	}
	return steps[u][0].name
}

// tick writes a round value with as many digits as it has.
func (u Unit) tick(v float64) string {
	if v == 0 || u == Number && (math.Abs(v) >= 1e6 || math.Abs(v) < 1e-4) {
		return u.Format(v)
	}
	of := u.step(v)
	places := 0
	for scaled := v / of.size; places < 6 && math.Abs(scaled-math.Round(scaled)) > 1e-6*math.Abs(scaled); places++ {
		scaled *= 10
	}
	text := strconv.FormatFloat(v/of.size, 'f', places, 64)
	if places == 0 {
		text = thousands(text)
	}
	return strings.TrimSpace(text + " " + of.name)
}

// digits writes about three of them, and whole numbers up to a million as they are.
func digits(v float64) string {
	size := math.Abs(v)
	switch {
	case v == 0:
		return "0"
	case v == math.Trunc(v) && size < 1e6:
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	case size >= 1e9 || size < 1e-3:
		return strconv.FormatFloat(v, 'e', 2, 64)
	case size >= 99.95:
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	case size >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case size >= 0.9995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// thousands puts a thin space between every three digits.
func thousands(text string) string {
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return sign + text
}

// Percent writes a change as a share, with its sign.
func Percent(share float64) string {
	if math.IsNaN(share) || math.IsInf(share, 0) {
		return "–"
	}
	return fmt.Sprintf("%+.1f %%", 100*share)
}
