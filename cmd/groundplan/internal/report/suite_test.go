package report

import (
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
)

func TestSuiteTables(t *testing.T) {
	plain := &terminal.Terminal{}
	began := time.Date(2026, 1, 3, 2, 0, 0, 0, time.UTC)
	run := func(file, name string, v stage.Verdict, since string, regressed ...string) runs.SuiteRun {
		r := runs.SuiteRun{Pipeline: name, File: file, Verdict: v, Since: since, Regressed: regressed, Started: began}
		if v != stage.Passed {
			r.Reason = string(v) + ": why \x1b[31mnot"
		}
		if v == stage.Failed {
			r.Run = "nightly.20260103-020000.2"
		}
		return r
	}
	turns := []runs.SuiteTurn{
		{ID: "20260104-020000", Trigger: "schedule", Status: stage.StatusRunning, Started: began.AddDate(0, 0, 1), Runs: []runs.SuiteRun{
			run("a.yaml", "a", stage.Passed, ""), {Pipeline: "b.yaml", File: "b.yaml", Started: began}, {Pipeline: "b.yaml", File: "b.yaml"},
		}},
		{ID: "20260103-020000", Trigger: "schedule", Status: stage.StatusEnded, Verdict: stage.Failed, Started: began, Ended: began.Add(95 * time.Second),
			News: []string{"failed", "regressed", "recovered"}, Runs: []runs.SuiteRun{
				run("a.yaml", "a", stage.Passed, ""), run("b.yaml", "b", stage.Failed, "20260101-020000", "rtt.p95: 1 → 2"), run("b.yaml", "b", stage.Skipped, "20260103-020000"),
			}},
		{ID: "20260102-120000", Trigger: "person", Status: stage.StatusEnded, Verdict: stage.Invalid, Started: began.Add(-time.Hour), Ended: began.Add(-time.Hour),
			News: []string{"invalid"}, Runs: []runs.SuiteRun{run("old.yaml", "old.yaml", stage.Invalid, "20260102-120000")}},
	}
	suites := []worker.SuiteStatus{
		{Name: "nightly", Schedule: pipelines.SuiteSchedule{Cron: "0 2 * * *", Timezone: "UTC"}, Here: true, Last: &turns[1], Missed: 2, Overlapped: 1},
		{Name: "paused", Schedule: pipelines.SuiteSchedule{Cron: "0 2 * * *", Timezone: "UTC"}, Here: true, Paused: true, Note: "moving house"},
		{Name: "byhand", Host: "elsewhere"},
	}
	text := Suites(plain, suites, began) + "\n" + Turns(plain, turns, began.AddDate(0, 0, 1).Add(time.Minute)) + "\n" + Trouble(plain, turns[1])
	golden.Compare(t, "testdata/suites.golden", text)
}

func TestNext(t *testing.T) {
	now := time.Date(2026, 1, 3, 2, 0, 0, 0, time.Local)
	for in, want := range map[time.Duration]string{
		30 * time.Second: "2026-01-03 02:00 (in 30s)", 90 * time.Minute: "2026-01-03 03:30 (in 1h 30m)",
		5 * time.Minute: "2026-01-03 02:05 (in 5m)", 72 * time.Hour: "2026-01-06 02:00 (in 3 days)", -time.Second: "2026-01-03 01:59 (in 0s)",
	} {
		if got := Next(worker.SuiteStatus{Next: now.Add(in)}, now); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
}
