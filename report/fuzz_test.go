package report

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/runs"
)

// FuzzFolder writes files that anything may stand in, where a run keeps its own, and makes a report of them.
func FuzzFolder(f *testing.F) {
	home := aHome(f)
	s := failed(f, home, "seed", 5)
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		return data
	}
	folder := s.folder()
	f.Add(read(folder.Record()), read(folder.Pipeline()), read(folder.Events()), read(folder.Stage("lookup")), read(folder.Proof("wan")), read(folder.Comparison()), read(folder.Samples()))
	f.Add([]byte(`{"stages":[{"stage":"","attempt":-1,"started":"9999-01-01T00:00:00Z"}],"metrics":{".":{"p50":1e308,"max":-1e308}},"cells":[{}],"groups":{"":{}}}`),
		[]byte(`{"groups":[{"name":"a","instances":-3},{"name":"a","instances":3},{"name":"","instances":2}],"stages":[{"name":"x"},{"name":"x"}]}`),
		[]byte("{\"attempt\":\"x--1\",\"stage\":\"x\",\"kind\":\"stage-started\"}\n{"), []byte(`{"group":"a","index":2,"attempt":"lookup-99999999999999999999","cpu":-1e300}`),
		[]byte(`{"pairs":[{"asked":{"latency":"-1h","bandwidth":"1bit"}}],"tolerance":"100%"}`), []byte(`{"findings":[{"figure":"","before":1e-300,"low":-1e300,"high":1e300,"change":1e300}]}`),
		[]byte(`{"a.x":[{"p50":1},{"p50":-1},{"p50":1e-320},{"p50":0},{"p50":5}]}`))
	f.Fuzz(func(t *testing.T, record, pipeline, events, rows, proof, comparison, samples []byte) {
		home := runs.Home(t.TempDir())
		folder := home.Run("x")
		for path, data := range map[string][]byte{
			folder.Record(): record, folder.Pipeline(): pipeline, folder.Events(): events, folder.Stage("lookup"): rows, folder.Proof("wan"): proof,
			folder.Comparison(): comparison, folder.Samples(): samples, filepath.Join(folder.Outputs("a", 0), "results.out"): rows, filepath.Join(folder.Outputs("a", 0), "run.err"): events,
		} {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		var b bytes.Buffer
		if err := run(&b, home, "x", made); err != nil {
			t.Fatalf("there is no report: %v", err)
		}
		html := body(b.String())
		for _, not := range []string{"NaN", "Inf", "ZgotmplZ", "<no value>"} {
			for _, part := range strings.SplitAfter(html, "<svg")[1:] {
				svg, _, _ := strings.Cut(part, "</svg>")
				if strings.Contains(svg, ` d="`) && strings.Contains(drawn(svg), not) {
					t.Errorf("%s stands in a picture: %s", not, svg)
				}
			}
		}
		if strings.Count(html, "<script") > 1 {
			t.Error("a script stands in the page")
		}
	})
}

// drawn is what a picture's lines are made of.
func drawn(svg string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(svg, ` d="`) {
		line, _, _ := strings.Cut(part, `"`)
		b.WriteString(line)
	}
	return b.String()
}

// FuzzTail reads the end of anything.
func FuzzTail(f *testing.F) {
	f.Add([]byte("a\nb\n"))
	f.Add([]byte("\x1b[31mred\x1b[0m\n\x00\xff\r\n"))
	f.Add([]byte(`{"ts":1,"event":{"crash_event":{"error":"e","stacktrace":"a\nb"}}}`))
	f.Add(bytes.Repeat([]byte("x"), tailBytes+10))
	f.Fuzz(func(t *testing.T, data []byte) {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, "run.err"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		files, err := openTree(folder)
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		lines := files.tail("run.err")
		if len(lines) > 2*tailLines {
			t.Errorf("%d lines are shown", len(lines))
		}
		for _, line := range lines {
			if len([]rune(line)) > shownRunes+1 || strings.ContainsAny(line, "\x1b\x00\n\u202e") {
				t.Errorf("a line is %q", line)
			}
		}
	})
}
