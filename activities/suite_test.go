package activities

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/groundplan/groundplan/activities/notify"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

var night = time.Date(2026, 1, 2, 2, 0, 0, 0, time.UTC)

func nightly(execution string) stage.Turn {
	return stage.Turn{
		Suite: "nightly", Execution: execution, Ground: "local", Status: stage.StatusRunning, Due: night, Started: night.Add(time.Second),
		Runs: []stage.TurnRun{{Pipeline: "p.yaml", File: "p.yaml"}},
	}
}

func TestBeginSuite(t *testing.T) {
	s := &Suites{Home: runs.Home(t.TempDir())}
	schedule := pipelines.SuiteSchedule{Cron: "0 2 * * *", Timezone: "UTC"}
	begin := func(turn stage.Turn, spans ...stage.Span) stage.SuiteBegun {
		t.Helper()
		begun, err := s.Begin(t.Context(), stage.SuiteBegin{Turn: turn, Root: t.TempDir(), Schedule: schedule, Backfills: spans})
		if err != nil {
			t.Fatal(err)
		}
		return begun
	}
	first := begin(nightly("e1"))
	if first != (stage.SuiteBegun{ID: "20260102-020000", Trigger: runs.TriggerSchedule, Due: night}) {
		t.Errorf("got %+v", first)
	}
	if again := begin(nightly("e1")); again != first {
		t.Errorf("a second try makes another turn: %+v", again)
	}
	record, err := s.Home.ReadSuiteTurn("nightly", first.ID)
	if err != nil || record.Status != stage.StatusRunning || record.Execution != "e1" || len(record.Runs) != 1 {
		t.Errorf("%+v, %v", record, err)
	}
	// Somebody catches up with what was due then.
	span := stage.Span{From: night.Add(-time.Hour), To: night.Add(time.Hour), Asked: night.Add(5 * time.Hour)}
	late := nightly("e2")
	late.Started = night.Add(6 * time.Hour)
	if begun := begin(late, span); begun.ID != "20260102-020000-2" || begun.Trigger != runs.TriggerBackfill || !begun.Due.Equal(night) {
		t.Errorf("got %+v", begun)
	}
	late.Execution, late.Started = "e3", span.Asked.Add(-time.Minute) // before it was asked for
	if begun := begin(late, span); begun.ID != "20260102-020000-3" || begun.Trigger != runs.TriggerSchedule {
		t.Errorf("got %+v", begun)
	}
	// Temporal calls the moment at which a person asks the time at which the turn is due.
	person := nightly("e4")
	person.Due = night.Add(7 * time.Second)
	person.Started = person.Due.Add(time.Second)
	if begun := begin(person); begun.ID != "20260102-020008" || begun.Trigger != runs.TriggerPerson || !begun.Due.IsZero() {
		t.Errorf("got %+v", begun)
	}
}

func TestLoadSuitePipeline(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "plan", "p.yaml"), "pipeline: p\nenv: [SUITE_TEST]\nparameters: {n: 2}\ngroups: {a: {artifact: x, instances: =parameters.n}}\n"+
		"stages:\n  - {name: build, build: {x: {image: y}}}\n  - {name: place, schedule: {}}\n  - {name: go, run: {case: x}}\n")
	t.Setenv("SUITE_TEST", "seen")
	s := &Suites{}
	ask := stage.SuiteLoad{Root: root, File: "plan/p.yaml", Set: map[string]string{"n": "3"}, Compare: &pipelines.Compare{With: "last-success", Runs: 5}}
	loaded, err := s.Load(t.Context(), ask)
	if err != nil || loaded.Fault != "" || loaded.Bundle != nil {
		t.Fatalf("%+v, %v", loaded, err)
	}
	last := loaded.Pipeline.Stages[len(loaded.Pipeline.Stages)-1]
	if p := loaded.Pipeline; p.Instances() != 3 || p.Env["SUITE_TEST"] != "seen" || last.Name != "compare" || last.Collect.Compare.Runs != 5 {
		t.Errorf("got %+v", p)
	}
	write(t, filepath.Join(root, "plan", "p.yaml"), "pipeline: p\nmatrix: {axes: {n: [1, 2]}, maxParallel: 2}\ngroups: {a: {artifact: x, instances: =matrix.n}}\n"+
		"stages:\n  - {name: build, build: {x: {image: y}}}\n  - {name: place, schedule: {}}\n  - {name: go, run: {case: x}}\n")
	ask.Set = nil
	loaded, err = s.Load(t.Context(), ask)
	if err != nil || loaded.Fault != "" || len(loaded.Cells) != 2 || loaded.MaxParallel != 2 || loaded.Bundle.Compare.Runs != 5 {
		t.Fatalf("%+v, %v", loaded, err)
	}
	for text, want := range map[string]string{
		"pipeline: p\nstagse: []\ngruops: {}\n": "plan/p.yaml:1:1: pipeline needs the key `stages`; and 2 more: `groundplan validate plan/p.yaml`",
		"":                                      "plan/p.yaml",
	} {
		write(t, filepath.Join(root, "plan", "p.yaml"), text)
		loaded, err = s.Load(t.Context(), ask)
		if err != nil || !strings.Contains(loaded.Fault, want) || strings.Contains(loaded.Fault, "\n") || loaded.Pipeline.Name != "" {
			t.Errorf("%q: %+v, %v", text, loaded, err)
		}
	}
	ask.File = "plan/gone.yaml"
	if loaded, err = s.Load(t.Context(), ask); err != nil || !strings.Contains(loaded.Fault, "plan/gone.yaml: can't be read") {
		t.Errorf("%+v, %v", loaded, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCommit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	root := t.TempDir()
	if c := Commit(t.Context(), root); c != "" {
		t.Errorf("outside git: %q", c)
	}
	write(t, filepath.Join(root, "a"), "a")
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "m"}} {
		if out, err := exec.Command("git", append([]string{"-C", root}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	clean := Commit(t.Context(), root)
	write(t, filepath.Join(root, "a"), "b")
	if dirty := Commit(t.Context(), root); len(clean) != 40 || dirty != clean+"-dirty" {
		t.Errorf("clean %q, dirty %q", clean, dirty)
	}
}

// TestSuiteHistory plays nights of a suite of two pipelines, and shows what each brings to tell, and since when.
func TestSuiteHistory(t *testing.T) {
	s := &Suites{Home: runs.Home(t.TempDir())}
	var told strings.Builder
	for i, verdicts := range []string{
		"passed passed", "failed passed", "failed skipped", "passed invalid", "passed cancelled", "regressed passed",
		"passed passed", "passed passed", "skipped passed", "passed passed", "invalid invalid", "cancelled passed", "passed passed",
	} {
		turn := nightly(fmt.Sprint("e", i))
		turn.ID, turn.Started = night.AddDate(0, 0, i).Format("20060102-150405"), night.AddDate(0, 0, i)
		turn.Status, turn.Verdict, turn.Runs = stage.StatusEnded, stage.Passed, nil
		for n, v := range strings.Fields(verdicts) {
			r := stage.TurnRun{Pipeline: "p", File: "p.yaml", Run: fmt.Sprintf("nightly.%s.%d", turn.ID, n+1), Verdict: stage.Verdict(v)}
			if v == "regressed" {
				r.Verdict = stage.Failed
				record := runs.Record{ID: r.Run, Stages: []stage.Result{{Regressed: []string{"rtt.p95"}}}}
				if err := s.Home.Run(r.Run).WriteRecord(record); err != nil {
					t.Fatal(err)
				}
			}
			if r.Verdict != stage.Passed {
				turn.Verdict = r.Verdict
			}
			turn.Runs = append(turn.Runs, r)
		}
		recorded, err := s.Record(t.Context(), turn)
		if err != nil {
			t.Fatal(err)
		}
		written, err := s.Home.ReadSuiteTurn("nightly", turn.ID)
		if err != nil || !slices.Equal(written.News, recorded.News) {
			t.Fatalf("%v, written %v (%v)", recorded.News, written.News, err)
		}
		fmt.Fprintf(&told, "%s:", turn.ID[:8])
		for _, r := range written.Runs {
			fmt.Fprintf(&told, " %s", r.Verdict)
			if r.Since != "" {
				fmt.Fprintf(&told, " since %s", r.Since[:8])
			}
			if len(r.Regressed) > 0 {
				fmt.Fprintf(&told, " %v", r.Regressed)
			}
			told.WriteByte(',')
		}
		fmt.Fprintf(&told, " news: %s\n", strings.Join(recorded.News, " "))
	}
	golden.Compare(t, "testdata/suite-history.golden", told.String())
}

// TestSuiteOtherPipelines: a suite changes, and a pipeline is known again by its file.
func TestSuiteOtherPipelines(t *testing.T) {
	before := runs.SuiteTurn{ID: "1", Runs: []runs.SuiteRun{
		{File: "a", Verdict: stage.Passed}, {File: "b", Verdict: stage.Failed, Since: "0"}, {File: "b", Verdict: stage.Passed},
	}}
	now := runs.SuiteTurn{ID: "2", Runs: []runs.SuiteRun{
		{File: "b", Verdict: stage.Failed}, {File: "new", Verdict: stage.Failed}, {File: "b", Verdict: stage.Failed}, {File: "a"},
	}}
	var got []string
	for i := range now.Runs {
		got = append(got, past{before}.since(now, i))
	}
	if !slices.Equal(got, []string{"0", "2", "2", ""}) {
		t.Errorf("since %q", got)
	}
}

// TestRegressedCells: of a matrix, the cells say what was worse.
func TestRegressedCells(t *testing.T) {
	s := &Suites{Home: runs.Home(t.TempDir())}
	for _, r := range []runs.Record{
		{ID: "m", Cells: []stage.Cell{{Run: "m.1", Verdict: stage.Passed}, {Run: "m.2", Verdict: stage.Failed}, {Run: "m", Verdict: stage.Failed}, {Run: "gone", Verdict: stage.Failed}}},
		{ID: "m.1", Stages: []stage.Result{{Regressed: []string{"not this"}}}},
		{ID: "m.2", Stages: []stage.Result{{}, {Regressed: []string{"rtt.p95"}}}},
	} {
		if err := s.Home.Run(r.ID).WriteRecord(r); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.regressed("m"); !slices.Equal(got, []string{"rtt.p95"}) {
		t.Errorf("got %v", got)
	}
}

// receiver is a webhook that answers what it is told to, one after the other.
type receiver struct {
	answers []int
	ids     []string
	bodies  [][]byte
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	r.ids, r.bodies = append(r.ids, request.Header.Get("webhook-id")), append(r.bodies, body)
	code := r.answers[min(len(r.bodies), len(r.answers))-1]
	w.WriteHeader(code)
}

// tell tells of a turn as the activity does, try after try, until it is over; and what the record says then.
func tell(t *testing.T, answers ...int) (*receiver, string, error) {
	t.Helper()
	r := &receiver{answers: answers}
	server := httptest.NewServer(r)
	defer server.Close()
	variables := map[string]string{
		"GROUNDPLAN_SECRET_URL": server.URL + "/s3cret", "GROUNDPLAN_SECRET_KEY": "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32)),
	}
	s := &Suites{Home: runs.Home(t.TempDir())}
	s.Secrets = notify.Secrets{Home: s.Home, Getenv: func(name string) (string, bool) { v, ok := variables[name]; return v, ok }}
	turn := nightly("4f1c")
	turn.ID, turn.Status, turn.Verdict, turn.Reason, turn.Ended = "20260102-020000", stage.StatusEnded, stage.Failed, "failed: 1 of 1 pipeline did not pass (p): why <b>", night.Add(time.Minute)
	turn.Runs[0] = stage.TurnRun{Pipeline: "p", File: "p.yaml", Run: "nightly.20260102-020000.1", Verdict: stage.Failed, Reason: "why <b>", Started: night, Ended: night.Add(time.Minute)}
	if _, err := s.Record(t.Context(), turn); err != nil {
		t.Fatal(err)
	}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivityWithOptions(s.Tell, activity.RegisterOptions{Name: stage.ActivitySuiteTell})
	ask := stage.SuiteTell{Suite: "nightly", Turn: turn.ID, Notify: pipelines.Notify{Webhook: "=secrets.URL", Secret: "=secrets.KEY", On: []string{"failed"}}}
	var err error
	for range answers {
		if _, err = env.ExecuteActivity(stage.ActivitySuiteTell, ask); err == nil || !retryable(err) {
			break
		}
	}
	record, fault := s.Home.ReadSuiteTurn("nightly", turn.ID)
	if fault != nil {
		t.Fatal(fault)
	}
	return r, record.Notified, err
}

func retryable(err error) bool {
	var application *temporal.ApplicationError
	return !errors.As(err, &application) || !application.NonRetryable()
}

func TestTell(t *testing.T) {
	r, notified, err := tell(t, 503, 429, 200)
	if err != nil || !strings.HasPrefix(notified, "told at ") || !strings.HasSuffix(notified, "200 OK") {
		t.Errorf("%q, %v", notified, err)
	}
	if !slices.Equal(r.ids, []string{"msg_4f1c", "msg_4f1c", "msg_4f1c"}) || string(r.bodies[0]) != string(r.bodies[2]) {
		t.Errorf("ids %v; the same body: %t", r.ids, string(r.bodies[0]) == string(r.bodies[2]))
	}
	var m map[string]any
	if err := json.Unmarshal(r.bodies[0], &m); err != nil {
		t.Fatal(err)
	}
	data := m["data"].(map[string]any)
	if data["host"] = "a-host"; data["home"] == "" {
		t.Error("the message doesn't say where to look")
	}
	data["home"] = "/home"
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/webhook.golden.json", string(text)+"\n")
}

func TestTellInVain(t *testing.T) {
	r, notified, err := tell(t, 404, 200)
	if err == nil || retryable(err) || len(r.ids) != 1 || notified != "not told: the webhook answered 404 Not Found" {
		t.Errorf("%q after %d calls, %v", notified, len(r.ids), err)
	}
	_, notified, err = tell(t, 500)
	if err == nil || !retryable(err) || !strings.HasPrefix(notified, "not told yet: the webhook answered 500") {
		t.Errorf("%q, %v", notified, err)
	}
	for _, text := range []string{fmt.Sprint(err), notified} {
		if strings.Contains(text, "s3cret") || strings.Contains(text, "127.0.0.1") {
			t.Errorf("it tells a secret: %s", text)
		}
	}
}

func TestTold(t *testing.T) {
	s := &Suites{Home: runs.Home(t.TempDir())}
	for before, want := range map[string]string{
		"": "a day is over", "not told yet (try 9): 503": "a day is over",
		"not told: 404": "not told: 404", "told at 02:00": "told at 02:00",
	} {
		turn := runs.SuiteTurn{Suite: "nightly", ID: "20260102-020000", Notified: before}
		if err := s.Home.WriteSuiteTurn(turn); err != nil {
			t.Fatal(err)
		}
		if err := s.Told(context.Background(), stage.SuiteTold{Suite: turn.Suite, Turn: turn.ID, Text: "a day is over"}); err != nil {
			t.Fatal(err)
		}
		if after, err := s.Home.ReadSuiteTurn(turn.Suite, turn.ID); err != nil || after.Notified != want {
			t.Errorf("%q becomes %q (%v)", before, after.Notified, err)
		}
	}
}
