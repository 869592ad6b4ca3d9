package outcome

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestJudge writes down what becomes of every way to report under every way to end, in both modes.
func TestJudge(t *testing.T) {
	reports := []struct {
		name string
		Report
	}{
		{"nothing", Report{}},
		{"success", Report{Success: true}},
		{"failure", Report{Failure: true, Failed: "too\n slow"}},
		{"failure without words", Report{Failure: true}},
		{"crash", Report{Crash: true, Crashed: "nil map"}},
		{"success, then failure", Report{Success: true, Failure: true, Failed: "late"}},
		{"failure, then crash", Report{Failure: true, Failed: "bad", Crash: true, Crashed: "worse"}},
	}
	ends := []struct {
		name string
		End
	}{
		{"exit 0", End{}},
		{"exit 3", End{Exit: 3}},
		{"exit 2 with a Go panic", End{Exit: 2, Panic: "index out of range"}},
		{"SIGABRT with a Go panic", End{Exit: -1, Signal: "SIGABRT", Panic: "index out of range"}},
		{"SIGSEGV", End{Exit: -1, Signal: "SIGSEGV"}},
		{"killed by an event", End{Exit: -1, Signal: "SIGKILL", Event: "the event churn"}},
		{"cut off", End{Exit: -1, Signal: "SIGKILL", Cut: "still running when the stage's timeout ended"}},
	}
	var table strings.Builder
	for _, mode := range []string{pipelines.OutcomeReport, pipelines.OutcomeExit} {
		for _, r := range reports {
			for _, e := range ends {
				result, reason := Judge(mode, r.Report, e.End)
				fmt.Fprintf(&table, "%-6s | %-21s | %-22s | %-9s | %s\n", mode, r.name, e.name, result, reason)
				if (reason == "") != (result == control.OutcomeSucceeded) {
					t.Errorf("%s, %s, %s: %s for %q", mode, r.name, e.name, result, reason)
				}
				if Decided(mode, r.Report) {
					if again, _ := Judge(mode, r.Report, End{Exit: -1, Signal: "SIGKILL", Cut: "x"}); again != result && e.Signal != "SIGSEGV" && e.Panic == "" {
						t.Errorf("%s, %s is said to be decided, but is %s or %s", mode, r.name, result, again)
					}
				}
			}
		}
	}
	const path = "testdata/judge.golden"
	if *update {
		if err := os.WriteFile(path, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := table.String(); got != string(want) {
		t.Errorf("%s differs (run with -update when that is meant):\n%s", path, got)
	}
}

func TestScan(t *testing.T) {
	success := `{"ts":1,"msg":"","group_id":"g","run_id":"r","event":{"success_event":{"group":"g"}}}`
	failure := `{"ts":1,"event":{"failure_event":{"group":"g","error":"first"}}}`
	crash := `{"ts":1,"event":{"crash_event":{"group":"g","error":"boom","stacktrace":"x\ny"}}}`
	for name, c := range map[string]struct {
		stdout string
		want   Report
	}{
		"empty":                         {"", Report{}},
		"plain lines":                   {"hello\n\n{\n}\n{\"event\":\"success_event\"}\n", Report{}},
		"success":                       {"x\n" + success + "\ny\n", Report{Success: true}},
		"without a newline at the end":  {success, Report{Success: true}},
		"with carriage returns":         {"  " + success + " \r\n", Report{Success: true}},
		"talk about an event":           {`saw {"event":{"success_event":{}}}` + "\n", Report{}},
		"an event in a message":         {`{"event":{"message_event":{"message":"\"success_event\":{}"}}}` + "\n", Report{}},
		"an old success":                {`{"ts":1,"event":{"type":"finish","outcome":"ok"}}` + "\n", Report{Success: true}},
		"an old failure":                {`{"ts":1,"event":{"type":"finish","outcome":"failed","error":"too slow"}}` + "\n", Report{Failure: true, Failed: "too slow"}},
		"an old crash":                  {`{"ts":1,"event":{"type":"finish","outcome":"crashed","error":"no redis","stacktrace":"x"}}` + "\n", Report{Crash: true, Crashed: "no redis"}},
		"old words that are none":       {`{"event":{"type":"start","outcome":"ok"}}` + "\n" + `{"event":{"type":"finish","outcome":"odd"}}` + "\n", Report{}},
		"a null event":                  {`{"event":{"success_event":null}}` + "\n", Report{}},
		"wrong types":                   {`{"event":{"failure_event":{"error":5}}}` + "\n", Report{}},
		"the first of each kind counts": {failure + "\n" + strings.Replace(failure, "first", "second", 1) + "\n" + crash + "\n", Report{Failure: true, Failed: "first", Crash: true, Crashed: "boom"}},
		"a line that is too long":       {"{" + strings.Repeat("_event\"", 1<<18) + "\n" + success + "\n", Report{Success: true}},
		"a long event":                  {`{"event":{"crash_event":{"error":"boom","stacktrace":"` + strings.Repeat("x", 900<<10) + `"}}}` + "\n", Report{Crash: true, Crashed: "boom"}},
		"cut off in the middle":         {success[:len(success)-4], Report{}},
	} {
		for kind, reader := range map[string]io.Reader{
			"": strings.NewReader(c.stdout), ", in pieces": iotest.HalfReader(strings.NewReader(c.stdout)),
		} {
			got, err := Scan(reader)
			if got != c.want || err != nil {
				t.Errorf("%s%s: %+v, %v; want %+v", name, kind, got, err, c.want)
			}
		}
	}
	if _, err := Scan(iotest.ErrReader(errors.New("disk on fire"))); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("a read error got lost: %v", err)
	}
}

func TestScanTakesLittleMemory(t *testing.T) {
	huge := io.MultiReader(io.LimitReader(zeros{}, 256<<20), strings.NewReader("\n{\"event\":{\"success_event\":{}}}"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := Scan(huge)
	runtime.ReadMemStats(&after)
	if err != nil || !got.Success {
		t.Errorf("%+v, %v", got, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("%d bytes were allocated for a line of 256 MiB", used)
	}
}

// zeros is a line without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func TestEvent(t *testing.T) {
	for document, want := range map[string]Report{
		`{"success_event":{"group":"g"}}`:                {Success: true},
		`{"failure_event":{"group":"g","error":"e"}}`:    {Failure: true, Failed: "e"},
		`{"crash_event":{"group":"g","error":"e"}}`:      {Crash: true, Crashed: "e"},
		`{"stage_start_event":{"name":"x","group":"g"}}`: {},
		`{"event":{"success_event":{}}}`:                 {},
		`"success_event"`:                                {},
		`{"success_event":`:                              {},
	} {
		if got := Event([]byte(document)); got != want {
			t.Errorf("%s: %+v, want %+v", document, got, want)
		}
	}
}

func TestPanic(t *testing.T) {
	for stderr, want := range map[string]string{
		"": "",
		"log\npanic: runtime error: index out of range [3]\n\ngoroutine 1 [running]:\nmain.main()\n": "runtime error: index out of range [3]",
		"fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [select (no cases)]:\n":   "fatal error: all goroutines are asleep - deadlock!",
		"panic: said somebody\n": "",
		"goroutine 1 is fine\n":  "",
		"panic: one [recovered]\n\tpanic: two\n\ngoroutine 7 [running]:\npanic: three\ngoroutine 8\n": "one [recovered]",
	} {
		if got, err := Panic(strings.NewReader(stderr)); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", stderr, got, err, want)
		}
	}
}

func TestMessage(t *testing.T) {
	stack := "goroutine 7 [running]:\nmain.look()\n\t/src/main.go:12 +0x1d\n"
	for said, want := range map[string]string{
		"nil map":                       "nil map",
		"nil map\n\n" + stack:           "nil map\n\n",
		stack + "panic: nil map\n":      "nil map\n",
		stack:                           stack,
		"it waits for goroutine 7":      "it waits for goroutine 7",
		"first\ngoroutine 7 is stuck\n": "first\n",
	} {
		if got := message(said); got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
}

func TestPanicLines(t *testing.T) {
	stack := "\ngoroutine 7 [running]:\nmain.look()\n\t/src/main.go:12 +0x1d\n"
	others := strings.Repeat("\ngoroutine 8 [select]:\nmain.wait()\n", 100)
	for stderr, want := range map[string]string{
		"panic: nil map\n" + stack:                              "panic: nil map|goroutine 7 [running]:|main.look()|\t/src/main.go:12 +0x1d",
		"panic: one [recovered]\n\tpanic: two\n" + stack:        "panic: one [recovered]|\tpanic: two|goroutine 7 [running]:|main.look()|\t/src/main.go:12 +0x1d",
		"log\nfatal error: all goroutines are asleep\n" + stack: "fatal error: all goroutines are asleep|goroutine 7 [running]:|main.look()|\t/src/main.go:12 +0x1d",
		"panic: said by the way\nand on it goes\n":              "",
		"panic: by the way\npanic: nil map\n" + stack:           "panic: nil map|goroutine 7 [running]:|main.look()|\t/src/main.go:12 +0x1d",
		"": "",
	} {
		got, err := PanicLines(strings.NewReader(stderr))
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%q: got %q, %v", stderr, got, err)
		}
	}
	got, err := PanicLines(strings.NewReader("panic: nil map\n" + stack + others))
	if err != nil || len(got) != lastLines || got[0] != "panic: nil map" {
		t.Errorf("of a long dump: %q, %v", got, err)
	}
	if _, err := PanicLines(iotest.ErrReader(errors.New("gone"))); err == nil {
		t.Error("an error of the reader was lost")
	}
}

func TestLastLines(t *testing.T) {
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, "line %d of many, so that they don't fit\n\n", i)
	}
	lines, err := LastLines(strings.NewReader(many.String()), 0, int64(many.Len()))
	if err != nil || len(lines) != 10 || !strings.HasPrefix(lines[0], "line 9990 ") || !strings.HasPrefix(lines[9], "line 9999 ") {
		t.Errorf("%q, %v", lines, err)
	}
	text := "before\nold\n" + strings.Repeat("é", 400) + "\nlast"
	lines, err = LastLines(strings.NewReader(text), int64(len("before\n")), int64(len(text)))
	if err != nil || len(lines) != 3 || lines[0] != "old" || lines[2] != "last" {
		t.Errorf("%q, %v", lines, err)
	}
	if len(lines[1]) > 500 || !utf8.ValidString(lines[1]) || !strings.HasSuffix(lines[1], "é…") {
		t.Errorf("%d bytes: %q", len(lines[1]), lines[1])
	}
	if lines, err := LastLines(strings.NewReader("x"), 1, 1); lines != nil || err != nil {
		t.Errorf("of nothing: %q, %v", lines, err)
	}
}

func TestCut(t *testing.T) {
	for text, want := range map[string]string{"": "", "short": "short", "exactly 10": "exactly 10", "more than ten": "more th…", "ééééééé": "ééé…", "a\xffb": "a\uFFFDb"} {
		if got := Cut(text, 10); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte("{\"event\":{\"success_event\":{}}}\nx\r\n"), 3)
	f.Add(bytes.Repeat([]byte("x"), 100_000), 7)
	f.Fuzz(func(t *testing.T, stdout []byte, piece int) {
		whole, err := Scan(bytes.NewReader(stdout))
		if err != nil {
			t.Fatal(err)
		}
		// However the output comes in, and line by line, it says the same.
		piece = max(1, piece%64)
		var readers []io.Reader
		for part := range slices.Chunk(stdout, piece) {
			readers = append(readers, bytes.NewReader(part))
		}
		if pieces, err := Scan(io.MultiReader(readers...)); pieces != whole || err != nil {
			t.Errorf("%+v in pieces, %+v whole, %v", pieces, whole, err)
		}
		var lines Report
		for line := range bytes.Lines(stdout) {
			if len(line) <= longestLine {
				lines.Add(Line(line))
			}
		}
		if lines != whole {
			t.Errorf("%+v line by line, %+v whole", lines, whole)
		}
		Event(stdout)
		if last, err := LastLines(bytes.NewReader(stdout), 0, int64(len(stdout))); err != nil || len(last) > lastLines {
			t.Errorf("%d last lines, %v", len(last), err)
		}
	})
}
