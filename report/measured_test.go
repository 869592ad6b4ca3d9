package report

import (
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	m := &material{census: &census{groups: []*group{{name: "eu"}, {name: "eu.west"}}}}
	for full, want := range map[string]string{
		"rtt": "|rtt|", "eu.rtt": "eu|rtt|", "eu.west.rtt": "eu.west|rtt|", "eu.rtt.during.split": "eu|rtt|during split", "rtt.before.a-b": "|rtt|before a-b", "us.rtt": "|us.rtt|", "eu.": "|eu.|", "": "||",
	} {
		group, name, when := m.split(full)
		if got := strings.Join([]string{group, name, when}, "|"); got != want {
			t.Errorf("%q is taken apart as %s instead of %s", full, got, want)
		}
	}
}

func TestSparse(t *testing.T) {
	var got []string
	for _, r := range sparse([]summaryRow{{Group: "a", Phase: "after x"}, {Group: "a", Phase: "before x"}, {}, {Group: "a"}, {Group: "b"}, {Phase: "after x"}, {Group: "a", Phase: "during x"}}) {
		got = append(got, r.Group+"|"+r.Phase)
	}
	if text := strings.Join(got, ", "); text != "|, a|, a|before x, a|during x, a|after x, b|" {
		t.Errorf("the rows are %s", text)
	}
}

func TestCurve(t *testing.T) {
	for _, n := range []int{1, 2, 5, 89, 90, 91, 1000, 100_000} {
		values := make([]float64, n)
		for i := range values {
			values[i] = float64(n - i)
		}
		c := curve("x", values)
		if len(c.Points) > mostCurvePoints || c.Points[len(c.Points)-1].Y != 1 || c.Points[len(c.Points)-1].X != float64(n) {
			t.Errorf("%d values become %d points that end at %v", n, len(c.Points), c.Points[len(c.Points)-1])
		}
		for i, p := range c.Points {
			if i > 0 && (p.X < c.Points[i-1].X || p.Y <= c.Points[i-1].Y) {
				t.Fatalf("of %d values, point %d falls", n, i)
			}
			if share := p.X / float64(n); share != p.Y {
				t.Fatalf("of %d values, %v are said to be at most %v", n, p.Y, p.X)
			}
		}
	}
}

func TestSingle(t *testing.T) {
	for text, want := range map[string]bool{
		`{"type":"point","name":"a,peer=1","measures":{"value":1}}`: true, `{"type":"timer","name":"a","measures":{"value":1}}`: true, `{"type":"gauge","name":"a","measures":{"value":1}}`: false,
		`{"type":"point","name":"","measures":{"value":1}}`: false, `{"type":"point","name":"a","measures":{"value":1e999}}`: false, `{"type":"histogram","name":"a","measures":{"count":1}}`: false, `[]`: false, ``: false, `null`: false,
	} {
		if _, _, ok := single([]byte(text), nil); ok != want {
			t.Errorf("%s is taken: %v", text, ok)
		}
	}
}

// The curve of the sample is that of the attempt that counts.
func TestSupersededValues(t *testing.T) {
	home := aHome(t)
	m, err := gather(home, passed(t, home, "x", 50).id)
	if err != nil {
		t.Fatal(err)
	}
	defer m.files.Close()
	r := m.readValues()
	if values := r.values["clients"]["lookup_seconds"]; len(values) != 200 || r.files != 5 {
		t.Errorf("%d values of %d files were read instead of 200 of 5", len(values), r.files)
	}
	for _, v := range r.values["clients"]["lookup_seconds"] {
		if v >= 1e9 {
			t.Error("what was measured in an attempt that another has taken the place of is drawn")
		}
	}
}
