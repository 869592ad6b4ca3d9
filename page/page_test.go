package page

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
)

// Every document, script and style is there, with the headers that keep it to itself.
func TestDocuments(t *testing.T) {
	w := newWorld(t)
	p := aPipeline("dht", 4)
	w.ended("run-1", p, stage.Passed, "gather", "5 stages")
	turns(w)
	for path, kind := range map[string]string{
		"/": "text/html", "/runs/run-1": "text/html", "/suites": "text/html", "/suites/nightly": "text/html", "/static/run.js": "text/javascript",
		"/static/page.css": "text/css", "/static/report.css": "text/css", "/static/icon.svg": "image/svg+xml", "/runs/run-1/report.html": "text/html",
		"/suites/nightly/report.html": "text/html", "/api/hello": "application/json",
	} {
		response, err := w.client.Get(w.server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		policy := response.Header.Get("Content-Security-Policy")
		if err != nil || response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), kind) || len(body) == 0 {
			t.Errorf("%s: %s %s, %d bytes, %v", path, response.Status, response.Header.Get("Content-Type"), len(body), err)
		}
		if !strings.Contains(policy, "frame-ancestors 'none'") || !strings.Contains(policy, "default-src") || response.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: its policy is %q", path, policy)
		}
		if scripts := strings.Contains(policy, "unsafe-inline"); scripts != strings.HasSuffix(path, "/report.html") {
			t.Errorf("%s: its policy is %q", path, policy)
		}
	}
	for _, path := range []string{"/nothing", "/static/nothing.js", "/static/..%2fpage.go", "/runs/no-such-run/report.html", "/runs/..%2f..%2fetc/report.html", "/api/nothing", "/api/runs/a%20b/stream", "/suites/..%2f/report.html"} {
		if status, body := w.get(path); status != http.StatusNotFound || !strings.Contains(body, `"error"`) {
			t.Errorf("%s: %d %.100s", path, status, body)
		}
	}
}

// A file that the browser has already is not sent again.
func TestFilesAreKept(t *testing.T) {
	w := newWorld(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.server.URL+"/static/run.js", nil)
	must(t, err)
	request.Header.Set("If-None-Match", w.page.files["run.js"].tag)
	response, err := w.client.Do(request)
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusNotModified {
		t.Errorf("got %s", response.Status)
	}
}

// Nobody without the key gets anything, whatever they ask.
func TestStrangers(t *testing.T) {
	w := newWorld(t)
	w.ended("run-1", aPipeline("dht", 4), stage.Passed, "gather", "5 stages")
	for _, path := range []string{"/", "/static/run.js", "/api/hello", "/api/runs/stream", "/runs/run-1/report.html", "/?key=other", "/api/runs/run-1/log?group=eu&index=0&file=run.out", "/nothing"} {
		response, err := http.Get(w.server.URL + path)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", path, response.Status)
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.server.URL+"/api/hello", nil)
	must(t, err)
	request.Host = "evil.example" // a name that was pointed at loopback, with a visitor's cookie
	response, err := w.client.Do(request)
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("by another name: %s", response.Status)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestWishes(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ path, body, want string }{
		{"/api/runs/r-1/cancel", `{}`, "cancel r-1"},
		{"/api/runs/r-1/resume", `{"from":"lookups"}`, "resume r-1 lookups"},
		{"/api/runs/r-1/decide", `{"action":"retry","stage":"lookups"}`, "decide r-1 retry lookups"},
		{"/api/suites/nightly/trigger", `{}`, "trigger nightly"},
		{"/api/suites/nightly/pause", `{"note":"why"}`, "pause nightly why"},
		{"/api/suites/nightly/unpause", `{}`, "unpause nightly"},
	} {
		w.fake.with(func(f *fake) { f.wishes = nil })
		if status, body := w.post(c.path, c.body, nil); status != http.StatusOK || w.fake.wished() != c.want {
			t.Errorf("%s: %d %s, and it was asked to %q", c.path, status, body, w.fake.wished())
		}
	}
	for want, err := range map[int]error{http.StatusConflict: errors.New("the run has ended"), http.StatusNotFound: fmt.Errorf("run x: %w", ErrUnknown)} {
		w.fake.with(func(f *fake) { f.refusal = err })
		if status, body := w.post("/api/runs/r-1/cancel", `{}`, nil); status != want || !strings.Contains(body, err.Error()) {
			t.Errorf("a refusal is %d %s", status, body)
		}
	}
}

// What isn't a POST of the page itself changes nothing.
func TestRefusedWishes(t *testing.T) {
	w := newWorld(t)
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) {
			if r.Header.Del(name); value != "" {
				r.Header.Set(name, value)
			}
		}
	}
	for name, change := range map[string]func(*http.Request){
		"another origin":     set("Origin", "http://evil.example"),
		"another port":       set("Origin", "http://127.0.0.1:1"),
		"an opaque origin":   set("Origin", "null"),
		"another site":       set("Sec-Fetch-Site", "cross-site"),
		"another port's":     set("Sec-Fetch-Site", "same-site"),
		"no token":           set(tokenHeader, ""),
		"another token":      set(tokenHeader, "x"),
		"no cookie":          func(r *http.Request) { r.Host = "localhost:1" },
		"neither says whose": func(r *http.Request) { set("Origin", "")(r); set("Sec-Fetch-Site", "")(r) },
	} {
		if status, body := w.post("/api/runs/r-1/cancel", `{}`, change); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	for _, path := range []string{"/api/runs/r-1/cancel", "/api/runs/r-1/resume", "/api/runs/r-1/decide", "/api/suites/n/trigger"} {
		if status, _ := w.get(path); status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", path, status)
		}
	}
	for _, body := range []string{"", "x", `{"from":1}`, `{"surprise":true}`, `{"from":"` + strings.Repeat("x", mostBody) + `"}`} {
		if status, answer := w.post("/api/runs/r-1/resume", body, nil); status != http.StatusBadRequest {
			t.Errorf("%.40q: %d %s", body, status, answer)
		}
	}
	if status, _ := w.post("/api/runs/..%2fx/cancel", `{}`, nil); status != http.StatusNotFound {
		t.Errorf("a name that is a path: %d", status)
	}
	if wished := w.fake.wished(); wished != "" {
		t.Errorf("it was asked to %s", wished)
	}
}

// A page of another site can't even ask, when the browser says so.
func TestForeignReads(t *testing.T) {
	w := newWorld(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.server.URL+"/api/hello", nil)
	must(t, err)
	request.Header.Set("Sec-Fetch-Site", "same-site")
	response, err := w.client.Do(request)
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("another port's page gets %s", response.Status)
	}
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	folder := w.ended("run-1", aPipeline("dht", 4), stage.Passed, "gather", "5 stages")
	var text strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&text, "line %d <b>&\n", i)
	}
	out := folder.Outputs("eu", 0)
	appendTo(t, filepath.Join(out, "run.out"), text.String())
	appendTo(t, filepath.Join(out, "deep", "er.log"), "x\n")
	appendTo(t, filepath.Join(out, "core"), "a\x00b")
	appendTo(t, filepath.Join(string(folder), "secret"), "secret")
	must(t, os.Symlink("../../../secret", filepath.Join(out, "link")), os.Symlink("run.out", filepath.Join(out, "inside")),
		syscall.Mkfifo(filepath.Join(out, "pipe"), 0o600), os.MkdirAll(folder.Outputs("us", 0), 0o755),
		os.Symlink("../../..", filepath.Join(string(folder), "outputs", "us", "1")))

	if status, body := w.get("/api/runs/run-1/files?group=eu&index=0"); status != http.StatusOK || !strings.Contains(body, `"deep/er.log"`) || strings.Contains(body, "link") || strings.Contains(body, "pipe") {
		t.Errorf("the files are %d %s", status, body)
	}
	whole := text.String()
	read := func(where string) logPart {
		t.Helper()
		status, body := w.get("/api/runs/run-1/log?group=eu&index=0&file=run.out" + where)
		var p logPart
		if status != http.StatusOK || !decode(body, &p) {
			t.Fatalf("%s: %d %.200s", where, status, body)
		}
		if p.Text != whole[p.From:p.To] || p.To-p.From > mostLog || p.Size != int64(len(whole)) {
			t.Fatalf("%s: %d to %d is not what the file holds there", where, p.From, p.To)
		}
		return p
	}
	// Backwards, every byte comes once.
	last, parts := read(""), 1
	if last.To != last.Size {
		t.Errorf("the end is at %d of %d", last.To, last.Size)
	}
	for at := last; at.From > 0; parts++ {
		before := read(fmt.Sprintf("&before=%d", at.From))
		if before.To != at.From || before.From >= at.From {
			t.Fatalf("before %d comes %d to %d", at.From, before.From, before.To)
		}
		at = before
	}
	if parts < len(whole)/mostLog {
		t.Errorf("it took only %d parts", parts)
	}
	appendTo(t, filepath.Join(out, "run.out"), "more\nhalf")
	whole += "more\nhalf"
	if p := read(fmt.Sprintf("&after=%d", last.To)); p.Text != "more\n" {
		t.Errorf("what has come is %q", p.Text)
	}
	if status, body := w.get("/api/runs/run-1/log?group=eu&index=0&file=core"); status != http.StatusOK || !strings.Contains(body, `"binary":true`) {
		t.Errorf("a binary file is %d %s", status, body)
	}
	for name, query := range map[string]string{
		"up": "group=eu&index=0&file=../1/run.out", "absolute": "group=eu&index=0&file=/etc/passwd", "a link out": "group=eu&index=0&file=link", "a pipe": "group=eu&index=0&file=pipe",
		"a folder": "group=eu&index=0&file=deep", "no file": "group=eu&index=0&file=nothing", "no name": "group=eu&index=0", "a group up": "group=..&index=0&file=run.json",
		"a group with a slash": "group=eu/0&index=0&file=run.out", "an index that is none": "group=eu&index=0/../0&file=run.out", "negative": "group=eu&index=-1&file=run.out",
		"both ends": "group=eu&index=0&file=run.out&before=1&after=1", "no offset": "group=eu&index=0&file=run.out&before=x", "a folder that is a link": "group=us&index=1&file=run.json",
		"a link inside": "group=eu&index=0&file=inside",
	} {
		status, body := w.get("/api/runs/run-1/log?" + query)
		if status != http.StatusNotFound && status != http.StatusBadRequest || strings.Contains(body, "secret") || strings.Contains(body, string(w.home)) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

// Serve ends promptly with its context, whoever still listens.
func TestServeEnds(t *testing.T) {
	w := newWorld(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p, err := New(Options{Home: w.home, Services: w.fake, Door: w.door})
	must(t, err)
	ctx, stop := contextWithStop(t)
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ctx, listener) }()
	own := *w
	own.server = &httptest.Server{URL: "http://" + listener.Addr().String()}
	response, err := own.client.Get(own.entrance("/"))
	must(t, err)
	response.Body.Close()
	var streams []*events
	for range 5 {
		e := own.listen("/api/runs/stream", "")
		e.until("ready", nil)
		streams = append(streams, e)
	}
	stop()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	for _, e := range streams {
		if _, more := e.next(); more {
			t.Error("a stream goes on")
		}
	}
}
