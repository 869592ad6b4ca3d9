package elasticsearch

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groundplan/groundplan/internal/elasticserver"
)

// patient are limits that outlast a server that starts again on a busy machine.
var patient = limits{
	batchBytes: 1 << 20, batchDocuments: 5000, patience: 3 * time.Minute, firstPatience: 3 * time.Minute,
	leastWait: 100 * time.Millisecond, mostWait: 2 * time.Second, mostRefused: 1000, save: time.Second,
}

// TestElasticsearchKilled kills the server in the middle of a push and starts it again.
func TestElasticsearchKilled(t *testing.T) {
	s := elasticserver.Start(t)
	o := run(t, map[string]string{"eu/0/run.out": numbered(40_000), "eu/1/run.out": numbered(40_000)})
	o.Input.Deadline = time.Now().Add(10 * time.Minute)
	killed := false
	var waited atomic.Bool
	out, err := Server{URL: s.URL}.push(t.Context(), o, patient, func(note string) {
		if strings.Contains(note, "waiting") {
			waited.Store(true)
		} else if !killed && !strings.Contains(note, ": 0 B of") {
			killed = true
			s.Launch()
		}
	})
	if err != nil || out.Reason != "" || !killed || !waited.Load() {
		t.Fatalf("%+v, %v, killed %v, waited %v", out, err, killed, waited.Load())
	}
	everyLineOnce(t, s, o, 40_000)
}

// TestElasticsearchBusy has a proxy in front of the server say 429 for a while, and cut answers after that.
func TestElasticsearchBusy(t *testing.T) {
	s := elasticserver.Start(t)
	const busy = 5 * time.Second
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(at)
	var requests atomic.Int64
	var until atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := requests.Add(1); {
		case !strings.HasSuffix(r.URL.Path, "_bulk"):
		case until.CompareAndSwap(0, time.Now().Add(busy).UnixNano()), time.Now().UnixNano() < until.Load():
			w.Header().Set("X-Elastic-Product", "Elasticsearch")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		case n%5 == 0: // the server does as it was told, and nobody hears of it
			through.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		through.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	o := run(t, map[string]string{"eu/0/run.out": numbered(10_000), "eu/1/run.out": numbered(10_000)})
	out, err := Server{URL: proxy.URL}.push(t.Context(), o, patient, func(string) {})
	if err != nil || out.Reason != "" {
		t.Fatalf("%+v, %v", out, err)
	}
	everyLineOnce(t, s, o, 10_000)
}

// TestElasticsearchRefuses pushes into an index of the user's own that can't take one line in a hundred.
func TestElasticsearchRefuses(t *testing.T) {
	s := elasticserver.Start(t)
	s.Ask(http.MethodPut, "/logs", object{"mappings": object{"properties": object{"message": object{"type": "keyword"}, "instance": object{"type": "long"}}}})
	var log strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&log, "%d %s\n", i, strings.Repeat("x", 40_000*(max(0, i%100-98))))
	}
	o := run(t, map[string]string{"eu/0/run.out": log.String()})
	for range 2 {
		out := must(t, Server{URL: s.URL}, o)
		if !strings.HasPrefix(out.Reason, "Elasticsearch refused 20 documents: status 400 Bad Request: ") || !strings.Contains(out.Reason, "immense term") {
			t.Error(out.Reason)
		}
		if n := s.Count("logs", object{"term": object{"instance": 0}}); n != 1980+1 {
			t.Errorf("%d documents are there", n)
		}
	}
}

// everyLineOnce makes sure that two instances' logs of n lines are there, each line once and as it was.
func everyLineOnce(t testing.TB, s *elasticserver.Server, o Order, n int) {
	t.Helper()
	if got := s.Count(o.Index, object{"term": object{"kind": kindLog}}); got != 2*n {
		t.Errorf("%d lines are there, want %d", got, 2*n)
	}
	for instance := range 2 {
		if err := sameLog(s, o, instance); err != nil {
			t.Error(err)
		}
	}
}
