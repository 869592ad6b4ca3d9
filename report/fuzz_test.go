package report

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzFolder puts anything in the place of one of the files that a run keeps, and makes a report of it.
func FuzzFolder(f *testing.F) {
	home := aHome(f)
	folder := failed(f, home, "x", 3).folder()
	files := []string{
		folder.Record(), folder.Pipeline(), folder.Events(), folder.Stage("lookup"), folder.Proof("wan"), folder.Comparison(), folder.Samples(),
		filepath.Join(folder.Outputs("clients", 0), "results.out"),
	}
	var whole [][]byte
	for which, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		whole = append(whole, data)
		f.Add(byte(which), data[:min(len(data), 2000)])
	}
	for which, text := range []string{
		`{"stages":[{"stage":"","attempt":-1,"started":"9999-01-01T00:00:00Z"}],"metrics":{".":{"p50":1e308,"max":-1e308}},"cells":[{}],"groups":{"":{}}}`,
		`{"groups":[{"name":"a","instances":-3},{"name":"clients","instances":3},{"name":"","instances":2}],"stages":[{"name":"x"},{"name":"x"}]}`,
		"{\"attempt\":\"x--1\",\"stage\":\"x\",\"kind\":\"stage-started\"}\n{",
		`{"group":"clients","index":2,"attempt":"lookup-99999999999999999999","cpu":-1e300}`,
		`{"pairs":[{"asked":{"latency":"-1h","bandwidth":"1bit"}}],"tolerance":"100%"}`,
		`{"findings":[{"figure":"","before":1e-300,"low":-1e300,"high":1e300,"change":1e300}]}`,
		`{"clients.hops":[{"p50":1},{"p50":-1},{"p50":1e-320},{"p50":0},{"p50":5}]}`,
		`{"ts":1,"type":"point","name":"hops","measures":{"value":1e400}}`,
	} {
		f.Add(byte(which), []byte(text))
	}
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		at := int(which) % len(files)
		if err := os.WriteFile(files[at], data, 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.WriteFile(files[at], whole[at], 0o644)
		var b bytes.Buffer
		if err := run(&b, home, "x", made); err != nil {
			t.Fatalf("there is no report: %v", err)
		}
		html := b.String()
		html = html[strings.Index(html, "<body"):strings.LastIndex(html, "<script>")]
		for part := range strings.SplitSeq(html, "<svg") {
			svg, _, _ := strings.Cut(part, "</svg>")
			if lines := drawn(svg); strings.Contains(lines, "NaN") || strings.Contains(lines, "Inf") {
				t.Errorf("no number stands in a picture: %s", svg)
			}
		}
		if strings.Count(html, "<script") > 1 || strings.Contains(html, "ZgotmplZ") {
			t.Error("a script stands in the page, or what the templates refuse")
		}
	})
}

// drawn is what a picture's lines are made of.
func drawn(svg string) string {
	var b strings.Builder
	for _, part := range strings.Split(svg, ` d="`)[1:] {
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
