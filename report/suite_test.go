package report

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// nightly writes a suite of so many turns, with a pipeline that gets slower and one that began to fail.
func nightly(t testing.TB, home runs.Home, turns int) {
	for i := range turns {
		at := start.AddDate(0, 0, i-turns)
		turn := runs.SuiteTurn{
			ID: at.Format("20060102-150405"), Suite: "nightly", File: "suites/nightly.yaml", Ground: "local", Commit: "0123456789abcdef0123-dirty", Trigger: runs.TriggerSchedule,
			Due: at, Started: at, Ended: at.Add(10 * time.Minute), Status: stage.StatusEnded, Verdict: stage.Passed,
		}
		upload := runs.SuiteRun{Pipeline: "upload", File: "plans/upload/pipeline.yaml", Run: fmt.Sprintf("nightly.%s.1", turn.ID), Verdict: stage.Passed, Started: at, Ended: at.Add(3 * time.Minute)}
		lookup := runs.SuiteRun{Pipeline: "lookup", File: "plans/lookup/pipeline.yaml", Run: fmt.Sprintf("nightly.%s.2", turn.ID), Verdict: stage.Passed, Started: at, Ended: at.Add(7 * time.Minute)}
		s := newSample(t, home, upload.Run, 3)
		seconds := 4.5 + 0.01*float64(i%3)
		outcome := comparison.Outcome{Run: upload.Run, Alpha: 0.05, Findings: []comparison.Finding{{Figure: "completion_seconds.p50", Judgement: comparison.Same}}}
		if i >= turns-2 {
			seconds += 1
			outcome.Findings[0].Judgement = comparison.Regressed
			upload.Verdict, upload.Reason, upload.Regressed = stage.Failed, `failed: stage "gather" — regressed: completion_seconds.p50`, []string{"completion_seconds.p50 is 5.5 instead of 4.5"}
			turn.Verdict, turn.Reason, turn.News = stage.Failed, "failed: upload regressed", []string{runs.NewsRegressed}
			upload.Since = start.AddDate(0, 0, -2).Format("20060102-150405")
		}
		if i == 1 {
			lookup.Verdict, lookup.Reason, turn.Verdict = stage.Invalid, "invalid: the network could not be held", stage.Invalid
			seconds = 0
		}
		if i == 2 {
			lookup.Run, lookup.Verdict = "", ""
		}
		s.record.Metrics = map[string]pipelines.Summary{"completion_seconds": {Count: 3, P50: seconds}}
		s.record.Verdict, s.record.Reason = upload.Verdict, upload.Reason
		s.save()
		if i > 2 {
			s.write(s.folder().Comparison(), outcome)
		}
		turn.Runs = []runs.SuiteRun{upload, lookup}
		if err := home.WriteSuiteTurn(turn); err != nil {
			t.Fatal(err)
		}
	}
}

func suiteOf(t testing.TB, home runs.Home, name string) string {
	t.Helper()
	var b bytes.Buffer
	if err := suiteAt(&b, home, name, made); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSuite(t *testing.T) {
	home := aHome(t)
	nightly(t, home, 8)
	golden.Compare(t, filepath.Join("testdata", "suite.golden.html"), body(suiteOf(t, home, "nightly")))
}

func TestSuiteWithFaults(t *testing.T) {
	home := aHome(t)
	nightly(t, home, 3)
	folder := filepath.Join(home.Suites(), "nightly")
	for name, text := range map[string]string{"20270101-000000.json": `{"runs": [`, "notes.txt": "x", "99999999-999999.json": `{"suite":"<script>alert(1)</script>","verdict":"failed","runs":[{"pipeline":"</td><script>alert(2)</script>","run":"../../../x"}],"news":["<i>"]}`} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	html := suiteOf(t, home, "nightly")
	for _, want := range []string{"20270101-000000.json can&#39;t be read", "&lt;/td&gt;&lt;script&gt;"} {
		if !strings.Contains(html, want) {
			t.Errorf("the report doesn't say %q", want)
		}
	}
	if strings.Contains(html, "<script>alert") || strings.Contains(html, `x/report.html`) {
		t.Error("a turn's words stand in the page as they are")
	}
}

func TestNoHistory(t *testing.T) {
	home := aHome(t)
	var b bytes.Buffer
	if err := Suite(&b, home, "nightly"); !errors.Is(err, ErrNoHistory) || b.Len() > 0 {
		t.Errorf("a suite without history is refused with %v", err)
	}
	if err := os.MkdirAll(filepath.Join(home.Suites(), "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Suite(&b, home, "empty"); !errors.Is(err, ErrNoHistory) {
		t.Errorf("a suite without turns is refused with %v", err)
	}
	if err := Suite(&b, home, "../runs"); err == nil {
		t.Error("a name that leads elsewhere is taken")
	}
}
