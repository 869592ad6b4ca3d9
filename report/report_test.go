package report

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// body is a document without style, script and policy, which have tests of their own.
func body(html string) string {
	for _, part := range []string{`(?s)<style>.*?</style>`, `(?s)<script>.*?</script>`, `<meta http-equiv="Content-Security-Policy"[^>]*>`} {
		html = regexp.MustCompile(part).ReplaceAllString(html, "")
	}
	return html
}

func TestReports(t *testing.T) {
	home := aHome(t)
	for _, s := range []*sample{passed(t, home, "passed", 50), failed(t, home, "failed", 50), invalid(t, home, "invalid", 10)} {
		t.Run(s.id, func(t *testing.T) { golden.Compare(t, filepath.Join("testdata", s.id+".golden.html"), body(s.html())) })
	}
}

// What a person looks for first is told first.
func TestVerdictFirst(t *testing.T) {
	home := aHome(t)
	earlier := passed(t, home, "lookup-1", 50)
	earlier.record.Started = start.Add(-time.Hour)
	earlier.save()
	html := body(failed(t, home, "lookup-2", 50).html())
	main := html[strings.Index(html, "<main"):]
	at := 0
	for _, want := range []string{
		`failed</span>`, `in stage <strong>lookup (attempt 2)</strong>`, `5 of 50 instances did not succeed`, `no route to 10.0.0.3</h1>`,
		`The run before it passed.`, `href="../lookup-1/report.html"`, `What went wrong`, `4 instances crashed in stage lookup`, `clients/3, clients/20, clients/37, servers/3`, `main.go:12`,
		`failed in stage lookup`, `failure: answer is late`, `1 instance never had an outcome: <span class="mono">clients/11</span>`, `metrics.hops.max &lt; 4.0`, `metrics.hops.max = 120`, `id="stages"`,
	} {
		next := strings.Index(main[at:], want)
		if next < 0 {
			t.Fatalf("%q isn't told, or not in its place behind\n%s", want, main[max(at-300, 0):at])
		}
		at += next
	}
}

func TestSince(t *testing.T) {
	home := aHome(t)
	for i, v := range []stage.Verdict{stage.Passed, stage.Failed, stage.Cancelled, stage.Invalid} {
		s := passed(t, home, fmt.Sprintf("lookup-%d", i), 3)
		s.record.Verdict, s.record.Started = v, start.Add(time.Duration(i-10)*time.Hour)
		s.save()
	}
	if html := failed(t, home, "newest", 3).html(); !strings.Contains(html, `3 runs in a row have not passed, since <a href="../lookup-1/report.html">`) || !strings.Contains(html, `Last passed: <a href="../lookup-0/report.html">`) {
		t.Error("it isn't told since when runs have not passed")
	}
	if html := reportOf(t, home, "lookup-0"); strings.Contains(html, "in a row") {
		t.Error("a run that passed has a since")
	}
}

func TestNoFolder(t *testing.T) {
	home := aHome(t)
	for _, id := range []string{"there-is-none", "../etc", "", ".."} {
		var b bytes.Buffer
		if err := Run(&b, home, id); err == nil || b.Len() > 0 {
			t.Errorf("%q has a report of %d bytes", id, b.Len())
		}
	}
	if err := Run(&bytes.Buffer{}, home, "there-is-none"); !errors.Is(err, runs.ErrNoRecord) {
		t.Errorf("a run that isn't there is refused with %v", err)
	}
}

// A run's folder at every point of its life, and after every accident, has a report that says what is missing.
func TestHalfWritten(t *testing.T) {
	cut := func(path string) func(*sample) {
		return func(s *sample) {
			full := filepath.Join(string(s.folder()), path)
			data, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			s.text(full, string(data[:len(data)*2/3]))
		}
	}
	remove := func(path string) func(*sample) {
		return func(s *sample) {
			if err := os.RemoveAll(filepath.Join(string(s.folder()), path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		break_ func(*sample)
		want   []string
	}{
		"cut run.json":        {cut("run.json"), []string{"run.json can&#39;t be read", "There is no record of this run"}},
		"no run.json":         {remove("run.json"), []string{"There is no record of this run", "clients/3"}},
		"no pipeline.json":    {remove("pipeline.json"), []string{"no route to"}},
		"cut pipeline.json":   {cut("pipeline.json"), []string{"pipeline.json can&#39;t be read"}},
		"no stages":           {remove("stages"), []string{"did not succeed"}},
		"cut stage":           {cut("stages/lookup.jsonl"), []string{"did not succeed"}},
		"cut proof":           {cut("stages/wan.network.json"), []string{"wan.network.json can&#39;t be read"}},
		"cut comparison.json": {cut("comparison.json"), []string{"comparison.json can&#39;t be read"}},
		"cut samples.json":    {cut("samples.json"), []string{"samples.json can&#39;t be read"}},
		"garbage lines": {func(s *sample) {
			s.text(s.folder().Events(), "{\"kind\":\n\x00\xff\n[]\n\"text\"\n"+strings.Repeat("x", 2<<20)+"\n")
			s.text(s.folder().Stage("lookup"), "null\n{\"group\":\"clients\",\"index\":-5,\"attempt\":\"lookup-9\"}\n{\"group\":7}\n")
		}, []string{"lines in events.jsonl could not be read", "1 line in stages/lookup.jsonl could not be read"}},
		"an empty folder": {func(s *sample) {
			if err := errors.Join(os.RemoveAll(string(s.folder())), os.MkdirAll(string(s.folder()), 0o755)); err != nil {
				t.Fatal(err)
			}
		}, []string{"There is no record of this run"}},
		"pipes and links": {func(s *sample) {
			outputs := s.folder().Outputs("clients", 0)
			if err := errors.Join(os.RemoveAll(outputs), os.MkdirAll(outputs, 0o755), syscall.Mkfifo(filepath.Join(outputs, "run.err"), 0o644),
				os.Symlink("/etc/passwd", filepath.Join(outputs, "run.out")), os.Symlink("/dev/zero", filepath.Join(outputs, "results.out"))); err != nil {
				t.Fatal(err)
			}
		}, []string{"did not succeed"}},
	} {
		t.Run(name, func(t *testing.T) {
			home := aHome(t)
			s := failed(t, home, "x", 20)
			c.break_(s)
			html := s.html()
			for _, want := range c.want {
				if !strings.Contains(html, want) {
					t.Errorf("the report doesn't say %q", want)
				}
			}
			if strings.Contains(html, "root:") {
				t.Error("a link was followed out of the run's folder")
			}
			if !strings.HasSuffix(strings.TrimSpace(html), "</html>") {
				t.Error("the report is half written itself")
			}
		})
	}
}

func TestUnderWay(t *testing.T) {
	home := aHome(t)
	s := newSample(t, home, "going", 20)
	s.record.Status, s.record.Verdict, s.record.Reason, s.record.Ended, s.record.Stages, s.record.Tries = stage.StatusRunning, "", "", time.Time{}, nil, nil
	s.save()
	for _, e := range []runs.Event{
		{Time: after(0), Kind: "stage-started", Stage: "build", Attempt: "build-1"}, {Time: after(time.Second), Kind: runs.KindStageEnded, Stage: "build", Attempt: "build-1", Text: `stage "build" ended: passed`},
		{Time: after(2 * time.Second), Kind: "stage-started", Stage: "place", Attempt: "place-1"},
		{Time: after(3 * time.Second), Kind: runs.KindStageEnded, Stage: "place", Attempt: "place-1", Text: `stage "place" ended: invalid: no memory left`},
		{Time: after(4 * time.Second), Kind: "stage-started", Stage: "place", Attempt: "place-2"},
	} {
		if err := s.folder().AppendEvent(e); err != nil {
			t.Fatal(err)
		}
	}
	html := body(s.html())
	for _, want := range []string{"running</span>", "in stage &#34;place&#34;; 1 of 5 stages had ended", "no memory left", "attempt 2", "so far", "not begun"} {
		if !strings.Contains(html, want) {
			t.Errorf("the report of a run under way doesn't say %q", want)
		}
	}
	s.record.Status, s.record.Reason = stage.StatusHolding, `stage "place" — no memory left`
	s.save()
	if err := s.folder().AppendEvent(runs.Event{Time: after(5 * time.Second), Kind: "run-holding", Text: "the run is holding"}); err != nil {
		t.Fatal(err)
	}
	if html := body(s.html()); !strings.Contains(html, "holding</span>") || !strings.Contains(html, "the run held and still does") || strings.Index(html, "the run held") > strings.Index(html, `class="name">lookup<`) {
		t.Error("the report of a run that holds doesn't say so")
	}
}

func TestMatrix(t *testing.T) {
	home := aHome(t)
	s := newSample(t, home, "m", 3)
	s.record.Stages, s.record.Tries = nil, nil
	s.record.Verdict, s.record.Reason = stage.Failed, "failed: 1 of 2 cells did not pass"
	s.record.Cells = []stage.Cell{
		{Run: "m.1", Values: map[string]any{"rtt": "80ms", "peers": 3}, Verdict: stage.Passed},
		{Run: "m.2", Values: map[string]any{"rtt": "<b>", "peers": 3}, Verdict: stage.Failed, Reason: `failed: stage "a" — why`},
		{Run: "../../evil", Verdict: stage.Passed},
	}
	s.save()
	html := body(s.html())
	for _, want := range []string{`<a href="../m.1/report.html">m.1</a>`, "peers=3 rtt=80ms", `stage &#34;a&#34; — why`, "rtt=&lt;b&gt;"} {
		if !strings.Contains(html, want) {
			t.Errorf("the cells don't show %q", want)
		}
	}
	if strings.Contains(html, `href="../../../evil`) || strings.Contains(html, `id="stages"`) {
		t.Error("a matrix has stages, or a link out of the runs")
	}
}

// An output of any size costs no more than its end.
func TestHugeOutput(t *testing.T) {
	home := aHome(t)
	s := failed(t, home, "huge", 20)
	path := filepath.Join(s.folder().Outputs("clients", 19), "run.err")
	s.text(path, "")
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const size = 10 << 30 // mostly a hole
	if _, err := file.WriteAt([]byte("\nthe very last line\n"), size); err != nil {
		t.Skipf("no file of 10 GiB can be made here: %v", err)
	}
	m, err := gather(home, "huge")
	if err != nil {
		t.Fatal(err)
	}
	defer m.files.Close()
	if lines := m.lastLines(&life{group: "clients", index: 19}); len(lines) == 0 || lines[len(lines)-1] != "the very last line" {
		t.Errorf("its last lines are %q", lines)
	}
}

func TestTenThousand(t *testing.T) {
	home := aHome(t)
	s := failed(t, home, "many", 10_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	html := s.html()
	runtime.ReadMemStats(&after)
	t.Logf("11,000 instances: %d KiB in %v, %d MiB allocated", len(html)>>10, time.Since(began).Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20)
	if len(html) > 2<<20 {
		t.Errorf("a report of 11,000 instances has %d bytes: more than 2 MiB", len(html))
	}
}

func BenchmarkTenThousand(b *testing.B) {
	home := aHome(b)
	failed(b, home, "many", 10_000)
	for b.Loop() {
		var out bytes.Buffer
		if err := run(&out, home, "many", made); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(out.Len()))
	}
}

func TestClusters(t *testing.T) {
	var lives []*life
	for i := range 30 {
		lives = append(lives, &life{group: "a", index: i, outcome: control.OutcomeFailed, stage: "s", reason: fmt.Sprintf("peer %d at 0x%x is away", i, i*255)})
	}
	lives[4].outcome, lives[5].reason = control.OutcomeSucceeded, "another"
	list, more := clusters(lives)
	if more != 0 || len(list) != 2 || list[0].Count != 28 || list[0].Names != "a/0–3, a/6–29" || list[1].Names != "a/5" {
		t.Errorf("they are put together as %+v", list)
	}
	for i := range lives {
		lives[i].reason = strings.Repeat("x", i)
		lives[i].index = 2 * i
	}
	if list, more = clusters(lives); len(list) != mostClusters || more != 29-mostClusters {
		t.Errorf("%d ways are shown and %d aren't", len(list), more)
	}
	for i := range lives {
		lives[i].reason = ""
	}
	if list, _ = clusters(lives); !strings.HasSuffix(list[0].Names, "and 17 more") {
		t.Errorf("very many ranges are %q", list[0].Names)
	}
}

func TestAgain(t *testing.T) {
	home := aHome(t)
	m, err := gather(home, passed(t, home, "x", 3).id)
	if err != nil {
		t.Fatal(err)
	}
	defer m.files.Close()
	want := `groundplan run plans/lookup/pipeline.yaml --seed 7 --set 'note=it'\''s "quoted"' --set peers=3 --set rate=20Mbit`
	if got := m.again(); got != want {
		t.Errorf("the command line is\n%s\ninstead of\n%s", got, want)
	}
}

// Whatever a pipeline says of its size, a report stays one that can be opened.
func TestTooManyToDraw(t *testing.T) {
	home := aHome(t)
	s := failed(t, home, "x", 20)
	s.groups[0].Instances, s.groups[1].Instances = 150_000, 2_000_000_000
	s.save()
	html := s.html()
	for _, want := range []string{"too many to be drawn", "the group &#34;servers&#34; has 2000000000 instances: only 850000 are looked at", "1 instance crashed in stage lookup"} {
		if !strings.Contains(html, want) {
			t.Errorf("the report doesn't say %q", want)
		}
	}
	if len(html) > 1<<20 {
		t.Errorf("it has %d bytes", len(html))
	}
}

// On a cluster it is the nodes' sidecars that say what went wrong.
func TestNodeLogs(t *testing.T) {
	home := aHome(t)
	s := invalid(t, home, "x", 10)
	s.record.Ground = "kubernetes"
	s.save()
	s.text(s.folder().NodeLog("node-a"), "")
	s.text(s.folder().NodeLog("node-b"), "the image can't be pulled\n")
	html := s.html()
	if !strings.Contains(html, "Last lines of nodes/node-b.log") || !strings.Contains(html, "the image can&#39;t be pulled") || strings.Contains(html, "node-a.log") || !strings.Contains(html, "on kubernetes") || !strings.Contains(html, "--on kubernetes") {
		t.Error("the nodes' logs aren't shown, or those that are empty are")
	}
}
