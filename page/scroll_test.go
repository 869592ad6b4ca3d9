package page

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/browser"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// wheel turns the mouse's wheel by so many pixels.
func wheel(by float64) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: input.DispatchMouseEventTypeMouseWheel, X: 200, Y: 400, DeltaX: 0.01, DeltaY: by})
		return err
	})
}

// watchFrames notes how long each frame takes, and the tasks that the browser calls long (over 50 ms).
const watchFrames = `(() => {
	window.frames_ = []; window.long_ = []; window.watch_ = true;
	new PerformanceObserver((list) => { for (const e of list.getEntries()) window.long_.push(e.duration); }).observe({type: "longtask"});
	let last;
	const frame = (now) => { if (last !== undefined) window.frames_.push(now - last); last = now; if (window.watch_) requestAnimationFrame(frame); };
	requestAnimationFrame(frame);
})()`

// TestChromiumScrolls scrolls pages of 10,000 up and down while what they show changes, and says how long the frames
// took. It asserts that it scrolls and that the document stays small; times depend on the machine.
func TestChromiumScrolls(t *testing.T) {
	if testing.Short() {
		t.Skip("scrolls for a while")
	}
	b := browser.Start(t)
	for name, c := range map[string]struct {
		prepare func(*world) (path, ready string)
		change  func(w *world, step int)
	}{
		"instances": {tenThousandInstances, func(w *world, step int) {
			var text string
			for i := range 40 {
				text += line("us", (step*40+i)%5000, "lookups-1", []string{"succeeded", "failed"}[i%40/39], "no route")
			}
			appendTo(w.t, w.home.Run("run-1").Stage("lookups"), text)
			must(w.t, w.home.Run("run-1").AppendEvent(runs.Event{Time: time.Now(), Kind: "note", Text: fmt.Sprint("step ", step)}))
		}},
		"cells": {tenThousandCells, func(w *world, step int) {
			w.fake.with(func(f *fake) {
				state := f.states["run-1"]
				state.Stages = slices.Clone(state.Stages)
				state.Stages[step%len(state.Stages)].Verdict = stage.Passed
				f.states["run-1"] = state
			})
		}},
		"list": {manyRuns, func(w *world, step int) {
			w.fake.with(func(f *fake) { f.list[step%len(f.list)].Verdict = stage.Failed })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			path, ready := c.prepare(w)
			p := b.Open(t, w.entrance(path), browser.Desktop)
			p.Until(ready)
			browser.Evaluate[any](p, watchFrames)
			for step := range 120 {
				c.change(w, step)
				by := 400.0
				if step/20%2 == 1 {
					by = -400
				}
				p.Run(wheel(by))
				time.Sleep(16 * time.Millisecond)
			}
			frames := browser.Evaluate[[]float64](p, `(window.watch_ = false, window.frames_)`)
			long := browser.Evaluate[[]float64](p, `window.long_`)
			if nodes := browser.Evaluate[int](p, `document.querySelectorAll("*").length`); nodes > 4000 {
				t.Errorf("the document has %d elements", nodes)
			}
			if far := browser.Evaluate[float64](p, `document.documentElement.scrollHeight`); far < 1000 || len(frames) < 20 {
				t.Fatalf("there is nothing to scroll: %v pixels, %d frames", far, len(frames))
			}
			slices.Sort(frames)
			t.Logf("%d frames: p50 %.1f ms, p99 %.1f ms, longest %.1f ms; tasks over 50 ms: %.0f", len(frames), frames[len(frames)/2], frames[len(frames)*99/100], frames[len(frames)-1], long)
			if troubles := p.Troubles(); len(troubles) > 0 {
				t.Errorf("it said %q", troubles)
			}
		})
	}
}

func tenThousandInstances(w *world) (path, ready string) {
	p := aPipeline("dht", 10_000)
	folder := w.underWay("run-1", p)
	appendTo(w.t, folder.Stage("lookups"), lines(p, "lookups-1", 97))
	for i := range 800 {
		must(w.t, folder.AppendEvent(runs.Event{Time: time.Now(), Kind: "note", Text: fmt.Sprint("event ", i)}))
	}
	return "/runs/run-1", `document.querySelectorAll(".failures li").length >= 50`
}

func tenThousandCells(w *world) (path, ready string) {
	state := workflows.State{Status: stage.StatusRunning}
	for i := range 10_000 {
		state.Stages = append(state.Stages, workflows.StageState{Name: fmt.Sprintf("run-1.%d", i+1), Phase: workflows.PhaseRunning, Started: time.Now()})
	}
	must(w.t, w.home.Run("run-1").WriteRecord(runs.Record{ID: "run-1", Status: stage.StatusRunning, Started: time.Now()}))
	w.fake.with(func(f *fake) { f.states["run-1"] = state })
	return "/runs/run-1", `document.querySelectorAll(".stage").length > 10`
}

func manyRuns(w *world) (path, ready string) {
	w.fake.with(func(f *fake) {
		for i := range mostRuns + 10 {
			f.list = append(f.list, Run{ID: fmt.Sprintf("run-%d", i), Pipeline: "dht", Status: stage.StatusEnded, Verdict: stage.Passed, Reason: "passed: 5 stages", Started: began.Add(-time.Duration(i) * time.Minute), Ended: began})
		}
	})
	return "/", `document.querySelectorAll(".run").length > 10`
}
