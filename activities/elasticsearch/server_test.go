package elasticsearch

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// TestAccount looks at what a server is told of who asks, and that nobody else is.
func TestAccount(t *testing.T) {
	var told string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told = r.Header.Get("Authorization")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"error":{"type":"security_exception","reason":"no","caused_by":{"type":"x","reason":"nobody knows you"}},"status":403}`)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail, on purpose
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	write(t, garbage, "no certificate")
	inURL := strings.Replace(server.URL, "//", "//url-user:hunter2@", 1)
	for name, c := range map[string]struct {
		server       Server
		told, reason string
	}{
		"nobody":           {Server{URL: server.URL, CA: ca}, "", "nobody knows you"},
		"in the URL":       {Server{URL: inURL, CA: ca}, "Basic dXJsLXVzZXI6aHVudGVyMg==", "nobody knows you"},
		"user":             {Server{URL: inURL, CA: ca, User: "me", Password: "hunter2"}, "Basic bWU6aHVudGVyMg==", "nobody knows you"},
		"key":              {Server{URL: inURL, CA: ca, User: "me", Password: "hunter2", APIKey: "hunter2"}, "APIKey hunter2", "nobody knows you"},
		"unknown CA":       {Server{URL: inURL}, "", "certificate signed by unknown authority"},
		"no certificate":   {Server{URL: inURL, CA: garbage}, "", "garbage.pem holds no certificate"},
		"no URL":           {Server{URL: "https://me:hunter2@[bad"}, "", "the URL of Elasticsearch can't be read"},
		"not encrypted":    {Server{URL: strings.Replace(inURL, "https", "http", 1)}, "", "status 400"},
		"nothing to trust": {Server{URL: inURL, CA: "/nowhere"}, "", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			told = ""
			o := run(t, map[string]string{"eu/0/run.out": "line\n"})
			out := must(t, c.server, o)
			if !strings.Contains(out.Reason, c.reason) || strings.Contains(out.Reason, "hunter2") {
				t.Error(out.Reason)
			}
			if !strings.EqualFold(told, c.told) {
				t.Errorf("the server was told %q", told)
			}
		})
	}
}

func TestExamine(t *testing.T) {
	for status, want := range map[int]string{200: "", 403: "", 401: "status 401 Unauthorized: unknown", 404: "status 404 Not Found: unknown", 503: "status 503 Service Unavailable: unknown"} {
		f := newFake(t)
		f.before = func(w http.ResponseWriter, _ *http.Request) bool { f.say(w, status, "x", "unknown"); return true }
		got := ""
		if err := (Server{URL: strings.Replace(f.URL, "//", "//me:hunter2@", 1)}).Examine(t.Context()); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("status %d: %q", status, got)
		}
	}
	if err := (Server{URL: "http://me:hunter2@127.0.0.1:1"}).Examine(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("nobody there: %v", err)
	}
}

// TestTemplatesOfOthers keeps away from an index template that somebody else has made, and goes on without the right to
// put any.
func TestTemplatesOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*fake) func(http.ResponseWriter, *http.Request) bool
		note   string
	}{
		"somebody else's": {func(*fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/_index_template/") {
					return false
				}
				_, _ = io.WriteString(w, `{"index_templates":[{"name":"groundplan-logs","index_template":{"index_patterns":["logs"]}}]}`)
				return true
			}
		}, ""},
		"no right": {func(f *fake) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "_template/") {
					return false
				}
				f.say(w, http.StatusForbidden, "security_exception", "action is unauthorized")
				return true
			}
		}, "the account may not put the index templates (action is unauthorized): the fields of logs are what somebody else made them"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.before = c.before(f)
			out := must(t, Server{URL: f.URL}, run(t, map[string]string{"eu/0/run.out": "line\n"}))
			if out.Reason != "" || strings.Join(out.Notes, "") != c.note {
				t.Errorf("%+v", out)
			}
			for _, asked := range f.asked {
				if strings.HasPrefix(asked, "PUT /_") {
					t.Errorf("it asked for %s", asked)
				}
			}
			if n := len(f.messages(kindLog)); n != 1 {
				t.Errorf("%d lines are there", n)
			}
		})
	}
}
