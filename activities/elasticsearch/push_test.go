package elasticsearch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

func TestMain(m *testing.M) {
	if asked := os.Getenv(elsewhere); asked != "" {
		if err := pushOnly(asked); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// hasty are limits under which a test doesn't wait.
var hasty = limits{
	batchBytes: 4 << 10, batchDocuments: 20, patience: 5 * time.Second, firstPatience: 300 * time.Millisecond,
	leastWait: time.Millisecond, mostWait: 20 * time.Millisecond, mostRefused: 200,
}

var began = time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return began.Add(time.Duration(seconds * float64(time.Second)))
}

// run makes the folder of a run with one run stage, an event in it, and files in its outputs.
func run(t testing.TB, files map[string]string) Order {
	t.Helper()
	folder := runs.Home(t.TempDir()).Run("run-1")
	for _, e := range []runs.Event{
		{Time: at(-1), Kind: "run-running", Text: "the run began"},
		{Time: at(0), Kind: "stage-started", Stage: "lookups", Attempt: "lookups-1", Text: "stage started"},
		{Time: at(10), Kind: runs.KindEventBegan, Stage: "lookups", Attempt: "lookups-1", Event: "split", At: 10 * time.Second, Text: "split"},
		{Time: at(20), Kind: runs.KindEventEnded, Stage: "lookups", Attempt: "lookups-1", Event: "split", At: 20 * time.Second, Text: "healed"},
		{Time: at(30), Kind: runs.KindStageEnded, Stage: "lookups", Attempt: "lookups-1", Text: "stage ended: passed"},
	} {
		if err := folder.AppendEvent(e); err != nil {
			t.Fatal(err)
		}
	}
	row, err := json.Marshal(control.Instance{
		Group: "eu", Index: 0, Stage: "lookups", Attempt: "lookups-1", Started: at(0.5), Ended: at(29), Outcome: "crashed", Reason: "it panicked",
		LastLines: []string{"panic: <b>no</b>"}, PeakMemory: 1 << 20, Exit: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, folder.Stage("lookups"), string(row)+"\n")
	if err := runs.WriteJSON(folder.Metrics(), map[string]pipelines.Summary{
		"rtt_seconds": {Count: 2, Sum: 3, P99: 2}, "eu.rtt_seconds.during.split": {Count: 1, Sum: 1},
	}); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		write(t, filepath.Join(string(folder), "outputs", name), content)
	}
	return Order{Folder: folder, Index: "logs", Input: stage.Input{
		Run: stage.Run{ID: "run-1", Ground: "local", Commit: "abc", Suite: "nightly", Turn: "20261123-020000"}, Pipeline: "test",
		Groups:   []pipelines.Group{{Name: "eu", Instances: 2}},
		Stages:   []stage.Result{{Stage: "lookups", Kind: pipelines.KindRun, Attempt: 1, Verdict: stage.Passed, Started: at(0), Ended: at(30)}},
		Deadline: time.Now().Add(time.Minute),
	}}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, s Server, o Order) Outcome {
	t.Helper()
	out, err := s.push(t.Context(), o, hasty, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// numbered is a log of n lines.
func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s line %d of many\n", at(float64(i)/100).Format(time.RFC3339Nano), i)
	}
	return b.String()
}

// TestDocuments compares every document of a run with testdata/documents.golden.
func TestDocuments(t *testing.T) {
	f := newFake(t)
	o := run(t, map[string]string{
		"eu/0/run.out": `{"ts":` + fmt.Sprint(at(15).UnixNano()) + `,"msg":"","group_id":"eu","run_id":"run-1","event":{"message_event":{"message":"<script>"}}}` + "\n" +
			"plain \"quoted\" \\ \x00\x01 \xff é\r\n\n" +
			`{"time":"` + at(25).Format(time.RFC3339Nano) + `","level":"INFO","msg":"healed"}` + "\n" +
			"time=" + at(26).Format(time.RFC3339Nano) + " level=INFO msg=x\n" +
			`{"ts":1,"event":"not believed"}` + "\n" + `{"broken` + "\nno end",
		"eu/0/run.err":       "before anything\n",
		"eu/1/results.out":   `{"ts":` + fmt.Sprint(at(5).UnixNano()) + `,"type":"point","name":"rtt_seconds","measures":{"value":1}}` + "\n",
		"eu/1/deep/app.log":  "",
		"eu/1/heap.pprof":    "not a log",
		"eu/1/core.log":      "\x1f\x8b\x00\x00\xff\xfe\x00\x01",
		"eu/x/run.out":       "nobody's",
		"stray.log":          "nobody's",
		"eu/1/deep/er/x.err": strings.Repeat("x", 10) + "\n" + strings.Repeat("é", mostLine) + "\nlast\n",
	})
	if out := must(t, Server{URL: f.URL}, o); out.Reason != "" || len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "eu/1/core.log") {
		t.Errorf("%+v", out)
	}
	var lines []string
	for id, d := range f.documents {
		if text, _ := d["message"].(string); len(text) > 100 {
			d["message"] = fmt.Sprintf("%s… %d bytes", text[:4], len(text))
		}
		line, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%v %v %v %s %s", d["kind"], d["file"], d["instance"], line, id))
	}
	slices.Sort(lines)
	golden.Compare(t, "testdata/documents.golden", strings.Join(lines, "\n")+"\n")
}

// TestTwice pushes twice, the second time without knowing of the first, and finds everything once.
func TestTwice(t *testing.T) {
	f := newFake(t)
	o := run(t, map[string]string{"eu/0/run.out": numbered(500), "eu/1/run.out": numbered(100)})
	for range 3 {
		if out := must(t, Server{URL: f.URL}, o); out.Reason != "" {
			t.Error(out.Reason)
		}
		if got := len(f.messages(kindLog)); got != 600 || len(f.documents) != 600+5+1+2 {
			t.Errorf("%d lines in %d documents", got, len(f.documents))
		}
		if err := os.Remove(o.Folder.Push(o.Index)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFaults has the server do what servers do, and finds every line once, and the file of what was refused in order.
func TestFaults(t *testing.T) {
	calls := 0
	every := func(n int) bool { calls++; return calls%n == 0 }
	for name, set := range map[string]func(*fake){
		"429 for whole requests": func(f *fake) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if every(3) {
					return false
				}
				w.Header().Set("Retry-After", "0")
				f.say(w, http.StatusTooManyRequests, "es_rejected_execution_exception", "busy")
				return true
			}
		},
		"429 and 503 for documents": func(f *fake) {
			f.item = func(string, []byte) (int, string, string) {
				if every(2) {
					return 429 + 74*(calls%4/2), "es_rejected_execution_exception", "busy"
				}
				return 0, "", ""
			}
		},
		"answers cut in the middle": func(f *fake) {
			f.after = func(w http.ResponseWriter, answer []byte) bool {
				if every(2) {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
				_, _ = w.Write(answer[:len(answer)/2])
				return true
			}
		},
		"answers about nothing": func(f *fake) {
			f.after = func(w http.ResponseWriter, _ []byte) bool {
				if every(2) {
					return false
				}
				_, _ = io.WriteString(w, `{"items":[]}`)
				return true
			}
		},
		"requests of any size refused but small ones": func(f *fake) { f.most = 700 },
		"a proxy in between": func(f *fake) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if every(2) {
					return false
				}
				w.WriteHeader(http.StatusBadGateway)
				_, _ = io.WriteString(w, "<html>bad gateway</html>")
				return true
			}
		},
		"plans' JSON refused": func(f *fake) {
			f.item = func(_ string, document []byte) (int, string, string) {
				if bytes.Contains(document, []byte(`"event":`)) {
					return 400, "document_parsing_exception", "failed to parse"
				}
				return 0, "", ""
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			calls = 0
			set(f)
			log := numbered(300) + `{"a":1,"a":2}` + "\n"
			out := must(t, Server{URL: f.URL}, run(t, map[string]string{"eu/0/run.out": log}))
			if out.Reason != "" {
				t.Error(out.Reason)
			}
			checkLines(t, f, "eu/0/run.out", log)
		})
	}
}

func checkLines(t *testing.T, f *fake, name, log string) {
	t.Helper()
	want := map[string]string{}
	offset := 0
	for _, l := range strings.SplitAfter(log, "\n") {
		if l != "" {
			want[fmt.Sprintf("%s:%d", name, offset)] = strings.TrimSuffix(l, "\n")
		}
		offset += len(l)
	}
	if got := f.messages(kindLog); !maps.Equal(got, want) {
		t.Errorf("%d lines are there, want %d", len(got), len(want))
	}
}

// TestRefused has the server refuse one line in ten; a later push has them taken.
func TestRefused(t *testing.T) {
	f := newFake(t)
	refuse := func(_ string, document []byte) (int, string, string) {
		if bytes.Contains(document, []byte(`7 of many`)) || bytes.Contains(document, []byte(`"rtt_seconds"`)) {
			return 400, "document_parsing_exception", "I don't like sevens"
		}
		return 0, "", ""
	}
	f.item = refuse
	log := numbered(300)
	o := run(t, map[string]string{"eu/0/run.out": log})
	for try := range 4 {
		if try == 2 { // a killed worker left more than it noted
			file, err := os.OpenFile(o.Folder.Refused(o.Index), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = file.WriteString(`{"id":"half`)
			if err := errors.Join(err, file.Close()); err != nil {
				t.Fatal(err)
			}
		}
		out := must(t, Server{URL: f.URL}, o)
		if want := "Elasticsearch refused 31 documents: status 400 Bad Request: I don't like sevens; kept in " + o.Folder.Refused(o.Index); !strings.HasPrefix(out.Reason, want) {
			t.Errorf("try %d: %s", try, out.Reason)
		}
		data, err := os.ReadFile(o.Folder.Refused(o.Index))
		if err != nil || bytes.Count(data, []byte("\n")) != 31 {
			t.Errorf("try %d: %d lines are kept, %v", try, bytes.Count(data, []byte("\n")), err)
		}
	}
	f.item = nil
	if out := must(t, Server{URL: f.URL}, o); out.Reason != "" {
		t.Error(out.Reason)
	}
	checkLines(t, f, "eu/0/run.out", log)
	if _, err := os.Stat(o.Folder.Refused(o.Index)); !os.IsNotExist(err) {
		t.Error("the file of refused documents is still there")
	}
}

// TestGivesUp compares what a person reads when not everything came there with testdata/reasons.golden.
func TestGivesUp(t *testing.T) {
	var got strings.Builder
	bulk := func(status int, kind, reason string) func(*fake) {
		return func(f *fake) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "_bulk") || f.bulks < 3 && status != http.StatusForbidden {
					return false
				}
				f.say(w, status, kind, reason)
				return true
			}
		}
	}
	for _, c := range []struct {
		name string
		set  func(*fake)
	}{
		{"killed", func(f *fake) {
			f.after = func(http.ResponseWriter, []byte) bool { f.CloseClientConnections(); return true }
		}},
		{"busy for good", bulk(http.StatusTooManyRequests, "es_rejected_execution_exception", "queue is full")},
		{"disk full", bulk(http.StatusTooManyRequests, "cluster_block_exception", "index [logs] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block]")},
		{"no rights", bulk(http.StatusForbidden, "security_exception", "action [indices:data/write/bulk] is unauthorized")},
		{"most refused", func(f *fake) {
			f.item = func(string, []byte) (int, string, string) {
				return 400, "strict_dynamic_mapping_exception", "mapping set to strict"
			}
		}},
		{"another product", func(f *fake) {
			f.before = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Del("X-Elastic-Product")
				_, _ = io.WriteString(w, `{}`)
				return true
			}
		}},
		{"index removed", func(f *fake) {
			f.before = func(http.ResponseWriter, *http.Request) bool {
				if f.bulks == 10 {
					f.made = 7
				}
				return false
			}
		}},
	} {
		f := newFake(t)
		o := run(t, map[string]string{"eu/0/run.out": numbered(1000)})
		c.set(f)
		l := hasty
		l.patience = 100 * time.Millisecond
		out, err := Server{URL: strings.Replace(f.URL, "//", "//me:hunter2@", 1)}.push(t.Context(), o, l, func(note string) {
			if strings.Contains(note, "hunter2") {
				t.Errorf("a password is told: %s", note)
			}
		})
		text := strings.NewReplacer(string(o.Folder), "RUN", strings.TrimPrefix(f.URL, "http://"), "SERVER").Replace(out.Reason)
		fmt.Fprintf(&got, "%s\n\t%s %v\n", c.name, steady(text), err)
		f.mu.Lock()
		f.before, f.item, f.after, f.exists, f.made = nil, nil, nil, true, 1
		f.mu.Unlock()
		if out := must(t, Server{URL: f.URL}, o); out.Reason != "" {
			t.Errorf("%s: afterwards: %s", c.name, out.Reason)
		}
		checkLines(t, f, "eu/0/run.out", numbered(1000))
	}
	f := newFake(t)
	f.Close()
	out := must(t, Server{URL: f.URL}, run(t, nil))
	fmt.Fprintf(&got, "away\n\t%s\n", steady(strings.NewReplacer(strings.TrimPrefix(f.URL, "http://"), "SERVER").Replace(out.Reason[:120])))
	out = must(t, Server{URL: f.URL, CA: "no/such/file"}, run(t, nil))
	fmt.Fprintf(&got, "no certificates\n\t%s\n", out.Reason)
	golden.Compare(t, "testdata/reasons.golden", got.String())
}

// TestInterrupted cancels pushes at many places; the next ones go on and every line is there once.
func TestInterrupted(t *testing.T) {
	f := newFake(t)
	log := numbered(2000)
	o := run(t, map[string]string{"eu/0/run.out": log})
	stopped := 0
	for bulks := 1; ; bulks += 7 {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("the worker is stopping")
		f.mu.Lock() // a request of the push before may still be answered
		f.after = func(http.ResponseWriter, []byte) bool {
			if f.bulks >= bulks {
				cancel(stop)
			}
			return false
		}
		f.mu.Unlock()
		out, err := Server{URL: f.URL}.push(ctx, o, hasty, func(string) {})
		cancel(nil)
		if err == nil {
			if out.Reason != "" {
				t.Error(out.Reason)
			}
			break
		}
		stopped++
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
	}
	if stopped < 5 {
		t.Errorf("stopped only %d times", stopped)
	}
	checkLines(t, f, "eu/0/run.out", log)
}

// TestOutputs pushes outputs that a hostile or unlucky plan left.
func TestOutputs(t *testing.T) {
	f := newFake(t)
	o := run(t, map[string]string{"eu/0/good.log": "good\n", "eu/0/secret": "root\n", "eu/0/x/y.log": "y\n"})
	folder := o.Folder.Outputs("eu", 0)
	for link, to := range map[string]string{"passwd.log": "/etc/passwd", "inside.log": "secret", "loop.log": "loop.log", "folder": "/etc", "again": "x"} {
		if err := os.Symlink(to, filepath.Join(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	big, err := os.Create(filepath.Join(folder, "big.log"))
	if err != nil {
		t.Fatal(err)
	}
	// 10 GB that take no room: 9,999,999,999 bytes of nothing between two lines of text would take minutes to read, and
	// is no text; it is told by its beginning.
	if err := errors.Join(big.Truncate(10e9), big.Close()); err != nil {
		t.Fatal(err)
	}
	out := must(t, Server{URL: f.URL}, o)
	if out.Reason != "" || len(out.Notes) != 1 || out.Notes[0] != "1 file was not pushed to Elasticsearch, as no text: eu/0/big.log" {
		t.Errorf("%+v", out)
	}
	want := map[string]string{"eu/0/good.log:0": "good", "eu/0/x/y.log:0": "y"}
	if got := f.messages(kindLog); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestVanishing has files grow and go away while they are pushed.
func TestVanishing(t *testing.T) {
	f := newFake(t)
	o := run(t, map[string]string{"eu/0/a.log": numbered(100), "eu/0/b.log": "b\n", "eu/1/c.log": "c\n"})
	f.after = func(http.ResponseWriter, []byte) bool {
		_ = os.Remove(filepath.Join(o.Folder.Outputs("eu", 0), "b.log"))
		_ = os.RemoveAll(o.Folder.Outputs("eu", 1))
		file, err := os.OpenFile(filepath.Join(o.Folder.Outputs("eu", 0), "a.log"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return false
		}
		_, err = file.WriteString(strings.Repeat("more\n", 10000))
		if err := errors.Join(err, file.Close()); err != nil {
			t.Error(err)
		}
		return false
	}
	l := hasty
	l.batchDocuments = 3
	out, err := Server{URL: f.URL}.push(t.Context(), o, l, func(string) {})
	if err != nil || out.Reason != "" {
		t.Error(out, err)
	}
	if n := len(f.messages(kindLog)); n < 100 || n > 102 {
		t.Errorf("%d lines", n)
	}
}

// Two collect stages may push to two indices: neither forgets what was refused at the other.
func TestTwoIndices(t *testing.T) {
	strict, kind := newFake(t), newFake(t)
	strict.item = func(_ string, document []byte) (int, string, string) {
		if bytes.Contains(document, []byte(`7 of many`)) {
			return 400, "document_parsing_exception", "I don't like sevens"
		}
		return 0, "", ""
	}
	log := numbered(30)
	first := run(t, map[string]string{"eu/0/run.out": log})
	second := first
	second.Index = "others"
	if out := must(t, Server{URL: strict.URL}, first); !strings.HasPrefix(out.Reason, "Elasticsearch refused 3 documents") {
		t.Fatal(out.Reason)
	}
	if out := must(t, Server{URL: kind.URL}, second); out.Reason != "" {
		t.Fatal(out.Reason)
	}
	checkLines(t, kind, "eu/0/run.out", log)
	strict.item = nil
	if out := must(t, Server{URL: strict.URL}, first); out.Reason != "" {
		t.Fatal(out.Reason)
	}
	checkLines(t, strict, "eu/0/run.out", log)
}
