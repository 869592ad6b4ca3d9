package page

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/door"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake stands for the services: it answers what a test has put into it, and notes what it was asked to do.
type fake struct {
	mu       sync.Mutex
	list     []Run
	states   map[string]workflows.State
	progress map[string][]stage.Progress
	suites   []Suite
	away     error // what every question is answered with
	refusal  error // what every wish is answered with
	asked    int
	wishes   []string
}

func (f *fake) with(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fake) Runs(context.Context) ([]Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Run(nil), f.list...), f.away
}

func (f *fake) State(_ context.Context, id string) (workflows.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.away != nil {
		return workflows.State{}, f.away
	}
	state, ok := f.states[id]
	if !ok {
		return state, fmt.Errorf("run %s: %w", id, ErrUnknown)
	}
	return state, nil
}

func (f *fake) Progress(_ context.Context, id string) ([]stage.Progress, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.progress[id], f.away
}

func (f *fake) wish(text string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wishes = append(f.wishes, text)
	return f.refusal
}

func (f *fake) wished() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.wishes, "; ")
}

func (f *fake) Cancel(_ context.Context, id string) error { return f.wish("cancel " + id) }
func (f *fake) Resume(_ context.Context, id, from string) error {
	return f.wish("resume " + id + " " + from)
}
func (f *fake) Decide(_ context.Context, id string, d workflows.Decision) error {
	return f.wish("decide " + id + " " + d.Action + " " + d.Stage)
}
func (f *fake) Suites(context.Context) ([]Suite, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Suite(nil), f.suites...), f.away
}
func (f *fake) Trigger(_ context.Context, s string) error { return f.wish("trigger " + s) }
func (f *fake) Pause(_ context.Context, s, note string) error {
	return f.wish("pause " + s + " " + note)
}
func (f *fake) Unpause(_ context.Context, s string) error { return f.wish("unpause " + s) }
func (f *fake) Temporal() string                          { return "http://127.0.0.1:1/?key=x" }

// world is a page that is served, with services that a test plays.
type world struct {
	t      testing.TB
	home   runs.Home
	fake   *fake
	page   *Page
	server *httptest.Server
	client *http.Client
	door   door.Door
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, home: runs.Home(t.TempDir()), fake: &fake{states: map[string]workflows.State{}, progress: map[string][]stage.Progress{}}}
	w.door = door.Door{Key: door.Key("live page", "secret")}
	p, err := New(Options{Home: w.home, Services: w.fake, Door: w.door})
	if err != nil {
		t.Fatal(err)
	}
	w.page, w.server = p, httptest.NewServer(p.Handler())
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.client = &http.Client{Jar: jar, Transport: &http.Transport{}}
	t.Cleanup(func() {
		p.Close()
		w.client.CloseIdleConnections()
		w.server.Close()
	})
	response, err := w.client.Get(w.entrance("/"))
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("entering: %v %v", response, err)
	}
	response.Body.Close()
	return w
}

// entrance is an address with the key.
func (w *world) entrance(path string) string { return w.server.URL + path + "?key=" + w.door.Key }

// get asks for a path, and gives status and body.
func (w *world) get(path string) (int, string) {
	w.t.Helper()
	response, err := w.client.Get(w.server.URL + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// post tells a wish as the page does, after change was made to the request.
func (w *world) post(path, body string, change func(*http.Request)) (int, string) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Origin", w.server.URL)
	request.Header.Set("Sec-Fetch-Site", "same-origin")
	request.Header.Set(tokenHeader, w.page.token)
	if change != nil {
		change(request)
	}
	response, err := w.client.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// events reads a stream.
type events struct {
	t    testing.TB
	body io.ReadCloser
	read *bufio.Reader
	stop context.CancelFunc
	last string // id of the newest event
}

// event is one event of a stream.
type event struct{ kind, data string }

// listen opens a stream; last is the id to resume from.
func (w *world) listen(path, last string) *events {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), 30*time.Second)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if last != "" {
		request.Header.Set("Last-Event-ID", last)
	}
	response, err := w.client.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		w.t.Fatalf("the stream %s is %s", path, response.Status)
	}
	e := &events{t: w.t, body: response.Body, read: bufio.NewReaderSize(response.Body, 1<<20), stop: stop}
	w.t.Cleanup(e.close)
	return e
}

func (e *events) close() {
	e.stop()
	e.body.Close()
}

// next is the next event; ok is false when the stream has ended.
func (e *events) next() (ev event, ok bool) {
	for {
		line, err := e.read.ReadString('\n')
		if err != nil {
			return ev, false
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" && ev.kind != "":
			return ev, true
		case name == "id":
			e.last = value
		case name == "event":
			ev.kind = value
		case name == "data":
			ev.data = value
		}
	}
}

// until reads to the first event of a kind that holds, and gives all up to it.
func (e *events) until(kind string, holds func(data string) bool) (all []event) {
	e.t.Helper()
	for {
		ev, ok := e.next()
		if !ok {
			e.t.Fatalf("the stream ended before a %s; it told %.2000v", kind, all)
		}
		all = append(all, ev)
		if ev.kind == kind && (holds == nil || holds(ev.data)) {
			return all
		}
	}
}

// kinds are the kinds of events in order.
func kindsOf(all []event) string {
	var names []string
	for _, e := range all {
		names = append(names, e.kind)
	}
	return strings.Join(names, " ")
}

func has(text string) func(string) bool {
	return func(data string) bool { return strings.Contains(data, text) }
}

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func after(seconds float64) time.Time {
	return began.Add(time.Duration(seconds * float64(time.Second)))
}

// aPipeline has two groups of n instances together, and the usual stages.
func aPipeline(name string, n int) pipelines.Resolved {
	return pipelines.Resolved{
		Name: name, File: "plans/" + name + "/pipeline.yaml", Seed: 7,
		Groups: []pipelines.Group{{Name: "eu", Instances: n - n/2}, {Name: "us", Instances: n / 2}},
		Stages: []pipelines.Stage{
			{Name: "build", Kind: pipelines.KindBuild}, {Name: "place", Kind: pipelines.KindSchedule}, {Name: "wan", Kind: pipelines.KindNetwork},
			{Name: "lookups", Kind: pipelines.KindRun}, {Name: "gather", Kind: pipelines.KindCollect},
		},
	}
}

// results are those of the pipeline's stages, of which the one named ended with verdict and the ones behind it were skipped.
func results(p pipelines.Resolved, at string, verdict stage.Verdict, reason string) []stage.Result {
	var all []stage.Result
	v, why := stage.Passed, ""
	for i, s := range p.Stages {
		if s.Name == at {
			v, why = verdict, reason
		}
		all = append(all, stage.Result{Stage: s.Name, Kind: s.Kind, Verdict: v, Reason: why, Attempt: 1, Started: after(float64(3 * i)), Ended: after(float64(3*i + 3))})
		if s.Name == at && verdict != stage.Passed {
			v, why = stage.Skipped, "stage "+at+" did not pass"
		}
	}
	return all
}

// must ends a test at an error.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// ended makes a run that has ended, and lists it.
func (w *world) ended(id string, p pipelines.Resolved, verdict stage.Verdict, at, reason string) runs.Folder {
	w.t.Helper()
	folder := w.home.Run(id)
	record := runs.Record{
		ID: id, Pipeline: p.Name, File: p.File, Seed: 1<<63 + 1, Ground: "local", Commit: "0123456789abcdef", Status: stage.StatusEnded,
		Verdict: verdict, Reason: string(verdict) + ": " + reason, Started: began, Ended: after(15), Seconds: 15,
		Stages: results(p, at, verdict, reason), Parameters: map[string]any{"peers": p.Groups[0].Instances * 2, "rtt": "80ms"},
		Versions: map[string]string{"go": "go1.26", "kernel": "6.12"},
	}
	must(w.t, folder.WriteRecord(record), folder.WritePipeline(p))
	w.fake.with(func(f *fake) {
		f.list = append(f.list, Run{ID: id, Pipeline: p.Name, Status: stage.StatusEnded, Verdict: verdict, Reason: record.Reason, Started: began, Ended: after(15)})
	})
	return folder
}

// underWay makes a run that is at its stage `lookups`.
func (w *world) underWay(id string, p pipelines.Resolved) runs.Folder {
	w.t.Helper()
	folder := w.home.Run(id)
	now := time.Now().Add(-20 * time.Second)
	must(w.t, folder.WriteRecord(runs.Record{ID: id, Pipeline: p.Name, File: p.File, Ground: "local", Status: stage.StatusRunning, Started: now}), folder.WritePipeline(p))
	state := workflows.State{Status: stage.StatusRunning}
	for _, s := range p.Stages {
		row := workflows.StageState{Name: s.Name, Kind: s.Kind, Phase: workflows.PhaseEnded, Verdict: stage.Passed, Attempt: 1, Started: now, Ended: now.Add(2 * time.Second)}
		switch s.Name {
		case "lookups":
			row = workflows.StageState{Name: s.Name, Kind: s.Kind, Phase: workflows.PhaseRunning, Attempt: 1, Started: now.Add(6 * time.Second)}
		case "gather":
			row = workflows.StageState{Name: s.Name, Kind: s.Kind, Phase: workflows.PhasePending}
		}
		state.Stages = append(state.Stages, row)
	}
	total := p.Groups[0].Instances + p.Groups[1].Instances
	w.fake.with(func(f *fake) {
		f.states[id] = state
		f.progress[id] = []stage.Progress{{Stage: "lookups", Attempt: 1, Total: total, Running: total - total/4, Succeeded: total / 4}}
		f.list = append(f.list, Run{ID: id, Pipeline: p.Name, Status: stage.StatusRunning, Stage: "lookups", Started: now})
	})
	return folder
}

// line is what became of an instance.
func line(group string, index int, attempt, outcome, reason string) string {
	row := instance{Group: group, Index: index, Attempt: attempt, Host: fmt.Sprintf("%s-%d", group, index), Started: began.Format(time.RFC3339Nano),
		Ended: after(2).Format(time.RFC3339Nano), Outcome: outcome, Reason: reason, Memory: 9 << 20, CPU: 0.12}
	if outcome != "succeeded" {
		row.Exit, row.LastLines = 1, []string{"panic: " + reason, "goroutine 1 [running]:", "main.main()"}
	}
	data, err := json.Marshal(row)
	if err != nil {
		panic(err)
	}
	return string(data) + "\n"
}

// lines are those of all instances of a pipeline: every one in failing did not succeed.
func lines(p pipelines.Resolved, attempt string, every int) string {
	var text bytes.Buffer
	n := 0
	for _, g := range p.Groups {
		for i := range g.Instances {
			n++
			switch {
			case every > 0 && n%every == 0:
				text.WriteString(line(g.Name, i, attempt, []string{"failed", "crashed", "silent", "killed"}[n/every%4], "no route to 10.0.0.7"))
			default:
				text.WriteString(line(g.Name, i, attempt, "succeeded", ""))
			}
		}
	}
	return text.String()
}

// appendTo adds to a file of a run.
func appendTo(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(t, err)
	_, err = file.WriteString(text)
	must(t, err, file.Close())
}
