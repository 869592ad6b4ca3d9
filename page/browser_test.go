package page

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/browser"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// gallery makes a run of every kind.
func gallery(w *world) {
	small := aPipeline("dht-partition", 20)
	network := &proofFile{Shaper: "netem", Tolerance: "10%", Pairs: []pair{
		{From: "eu/0", To: "us/1", Asked: map[string]any{"latency": "40ms", "loss": "0.1%"}, Achieved: map[string]any{"latency": "40.3ms", "loss": "0.1%"}, OK: true},
		{From: "us/1", To: "eu/0", Asked: map[string]any{"latency": "40ms", "bandwidth": "10Mbit"}, Achieved: map[string]any{"latency": "62ms", "bandwidth": "9.7Mbit"}, Fault: "latency 62ms instead of 40ms"},
	}}
	passed := w.ended("dht-20260301-120000-pass", small, stage.Passed, "gather", "5 stages, 20 instances")
	appendTo(w.t, passed.Stage("lookups"), lines(small, "lookups-1", 0))
	good := *network
	good.Pairs = good.Pairs[:1]
	must(w.t, runs.WriteJSON(passed.Proof("wan"), good), runs.WriteJSON(passed.Metrics(), map[string]pipelines.Summary{
		"lookup_seconds": {Count: 2000, Sum: 90, Min: 0.011, Max: 0.9, Mean: 0.045, P50: 0.041, P90: 0.08, P95: 0.1, P99: 0.31},
		"sent_bytes":     {Count: 20, Sum: 7e8, Min: 1e6, Max: 9e7, Mean: 3.5e7, P50: 3e7, P90: 8e7, P95: 8.5e7, P99: 9e7},
	}))
	failed := w.ended("dht-20260301-130000-fail", small, stage.Failed, "lookups", `stage "lookups" — 3 of 20 instances did not succeed (eu/6, us/3, us/10); eu/6: panicked: no route to 10.0.0.7`)
	appendTo(w.t, failed.Stage("lookups"), lines(small, "lookups-1", 7))
	appendTo(w.t, filepath.Join(failed.Outputs("eu", 6), "run.out"), strings.Repeat("{\"ts\":1772366400000000000,\"msg\":\"\",\"event\":{\"message_event\":{\"message\":\"looking up\"}}}\nplain line\n", 2000))
	invalid := w.ended("dht-20260301-140000-inva", small, stage.Invalid, "wan", `stage "wan" — 1 of 2 pairs outside 10%: us/1 → eu/0: latency 62ms instead of 40ms`)
	must(w.t, runs.WriteJSON(invalid.Proof("wan"), network))
	w.underWay("dht-20260301-150000-runs", small)
	thousand := aPipeline("dht-1000", 1000)
	appendTo(w.t, w.ended("dht-20260301-160000-1000", thousand, stage.Failed, "lookups", `stage "lookups" — 10 of 1000 instances did not succeed (eu/99, eu/199, eu/299 and 7 more); eu/99: panicked: no route to 10.0.0.7`).Stage("lookups"), lines(thousand, "lookups-1", 100))
	holding := w.underWay("dht-20260301-170000-hold", small)
	appendTo(w.t, holding.Stage("lookups"), lines(small, "lookups-1", 7))
	w.fake.with(func(f *fake) {
		state := f.states["dht-20260301-170000-hold"]
		state.Status, state.Holding = stage.StatusHolding, &workflows.Holding{Stage: "lookups", Reason: "3 of 20 instances did not succeed", Until: time.Now().Add(4 * time.Hour)}
		state.Stages = append([]workflows.StageState(nil), state.Stages...)
		state.Stages[3].Phase, state.Stages[3].Verdict, state.Stages[3].Reason = workflows.PhaseHolding, stage.Failed, "3 of 20 instances did not succeed (eu/6, us/3, us/10)"
		f.states["dht-20260301-170000-hold"] = state
		delete(f.progress, "dht-20260301-170000-hold")
		f.list[len(f.list)-1].Status = stage.StatusHolding
		f.suites = []Suite{{Name: "nightly", When: "0 2 * * *, Europe/Lisbon", Next: time.Now().Add(7 * time.Hour)}, {Name: "weekly", When: "0 3 * * 0", Paused: true, Note: "the lab moves"}}
	})
	for _, folder := range []runs.Folder{passed, failed, invalid, holding} {
		for i, text := range []string{`stage "build" started (attempt 1)`, `stage "build" ended: passed`, "the sidecar has started", "the gate has opened for 20 instances of stage lookups"} {
			must(w.t, folder.AppendEvent(runs.Event{Time: after(float64(i)), Kind: "stage-started", Text: text}))
		}
	}
	must(w.t, failed.AppendEvent(runs.Event{Time: after(9), Kind: "instance-failed", Stage: "lookups", Text: "eu/6: panicked: no route to 10.0.0.7"}))
	turns(w)
}

// proofFile is a network stage's file.
type proofFile struct {
	Shaper    string `json:"shaper"`
	Tolerance string `json:"tolerance"`
	Pairs     []pair `json:"pairs"`
}

// turns gives the suite nightly a history.
func turns(w *world) {
	for i := range 9 {
		at := began.Add(time.Duration(i) * 24 * time.Hour)
		turn := runs.SuiteTurn{
			ID: at.Format("20060102-150405"), Suite: "nightly", Ground: "local", Trigger: runs.TriggerSchedule, Started: at, Ended: at.Add(time.Minute), Status: stage.StatusEnded, Verdict: stage.Passed,
			Runs: []runs.SuiteRun{{Pipeline: "ping-pong", Run: fmt.Sprintf("nightly.%d.1", i), Verdict: stage.Passed}, {Pipeline: "dht-partition", Run: fmt.Sprintf("nightly.%d.2", i), Verdict: stage.Passed}},
		}
		if i >= 6 {
			turn.Verdict, turn.Reason, turn.News = stage.Failed, "dht-partition failed: 3 of 20 instances did not succeed", []string{runs.NewsFailed}
			turn.Runs[1].Verdict, turn.Runs[1].Since, turn.Runs[1].Reason = stage.Failed, "20260307-120000", "3 of 20 instances did not succeed"
		}
		if i == 4 {
			turn.Runs[0].Regressed = []string{"tcp_rtt_seconds.p95"}
		}
		must(w.t, w.home.WriteSuiteTurn(turn))
	}
}

// TestChromiumLooks shows every page at every width in both themes: nothing may go wrong on it, and nothing stick out of
// it. With GROUNDPLAN_SCREENSHOTS naming a folder it leaves pictures there.
func TestChromiumLooks(t *testing.T) {
	w := newWorld(t)
	b := browser.Start(t)
	gallery(w)
	pages := map[string]struct{ path, ready string }{
		"list":     {"/", `document.querySelectorAll(".run").length >= 5`},
		"suites":   {"/suites", `document.querySelectorAll(".mark").length > 5`},
		"suite":    {"/suites/nightly", `document.querySelectorAll(".mark").length > 5`},
		"passed":   {"/runs/dht-20260301-120000-pass", `document.querySelector("#verdict .passed") && !document.querySelector("#network").hidden`},
		"failed":   {"/runs/dht-20260301-130000-fail", `document.querySelector("#verdict .failed") && document.querySelector(".failures li")`},
		"invalid":  {"/runs/dht-20260301-140000-inva", `document.querySelector("#verdict .invalid") && !document.querySelector("#network").hidden`},
		"running":  {"/runs/dht-20260301-150000-runs", `document.querySelector("#verdict .running") && document.querySelector("progress")`},
		"thousand": {"/runs/dht-20260301-160000-1000", `document.querySelector(".failures li")`},
		"holding":  {"/runs/dht-20260301-170000-hold", `!document.querySelector("#hold").hidden`},
	}
	looks := map[string]browser.Look{"phone": browser.Phone, "phone-dark": browser.PhoneDark, "desktop": browser.Desktop, "desktop-dark": browser.DesktopDark}
	for name, shown := range pages {
		t.Run(name, func(t *testing.T) { // each with a tab of its own, which is closed behind it
			p := b.Open(t, w.entrance(shown.path), browser.Desktop)
			p.Until("!!(" + shown.ready + ")")
			if name == "failed" {
				browser.Evaluate[any](p, `document.querySelector(".failures button").click()`)
				p.Until(`!!(document.querySelector("#log").textContent.includes("looking up") && document.querySelector("#detail pre"))`)
			}
			for look, l := range looks {
				p.Look(l)
				browser.Evaluate[any](p, `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))`)
				if wide := browser.Evaluate[float64](p, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide > 0 {
					t.Errorf("on %s it is %v pixels too wide", look, wide)
				}
				if folder := os.Getenv("GROUNDPLAN_SCREENSHOTS"); folder != "" {
					p.Screenshot(filepath.Join(folder, name+"-"+look+".png"), true)
				}
			}
			if troubles := p.Troubles(); len(troubles) > 0 {
				t.Errorf("it said %q", troubles)
			}
		})
	}
}
