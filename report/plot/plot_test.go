package plot

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/internal/golden"
)

// check says what is wrong with a picture: it has to be XML, and every number in it one.
func check(t *testing.T, picture template.HTML) {
	t.Helper()
	for decoder := xml.NewDecoder(strings.NewReader(string(picture))); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("the picture is no XML: %v\n%s", err, picture)
		}
		element, _ := token.(xml.StartElement)
		for _, a := range element.Attr {
			if a.Name.Local != "aria-label" && a.Name.Local != "class" && (strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf")) {
				t.Errorf("%s of %s is %q", a.Name.Local, element.Name.Local, a.Value)
			}
		}
	}
}

func line(n int, of func(i int) float64) []Point {
	var points []Point
	for i := range n {
		points = append(points, Point{of(i), float64(i+1) / float64(n)})
	}
	return points
}

func TestPictures(t *testing.T) {
	var turns []Turn
	for i := range 8 {
		turns = append(turns, Turn{4 + 0.01*float64(i), []string{"passed", "passed", "invalid", "regressed"}[i%4]})
	}
	turns[3].Value = math.NaN()
	for name, picture := range map[string]template.HTML{
		"cdf":   CDF("Distribution of rtt_seconds", "half at most 5 ms", Seconds, []Curve{{"eu", line(10, func(i int) float64 { return 0.001 * float64(i+1) })}, {"us <b>", line(5, func(i int) float64 { return 0.002 * float64(i+1) })}}),
		"log":   CDF("Distribution of sent_bytes", "from 1 B to 1 GiB", Bytes, []Curve{{"all", line(10, func(i int) float64 { return math.Pow(8, float64(i)) })}}),
		"trend": Trend("rtt_seconds.p50", "4 s to 4.07 s", Seconds, turns),
		"grid":  Grid("Instances of eu", "6 of them", "sfcqk.x"+strings.Repeat("s", 30)),
		"lane": Lane(Part{Shape: Band, From: 0.4, To: 0.6, Class: "tolerated"}, Part{Shape: Rule, From: 0.5, Class: "none"}, Part{Shape: Line, From: 0.2, To: 0.9, Class: "thick"},
			Part{Shape: Dot, From: 0.7}, Part{Shape: Bar, From: -3, To: 8, Class: "passed"}),
		"key": Key('f') + Key('.') + Swatch(1),
	} {
		t.Run(name, func(t *testing.T) {
			check(t, "<g>"+picture+"</g>")
			golden.Compare(t, filepath.Join("testdata", name+".golden.svg"), strings.ReplaceAll(string(picture), "><", ">\n<")+"\n")
		})
	}
}

func TestStrangeFigures(t *testing.T) {
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, -1, 1e-320, 1e308, -1e308, 5}
	for n := range len(odd) + 1 {
		values := odd[:n]
		points := line(len(values), func(i int) float64 { return values[i] })
		check(t, CDF("<&\"'", "]]>", Seconds, []Curve{{"", points}}))
		var turns []Turn
		for _, v := range values {
			turns = append(turns, Turn{v, `"><script>`})
		}
		check(t, Trend("", "", Number, turns))
		s := NewScale(values)
		for _, v := range odd {
			if at := s.At(v); math.IsNaN(at) || at < 0 || at > 1 {
				t.Errorf("%v of %v stands at %v", v, values, at)
			}
			check(t, Lane(Part{Shape: Bar, From: s.At(v), To: v, Class: "x"}))
		}
	}
	check(t, Grid("", "", ""))
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		unit Unit
		v    float64
		want string
	}{
		{Seconds, 0, "0 s"}, {Seconds, 0.0000005, "500 ns"}, {Seconds, 0.00123, "1.23 ms"}, {Seconds, 0.9999, "1.00 s"}, {Seconds, 1.5, "1.50 s"}, {Seconds, 59.99, "1.00 min"}, {Seconds, 90, "1.50 min"}, {Seconds, 7200, "2 h"},
		{Seconds, -0.02, "-20 ms"}, {Bytes, 0, "0 B"}, {Bytes, 1023, "1\u202f023 B"}, {Bytes, 1536, "1.50 KiB"}, {Bytes, 5 << 30, "5 GiB"}, {Bits, 19.6e6, "19.6 Mbit"}, {Share, 0.0578, "5.78 %"}, {Share, 0, "0 %"},
		{Number, 1234567, "1\u202f234\u202f567"}, {Number, 12345, "12\u202f345"}, {Number, 0.1234, "0.123"}, {Number, 1e12, "1.00e+12"}, {Number, 123.4, "123"}, {Number, 1e-9, "1.00e-09"},
		{Number, math.NaN(), "–"}, {Seconds, math.Inf(-1), "-∞"},
	} {
		if got := c.unit.Format(c.v); got != c.want {
			t.Errorf("%v is written %q instead of %q", c.v, got, c.want)
		}
	}
	for v, want := range map[float64]string{0.25: "+25.0 %", -0.001: "-0.1 %"} {
		if got := Percent(v); got != want {
			t.Errorf("a change of %v is written %q", v, got)
		}
	}
}

func TestUnitOf(t *testing.T) {
	for metric, want := range map[string]Unit{
		"rtt_seconds": Seconds, "eu.rtt_seconds.during.split": Seconds, "rtt_seconds.p95": Seconds, "sent_bytes": Bytes, "up_bits": Bits, "lost_share": Share, "hops": Number, "seconds": Number, "": Number,
	} {
		if got := UnitOf(metric); got != want {
			t.Errorf("the unit of %s is %d", metric, got)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		unit   Unit
		values []float64
		want   string
	}{
		{Seconds, []float64{0, 0.01}, "0 s, 5 ms, 10 ms"},
		{Seconds, []float64{1.381, 1.389}, "1.382 s, 1.384 s, 1.386 s, 1.388 s"},
		{Bits, []float64{9.65e6, 9.68e6}, "9.65 Mbit, 9.66 Mbit, 9.67 Mbit, 9.68 Mbit"},
		{Seconds, []float64{0.001, 0.09}, "1 ms, 2 ms, 5 ms, 10 ms, 20 ms, 50 ms"},
		{Number, []float64{1, 1e9}, "1, 100, 10\u202f000, 1\u202f000\u202f000, 100\u202f000\u202f000"},
		{Number, []float64{3, 3}, "2.8, 3, 3.2"},
	} {
		a := newAxis(c.values, 0, 1)
		var words []string
		for _, v := range a.ticks(5) {
			words = append(words, c.unit.tick(v))
		}
		if got := strings.Join(words, ", "); got != c.want {
			t.Errorf("the axis of %v is labelled %s instead of %s", c.values, got, c.want)
		}
	}
}

func TestColumns(t *testing.T) {
	for cells, want := range map[int]int{0: 1, 1: 1, 24: 24, 200: 25, 1000: 50, 10_000: 100} {
		if got := Columns(cells); got != want {
			t.Errorf("%d cells stand in %d columns", cells, got)
		}
	}
	if size := len(Grid("", "", strings.Repeat("sf", 5000))); size > 300<<10 {
		t.Errorf("a grid of 10,000 has %d bytes", size)
	}
}

func ExampleUnit_Format() {
	fmt.Println(UnitOf("lookup_seconds").Format(0.0824))
	// Output: 82.4 ms
}
