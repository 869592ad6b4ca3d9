package terminal

import (
	"bytes"
	"testing"
	"time"
)

func TestElapsed(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                       "0ms",
		340 * time.Millisecond:             "340ms",
		999*time.Millisecond + 999:         "999ms",
		12*time.Second + 449*1e6:           "12.4s",
		12 * time.Second:                   "12.0s",
		59*time.Second + 999*1e6:           "59.9s",
		3*time.Minute + 4*time.Second:      "3m04s",
		26*time.Hour + 2*time.Minute + 1e9: "26h02m",
	} {
		if got := Elapsed(d); got != want {
			t.Errorf("Elapsed(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                    "plain",
		"two\nlines\there":         "two lines here",
		"\x1b]0;title\x07red\x1b[": "]0;titlered[",
		"a\u202eb":                 "ab",
		"größe 日本":                 "größe 日本",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"short", 10, "short"},
		{"exactly", 7, "exactly"},
		{"too long", 5, "too …"},
		{"日本語", 4, "日…"},
		{"any", 0, ""},
		{"any", -3, ""},
	} {
		got := Fit(c.text, c.width)
		if got != c.want {
			t.Errorf("Fit(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
		if Width(got) > max(0, c.width) {
			t.Errorf("Fit(%q, %d) is %d wide", c.text, c.width, Width(got))
		}
	}
}

func TestWrap(t *testing.T) {
	got := Wrap("one two  three-is-long four", 8)
	want := []string{"one two", "three-is-long", "four"}
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d: %q, want %q", i, got[i], want[i])
		}
	}
}

func TestNewWithoutTerminal(t *testing.T) {
	var b bytes.Buffer
	term := New(&b, false, func(string) string { return "" })
	if term.Live || term.Color {
		t.Error("a buffer is not a terminal")
	}
	if w, h := term.Size(); w != 80 || h != 24 {
		t.Errorf("size %d×%d", w, h)
	}
	if got := term.Paint(Red, "x"); got != "x" {
		t.Errorf("painted %q", got)
	}
}

func TestTable(t *testing.T) {
	term := &Terminal{}
	got := term.Table([][]Cell{
		{Text("STAGE"), {Text: "TIME", Right: true}, Text("NOTE")},
		{Text("build"), {Text: "2.1s", Right: true}, Text("1 artifact")},
		{Text("warm-up"), {Text: "12.0s", Right: true}},
	})
	want := "  STAGE     TIME  NOTE\n  build     2.1s  1 artifact\n  warm-up  12.0s\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	live := &Terminal{Live: true, Color: true}
	for _, row := range [][]Cell{{Text("a"), {Text: "this last column is far too long for the eighty columns of a terminal, it gives way", Style: Red}}} {
		line := live.row(row, columnWidths([][]Cell{row}), 40)
		if want := "  a  \x1b[31mthis last column is far too long f…\x1b[0m"; line != want {
			t.Errorf("%q", line)
		}
	}
}
