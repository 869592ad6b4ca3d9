package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

func decode(body string, v any) bool { return json.Unmarshal([]byte(body), v) == nil }

func contextWithStop(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	return ctx, stop
}

// The list tells everything first, and then only what has changed.
func TestListStream(t *testing.T) {
	w := newWorld(t)
	w.ended("run-1", aPipeline("dht", 4), stage.Passed, "gather", "5 stages")
	e := w.listen("/api/runs/stream", "")
	all := e.until("ready", nil)
	if got := kindsOf(all); got != "reset rows ready" || !strings.Contains(all[1].data, "run-1") {
		t.Fatalf("it began with %v", all)
	}
	w.fake.with(func(f *fake) {
		f.list = append(f.list, Run{ID: "run-2", Status: stage.StatusRunning, Started: time.Now()})
	})
	change := e.until("rows", has("run-2"))
	if data := change[len(change)-1].data; strings.Contains(data, "run-1") {
		t.Errorf("what has not changed is told again: %s", data)
	}
	w.fake.with(func(f *fake) { f.list = f.list[1:] })
	e.until("rows", has(`"gone":["run-1"]`))
	w.fake.with(func(f *fake) { f.away = errors.New("the services are elsewhere") })
	e.until("note", has("elsewhere"))
	w.fake.with(func(f *fake) { f.away = nil })
	e.until("note", has(`"text":""`))
}

// Who comes back gets what was missed, and nothing twice; who was away too long, or knew another feed, gets everything.
func TestResume(t *testing.T) {
	w := newWorld(t)
	p := aPipeline("dht", 40)
	folder := w.underWay("run-1", p)
	e := w.listen("/api/runs/run-1/stream", "")
	e.until("ready", nil)
	appendTo(t, folder.Stage("lookups"), line("eu", 0, "lookups-1", "succeeded", ""))
	e.until("outcomes", has(`"whole":["s`))
	last := e.last
	e.close()
	appendTo(t, folder.Stage("lookups"), line("us", 1, "lookups-1", "failed", "no"))
	again := w.listen("/api/runs/run-1/stream", last)
	missed := again.until("outcomes", has(`[1,1,"f"]`))
	if kinds := kindsOf(missed); strings.Contains(kinds, "reset") || strings.Contains(fmt.Sprint(missed), `"whole"`) {
		t.Errorf("it was told %v", missed)
	}
	fresh := w.listen("/api/runs/run-1/stream?last="+again.last, "") // as a page that opens its stream anew
	appendTo(t, folder.Stage("lookups"), line("us", 2, "lookups-1", "succeeded", ""))
	if all := fresh.until("outcomes", has(`[1,2,"s"]`)); strings.Contains(kindsOf(all), "reset") {
		t.Errorf("by its address it was told %v", all)
	}
	for _, place := range []string{"other.3", "nonsense", strings.Split(last, ".")[0] + ".99999999"} {
		if all := w.listen("/api/runs/run-1/stream", place).until("ready", nil); all[0].kind != "reset" {
			t.Errorf("from %s it was told %v", place, all)
		}
	}
}

// However many read, a run is looked at once; with nobody there, not at all.
func TestOneLookForAll(t *testing.T) {
	w := newWorld(t)
	w.underWay("run-1", aPipeline("dht", 4))
	var readers sync.WaitGroup
	for range 30 {
		e := w.listen("/api/runs/run-1/stream", "")
		readers.Go(func() { e.until("ready", nil) })
	}
	readers.Wait()
	before := w.asks()
	time.Sleep(4 * paceUnderWay)
	if asked := w.asks() - before; asked > 8 {
		t.Errorf("30 readers had the services asked %d times in %v", asked, 4*paceUnderWay)
	}
}

func (w *world) asks() int {
	w.fake.mu.Lock()
	defer w.fake.mu.Unlock()
	return w.fake.asked
}

// A run from its first moment to its end: record, stages, progress, outcomes, retry, events, metrics, proof.
func TestRunStream(t *testing.T) {
	w := newWorld(t)
	p := aPipeline("dht", 4)
	e := w.listen("/api/runs/run-1/stream", "")
	e.until("head", has(`"status":"gone"`))
	folder := w.underWay("run-1", p)
	e.until("head", has(`"status":"running"`))
	e.until("stages", has(`"lookups"`))
	must(t, folder.AppendEvent(runs.Event{Time: began, Kind: "note", Text: "it <b>began</b>"}))
	e.until("events", has(`"from":0`))
	appendTo(t, folder.Stage("lookups"), line("eu", 0, "lookups-1", "crashed", "<script>alert(1)</script>")+`{"group":"eu","ind`)
	e.until("outcomes", has(`"whole":["c.",".."]`))
	appendTo(t, folder.Stage("lookups"), "ex\":9}\nno json\n"+line("nobody", 0, "lookups-1", "failed", "")+line("eu", 99, "lookups-1", "failed", "")+line("eu", 1, "lookups-1", "succeeded", ""))
	e.until("outcomes", has(`"fresh":[0,1,"s"]`))
	appendTo(t, folder.Stage("lookups"), line("us", 0, "lookups-2", "succeeded", "")) // the stage is tried again
	e.until("outcomes", has(`"whole":["..","s."]`))
	if status, body := w.get("/api/runs/run-1/instance?stage=lookups&group=us&index=0"); status != http.StatusOK || !strings.Contains(body, `"lookups-2"`) {
		t.Errorf("the instance is %d %s", status, body)
	}
	for _, query := range []string{"stage=lookups&group=us&index=1", "stage=nothing&group=us&index=0", "stage=lookups&group=x&index=0"} {
		if status, _ := w.get("/api/runs/run-1/instance?" + query); status != http.StatusNotFound {
			t.Errorf("%s: %d", query, status)
		}
	}
	if status, body := w.get("/api/runs/run-1/outcomes?stage=lookups"); status != http.StatusOK || !strings.Contains(body, `"whole":["..","s."]`) {
		t.Errorf("the outcomes are %d %s", status, body)
	}
	w.fake.with(func(f *fake) { f.away = errors.New("taken over") })
	e.until("head", has(`"asking":"taken over"`))
	w.fake.with(func(f *fake) { f.away = nil })
	must(t, runs.WriteJSON(folder.Metrics(), map[string]any{"rtt_seconds": map[string]any{"count": 3}}))
	e.until("metrics", has("rtt_seconds"))
	must(t, runs.WriteWhole(folder.Proof("wan"), []byte(`{"shaper":"netem","tolerance":"10%","pairs":[{"from":"eu/0","to":"us/0","asked":{"latency":"5ms","loss":0.1},"ok":true},{"from":"us/0","to":"eu/0","fault":"slow"}]}`)))
	e.until("network", has(`"faults":1`))
	w.ended("run-1", p, stage.Failed, "lookups", "<img src=x>")
	e.until("head", has(`"verdict":"failed"`))
	must(t, os.RemoveAll(string(folder)))
	e.until("head", has(`"status":"gone"`))
}

// A record that is cut, or gone for a moment, leaves what is known.
func TestHalfWrittenRun(t *testing.T) {
	w := newWorld(t)
	folder := w.home.Run("run-1")
	appendTo(t, folder.Record(), `{"id":"run-1","status":"ru`)
	appendTo(t, folder.Pipeline(), `{"name":`)
	appendTo(t, folder.Metrics(), `{"a":{`)
	appendTo(t, folder.Proof("wan"), `[]`)
	appendTo(t, folder.Stage("x"), "{}\n\x00\x00\n")
	appendTo(t, folder.Events(), "[]\n\"\n{\"text\":\"cut")
	e := w.listen("/api/runs/run-1/stream", "")
	all := e.until("ready", nil)
	if text := fmt.Sprint(all); !strings.Contains(text, `"status":"interrupted"`) {
		t.Errorf("it was told %s", text)
	}
	w.ended("run-1", aPipeline("dht", 4), stage.Passed, "gather", "5 stages")
	e.until("head", has(`"verdict":"passed"`))
}

// A matrix of many cells tells those that change.
func TestCells(t *testing.T) {
	w := newWorld(t)
	const cells = 10_000
	state := workflows.State{Status: stage.StatusRunning}
	for i := range cells {
		state.Stages = append(state.Stages, workflows.StageState{Name: fmt.Sprintf("run-1.%d", i+1), Phase: workflows.PhasePending})
	}
	must(t, w.home.Run("run-1").WriteRecord(runs.Record{ID: "run-1", Status: stage.StatusRunning}))
	w.fake.with(func(f *fake) { f.states["run-1"] = state })
	e := w.listen("/api/runs/run-1/stream", "")
	e.until("ready", nil)
	w.fake.with(func(f *fake) {
		state.Stages = append([]workflows.StageState(nil), state.Stages...)
		state.Stages[7].Phase = workflows.PhaseRunning
		f.states["run-1"] = state
	})
	change := e.until("stages", nil)
	var m rowsMessage
	if !decode(change[len(change)-1].data, &m) || len(m.Rows) != 1 || m.Rows[0].Index != 7 || m.Total != cells || m.Rows[0].Row.Run != "run-1.8" {
		t.Errorf("one cell of %d changed: %+.500v", cells, m)
	}
}

func TestSuitesStream(t *testing.T) {
	w := newWorld(t)
	turns(w)
	w.fake.with(func(f *fake) {
		f.suites = []Suite{{Name: "nightly", When: "0 2 * * *"}, {Name: "weekly", Paused: true}}
	})
	e := w.listen("/api/suites/stream", "")
	all := e.until("ready", nil)
	if kindsOf(all) != "reset suite suite ready" || !strings.Contains(all[1].data, `"scheduled":true`) {
		t.Errorf("it began with %v", all)
	}
	one := w.listen("/api/suites/nightly/stream", "")
	if all := one.until("ready", nil); kindsOf(all) != "reset suite ready" {
		t.Errorf("one suite: %v", all)
	}
	w.fake.with(func(f *fake) { f.suites = f.suites[:1]; f.suites[0].Paused = true })
	e.until("gone", has("weekly"))
	one.until("suite", has(`"paused":true`))
	w.fake.with(func(f *fake) { f.suites = nil })
	e.until("suite", has(`"scheduled":false`)) // its history stays
	if status, _ := w.get("/api/suites/.../stream"); status != http.StatusNotFound {
		t.Errorf("no suite's name: %d", status)
	}
}

// A reader that takes nothing holds nobody up, and costs nothing that grows.
func TestSlowReader(t *testing.T) {
	w := newWorld(t)
	p := aPipeline("dht", 2000)
	folder := w.underWay("run-1", p)
	slow := w.listen("/api/runs/run-1/stream", "") // opened, never read
	defer slow.close()
	quick := w.listen("/api/runs/run-1/stream", "")
	quick.until("ready", nil)
	for i := range 300 {
		must(t, folder.AppendEvent(runs.Event{Time: time.Now(), Kind: "note", Text: fmt.Sprintf("%d %s", i, strings.Repeat("x", 10_000))}))
	}
	quick.until("events", has(`"text":"299 `))
	f := w.page.feeds.find(runFeed("run-1"))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bytes > memoryBytes || len(f.memory) > memoryMessages {
		t.Errorf("the feed remembers %d bytes", f.bytes)
	}
}

func TestHeartbeat(t *testing.T) {
	w := newWorld(t)
	w.page.heartbeat = 20 * time.Millisecond
	e := w.listen("/api/runs/stream", "")
	for range 40 {
		line, err := e.read.ReadString('\n')
		must(t, err)
		if strings.HasPrefix(line, ": still") {
			return
		}
	}
	t.Error("a stream with nothing to tell is silent")
}

// A feed that nobody reads any more ends after a while.
func TestFeedEnds(t *testing.T) {
	fs := newFeeds(t.Context())
	f, leave := fs.join("x", func() subject { return &runList{services: &fake{}, shown: map[string]Run{}} })
	if again, leave := fs.join("x", nil); again != f {
		t.Error("there are two of one name")
	} else {
		leave()
	}
	if fs.retire("x", f) {
		t.Error("it is retired while somebody reads")
	}
	leave()
	if fs.retire("x", f) {
		t.Error("it is retired at once")
	}
	f.mu.Lock()
	f.left = time.Now().Add(-2 * linger)
	f.mu.Unlock()
	deadline := time.Now().Add(20 * time.Second)
	for fs.find("x") != nil && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	fs.wait()
}

// The memory's ends: what has fallen out of it is told as a whole.
func TestFeedMemory(t *testing.T) {
	f := newFeed(&runList{services: &fake{}, shown: map[string]Run{}})
	f.take(func(tell teller) { tell("rows", rowsChange{}) })
	_, start, _, _ := f.next(place{})
	for range 3 {
		f.take(func(tell teller) { tell("a", 1); tell("b", 2) })
	}
	if messages, now, _, _ := f.next(start); len(messages) != 6 || now.last != start.last+6 {
		t.Errorf("behind %v come %d, to %v", start, len(messages), now)
	}
	f.take(func(tell teller) { tell("long", strings.Repeat("x", memoryBytes)) })
	if messages, _, _, _ := f.next(start); messages[0].kind != "reset" {
		t.Errorf("it was told %v", messages)
	}
	if m := encode("x", func() {}); m.kind != "note" || !json.Valid(m.body) {
		t.Errorf("what can't be encoded is %s %s", m.kind, m.body)
	}
	f.end()
	if _, _, _, done := f.next(start); !done {
		t.Error("it has not ended")
	}
}

func FuzzPlace(f *testing.F) {
	f.Add("a.1")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		fd := newFeed(&runList{services: &fake{}, shown: map[string]Run{}})
		fd.epoch = "a"
		fd.take(func(tell teller) { tell("x", 1) })
		if messages, now, _, _ := fd.next(parsePlace(text)); len(messages) == 0 && text != now.String() && parsePlace(text) != now {
			t.Errorf("from %q nothing comes", text)
		}
	})
}
