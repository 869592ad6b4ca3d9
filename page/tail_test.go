package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// got reads what is new of a file.
func got(t *testing.T, tl *tail, path string) (lines []string, anew bool) {
	t.Helper()
	anew, _, err := tl.read(path, func(offset int64, line []byte) {
		lines = append(lines, fmt.Sprintf("%d:%.20s", offset, line))
	})
	must(t, err)
	return lines, anew
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lines")
	var tl tail
	for _, step := range []struct {
		do   func()
		want string
		anew bool
	}{
		{func() {}, "[]", false}, // it is not there yet
		{func() { appendTo(t, path, "one\ntw") }, "[0:one]", false},
		{func() {}, "[]", false},
		{func() { appendTo(t, path, "o\n\nfour\n") }, "[4:two 8: 9:four]", false},
		{func() { must(t, os.WriteFile(path, []byte("x\n"), 0o600)) }, "[0:x]", true}, // it was cut
		{func() { must(t, os.WriteFile(path+".new", []byte("other\n"), 0o600), os.Rename(path+".new", path)) }, "[0:other]", true},
		{func() { must(t, os.Remove(path)) }, "[]", true},
		{func() { appendTo(t, path, strings.Repeat("y", mostLine+chunk)+"\nafter\n") }, "", false},
	} {
		step.do()
		lines, anew := got(t, &tl, path)
		if step.want != "" && fmt.Sprint(lines) != step.want || anew != step.anew {
			t.Errorf("read %v (anew: %v), want %s", lines, anew, step.want)
		}
		if step.want == "" && !strings.HasSuffix(lines[len(lines)-1], ":after") {
			t.Errorf("behind a line that is too long comes %v", lines)
		}
	}
}

// A file that is longer than what is read at a look is read in several, each line once.
func TestTailOfMuch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lines")
	var text bytes.Buffer
	const all = 300_000
	for i := range all {
		fmt.Fprintf(&text, "line %d %s\n", i, strings.Repeat("x", 60))
	}
	must(t, os.WriteFile(path, text.Bytes(), 0o600))
	var tl tail
	n, looks := 0, 0
	for more := true; more; looks++ {
		var err error
		_, more, err = tl.read(path, func(_ int64, line []byte) {
			if !bytes.HasPrefix(line, fmt.Appendf(nil, "line %d ", n)) {
				t.Fatalf("line %d is %.40s", n, line)
			}
			n++
		})
		must(t, err)
	}
	for n < all { // what is less than a line's length is left for the next look
		before := n
		_, _, err := tl.read(path, func(int64, []byte) { n++ })
		must(t, err)
		if looks++; n == before {
			break
		}
	}
	if n != all || looks < 3 {
		t.Errorf("%d lines in %d looks", n, looks)
	}
}

// However a file is cut up into writes, the same lines come, and a tail is never ahead of what is there.
func FuzzTail(f *testing.F) {
	f.Add([]byte("a\nb\n"), 1)
	f.Add([]byte("\n\n\x00\xff"), 2)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		path := filepath.Join(t.TempDir(), "lines")
		at = max(0, min(at, len(data)))
		var tl tail
		var read []byte
		for _, part := range [][]byte{data[:at], data[at:]} {
			appendTo(t, path, string(part))
			_, _, err := tl.read(path, func(offset int64, line []byte) {
				if offset != int64(len(read)) {
					t.Fatalf("a line at %d comes behind %d bytes", offset, len(read))
				}
				read = append(append(read, line...), '\n')
			})
			must(t, err)
		}
		want := data[:bytes.LastIndexByte(data, '\n')+1]
		if !bytes.Equal(read, want) {
			t.Errorf("%q was read as %q", data, read)
		}
	})
}

func FuzzCutPart(f *testing.F) {
	f.Add([]byte("half\nwhole\nhalf"), true)
	f.Fuzz(func(t *testing.T, data []byte, onwards bool) {
		p := cutPart(logPart{From: 7, To: 7 + int64(len(data)), Size: 100}, data, onwards)
		if p.From < 7 || p.To > 7+int64(len(data)) || p.From > p.To {
			t.Errorf("%q is told as %d to %d", data, p.From, p.To)
		}
		if _, err := json.Marshal(p); err != nil {
			t.Error(err)
		}
	})
}

func FuzzReadProof(f *testing.F) {
	f.Add([]byte(`{"shaper":"netem","pairs":[{"from":"a/0","asked":{"latency":"1ms"},"ok":true}]}`))
	f.Add([]byte(`{"pairs":[{},null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := readProof("s", data)
		if err == nil && (len(p.Shown) > mostPairs || p.Faults > p.Pairs) {
			t.Errorf("%q gives %+v", data, p)
		}
		if m := readMetrics(data); m != nil && len(m.Metrics) > m.Total {
			t.Errorf("%q gives %+v", data, m)
		}
	})
}

// A run of many stages and instances keeps the last of them.
func TestOutcomesOfManyStages(t *testing.T) {
	w := newWorld(t)
	p := aPipeline("dht", mostKept/4)
	p.Groups = p.Groups[:1]
	p.Groups[0].Instances = mostInstances
	p.Stages = nil
	o := newOutcomes()
	folder := w.home.Run("run-1")
	for i := range 2 + mostKept/mostInstances {
		p.Stages = append(p.Stages, pipelines.Stage{Name: fmt.Sprintf("s%02d", i), Kind: pipelines.KindRun})
		appendTo(t, folder.Stage(p.Stages[i].Name), line("eu", i, "a", "failed", "no"))
	}
	o.place(groupsOf(&p), p.Stages)
	o.read(folder, func(string, any) {})
	var last outcomesMessage
	o.whole(func(_ string, body any) { last = body.(outcomesMessage) })
	if last.Stage != "s21" || len(last.Stages) != mostKept/mostInstances || last.Stages[0] != "s02" {
		t.Errorf("it keeps %v, and tells %s", last.Stages, last.Stage)
	}
	p.Groups[0].Instances++ // too many to be shown
	o = newOutcomes()
	o.place(groupsOf(&p), p.Stages)
	o.read(folder, func(kind string, _ any) { t.Errorf("it told %s", kind) })
}

// Rows say what came of stages, whichever way it is known.
func TestRows(t *testing.T) {
	w := newWorld(t)
	p := aPipeline("dht", 4)
	folder := w.ended("run-1", p, stage.Failed, "lookups", "no")
	r := newRun(w.home, w.fake, "run-1")
	rec, err := folder.ReadRecord()
	must(t, err)
	rec.Stages, rec.Tries = rec.Stages[:4], []stage.Result{{Stage: "lookups"}, {Stage: "lookups"}}
	rec.Stages[2].Notes = []string{"a", "b"}
	must(t, folder.WriteRecord(rec))
	r.look(t.Context())(func(string, any) {})
	var text []string
	for _, row := range r.rows {
		text = append(text, fmt.Sprintf("%s %s %s %q", row.Name, row.Phase, row.Verdict, row.Note))
	}
	want := `build ended passed ""; place ended passed ""; wan ended passed "a · b"; lookups ended failed "tried 2 times before"; gather pending  ""`
	if got := strings.Join(text, "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	rec.Cells = []stage.Cell{{Run: "run-1.1", Verdict: stage.Passed, Values: map[string]any{"rtt": "5ms"}}, {Run: "run-1.2"}}
	must(t, folder.WriteRecord(rec))
	r.look(t.Context())(func(string, any) {})
	if len(r.rows) != 2 || r.rows[0].Run != "run-1.1" || r.rows[1].Phase != "pending" || !r.head.Matrix {
		t.Errorf("of a matrix: %+v", r.rows)
	}
	must(t, os.Remove(folder.Pipeline()))
	again := newRun(w.home, w.fake, "run-1")
	rec.Cells = nil
	must(t, folder.WriteRecord(rec))
	again.look(t.Context())(func(string, any) {})
	if len(again.rows) != 4 || again.rows[3].Verdict != stage.Failed {
		t.Errorf("without the pipeline: %+v", again.rows)
	}
}
