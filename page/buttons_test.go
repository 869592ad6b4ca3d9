package page

import (
	"fmt"
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

// press clicks the button with that text.
func press(p *browser.Page, text string) {
	find := fmt.Sprintf(`[...document.querySelectorAll("button")].find((b) => b.textContent === %q && b.offsetParent && !b.disabled)`, text)
	p.Until("!!" + find)
	browser.Evaluate[any](p, find+".click()")
}

// wished waits until the services were asked for something.
func (w *world) wishedFor(text string) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if w.fake.wished() == text {
			return
		}
	}
	w.t.Fatalf("it was asked to %q, not to %q", w.fake.wished(), text)
}

// Buttons do what they say, those that destroy something only after a yes; a no, and Esc, leave everything as it is.
func TestChromiumButtons(t *testing.T) {
	w := newWorld(t)
	b := browser.Start(t)
	gallery(w)
	again := func() { w.fake.with(func(f *fake) { f.wishes = nil }) }

	t.Run("running", func(t *testing.T) {
		p := b.Open(t, w.entrance("/runs/dht-20260301-150000-runs"), browser.Desktop)
		for _, no := range []string{`document.querySelector("#no").click()`, `document.querySelector("#confirm").requestClose ? document.querySelector("#confirm").requestClose() : document.querySelector("#confirm").close()`} {
			press(p, "Cancel")
			p.Until(`document.querySelector("#confirm").open && document.activeElement.id === "no"`)
			browser.Evaluate[any](p, no)
			p.Until(`!document.querySelector("#confirm").open`)
		}
		if wished := w.fake.wished(); wished != "" {
			t.Fatalf("a no is taken as %s", wished)
		}
		press(p, "Cancel")
		p.Until(`document.querySelector("#confirm").open`)
		browser.Evaluate[any](p, `document.querySelector("#yes").click()`)
		w.wishedFor("cancel dht-20260301-150000-runs")
		p.Until(`document.querySelector("#done").textContent.includes("asked to end")`)
		again()
	})
	t.Run("holding", func(t *testing.T) {
		p := b.Open(t, w.entrance("/runs/dht-20260301-170000-hold"), browser.Phone)
		press(p, "Run the stage again")
		w.wishedFor("decide dht-20260301-170000-hold retry lookups")
		again()
		press(p, "Skip it")
		w.wishedFor("decide dht-20260301-170000-hold skip lookups")
		again()
		press(p, "Abort the run")
		browser.Evaluate[any](p, `document.querySelector("#yes").click()`)
		w.wishedFor("decide dht-20260301-170000-hold abort lookups")
		again()
		w.fake.with(func(f *fake) { f.refusal = fmt.Errorf("it doesn't hold any more") })
		press(p, "Skip it")
		p.Until(`document.querySelector("#done").textContent.includes("any more")`)
		w.fake.with(func(f *fake) { f.refusal = nil; f.wishes = nil })
	})
	t.Run("ended", func(t *testing.T) {
		p := b.Open(t, w.entrance("/runs/dht-20260301-130000-fail"), browser.Desktop)
		p.Until(`document.querySelectorAll("#actions option").length === 6`)
		browser.Evaluate[any](p, `document.querySelector("#actions select").value = "wan"`)
		press(p, "Resume")
		w.wishedFor("resume dht-20260301-130000-fail wan")
		again()
	})
	t.Run("suites", func(t *testing.T) {
		p := b.Open(t, w.entrance("/suites/weekly"), browser.Desktop)
		press(p, "Run a turn now")
		w.wishedFor("trigger weekly")
		again()
		press(p, "Unpause")
		w.wishedFor("unpause weekly")
		again()
	})
	t.Run("keys", func(t *testing.T) {
		p := b.Open(t, w.entrance("/runs/dht-20260301-160000-1000"), browser.Desktop)
		p.Until(`!!document.querySelector(".failures li")`)
		key := func(name string) {
			browser.Evaluate[any](p, fmt.Sprintf(`document.querySelector("#grid").dispatchEvent(new KeyboardEvent("keydown", {key: %q, bubbles: true}))`, name))
		}
		says := func() string { return browser.Evaluate[string](p, `document.querySelector("#gridsays").textContent`) }
		browser.Evaluate[any](p, `document.querySelector("#grid").focus()`)
		for _, step := range [][2]string{{"ArrowRight", "eu/1: succeeded"}, {"n", "eu/99: crashed"}, {"End", "us/499: silent"}, {"Home", "eu/0: succeeded"}, {"ArrowLeft", "eu/0: succeeded"}} {
			if key(step[0]); says() != step[1] {
				t.Errorf("%s leads to %q", step[0], says())
			}
		}
		key("n")
		key("Enter")
		p.Until(`document.querySelector("#h-instance").textContent === "eu/99" && document.querySelector("#detail").textContent.includes("no route")`)
		browser.Evaluate[any](p, `document.querySelector("#instance").dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}))`)
		p.Until(`document.querySelector("#instance").hidden && document.activeElement.id === "grid"`)
	})
	t.Run("filters", func(t *testing.T) {
		p := b.Open(t, w.entrance("/"), browser.Desktop)
		p.Until(`document.querySelectorAll(".run").length === 6`)
		type1 := func(id, value string) {
			browser.Evaluate[any](p, fmt.Sprintf(`{ const f = document.getElementById(%q); f.value = %q; f.dispatchEvent(new Event("input", {bubbles: true})); }`, id, value))
		}
		type1("words", "1000 route")
		p.Until(`document.querySelectorAll(".run").length === 1`)
		type1("words", "")
		type1("verdict", "invalid")
		p.Until(`document.querySelectorAll(".run").length === 1 && location.search === "?verdict=invalid"`)
		type1("verdict", "")
		p.Until(`document.querySelectorAll(".run").length === 6`)
	})
}

// evil is in every place where a name or a line can be.
const evil = `<img src=x onerror="alert(1)"><script>alert(2)</script>"'&` + "\u202e\x1b[31m"

// Nothing executes, whatever things are called and whatever they say.
func TestChromiumHostile(t *testing.T) {
	w := newWorld(t)
	b := browser.Start(t)
	p := aPipeline("dht", 4)
	p.Name, p.Description, p.Groups[0].Name = evil, evil, "<b>eu"
	p.Stages[3].Name = evil
	folder := w.ended("run-1", p, stage.Failed, evil, evil)
	rec, err := folder.ReadRecord()
	must(t, err)
	rec.Description, rec.File, rec.Commit, rec.Suite, rec.From, rec.Cell = evil, evil, evil, evil, evil, map[string]any{evil: evil}
	rec.Versions[evil] = evil
	rec.Stages[0].Notes, rec.Assertions = []string{evil}, []stage.Assertion{{Expr: evil, Explanation: evil}}
	must(t, folder.WriteRecord(rec), runs.WriteJSON(folder.Metrics(), map[string]pipelines.Summary{evil: {Count: 1}}),
		runs.WriteJSON(folder.Proof("wan"), proofFile{Shaper: evil, Tolerance: evil, Pairs: []pair{{From: evil, To: evil, Fault: evil, Note: evil, Asked: map[string]any{evil: evil}}}}),
		folder.AppendEvent(runs.Event{Time: began, Kind: evil, Text: evil}))
	appendTo(t, filepath.Join(string(folder), "stages", "lookups.jsonl"), line("<b>eu", 0, evil, evil, evil)+line("<b>eu", 1, evil, "failed", evil))
	appendTo(t, filepath.Join(folder.Outputs("<b>eu", 1), "run.out"), evil+"\n"+`{"ts":1,"event":{"message_event":{"message":`+fmt.Sprintf("%q", "<script>alert(3)</script>")+`}}}`+"\n")
	appendTo(t, filepath.Join(folder.Outputs("<b>eu", 1), "<script>alert(4)<"), "x")
	turn := runs.SuiteTurn{ID: "20260301-120000", Suite: "nightly", Trigger: evil, Started: began, Status: stage.StatusEnded, Verdict: stage.Verdict(evil), Reason: evil, Notified: evil,
		Runs: []runs.SuiteRun{{Pipeline: evil, Run: evil, Verdict: stage.Verdict(evil), Reason: evil, Regressed: []string{evil}, Since: evil}}}
	must(t, w.home.WriteSuiteTurn(turn))
	holding := w.underWay("run-2", aPipeline("dht", 4))
	must(t, holding.AppendEvent(runs.Event{Text: evil}))
	w.fake.with(func(f *fake) {
		f.suites = []Suite{{Name: "nightly", When: evil, Paused: true, Note: evil}, {Name: evil, Note: evil}}
		f.list = append(f.list, Run{ID: evil, Pipeline: evil, Suite: evil, Reason: evil, Status: evil, Verdict: stage.Verdict(evil), Stage: evil, Parent: ""})
		state := f.states["run-2"]
		state.Status, state.Holding = stage.StatusHolding, &workflows.Holding{Stage: evil, Reason: evil, Until: time.Now()}
		state.Stages[0].Reason, state.Stages[1].Name = evil, evil
		f.states["run-2"] = state
		f.progress["run-2"] = []stage.Progress{{Stage: "lookups", Total: 4, Note: evil, FirstFailure: evil}}
	})
	for path, ready := range map[string]string{
		"/": `document.querySelectorAll(".run").length === 3`, "/suites": `document.querySelectorAll(".suite").length === 2`, "/suites/nightly": `!!document.querySelector(".mark")`,
		"/runs/run-1": `document.querySelectorAll(".failures li").length === 2`, "/runs/run-2": `!document.querySelector("#hold").hidden`,
	} {
		t.Run(path, func(t *testing.T) {
			page := b.Open(t, w.entrance(path), browser.Desktop)
			page.Until(ready)
			if path == "/runs/run-1" {
				browser.Evaluate[any](page, `document.querySelectorAll(".failures button")[1].click()`)
				page.Until(`document.querySelector("#log").textContent.includes("alert(3)") && !!document.querySelector("#detail dd")`)
			}
			if made := browser.Evaluate[int](page, `document.querySelectorAll("img, b, body script").length`); made > 0 {
				t.Errorf("%d elements were made of names", made)
			}
			if seen := browser.Evaluate[bool](page, `document.body.textContent.includes("<script>alert(2)</script>")`); !seen {
				t.Error("the name isn't shown as it is")
			}
			for _, link := range browser.Evaluate[[]string](page, `[...document.querySelectorAll("a[href]")].map((a) => a.protocol)`) {
				if link != "http:" {
					t.Errorf("a link leads to %s", link)
				}
			}
			if troubles := page.Troubles(); len(troubles) > 0 {
				t.Errorf("it said %q", troubles)
			}
			for _, address := range page.Requests() {
				if !strings.HasPrefix(address, w.server.URL) {
					t.Errorf("it asked for %s", address)
				}
			}
		})
	}
}
