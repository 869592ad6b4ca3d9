package elasticsearch

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// fake is a server that speaks as much of Elasticsearch as a push needs, and is strict about it.
type fake struct {
	*httptest.Server
	t *testing.T

	mu        sync.Mutex
	exists    bool
	made      int // how often the index was made
	documents map[string]map[string]any
	bulks     int
	bytes     int64
	asked     []string
	// before may answer in place of the server: true says that it has.
	before func(w http.ResponseWriter, r *http.Request) bool
	// item may refuse a document: a status of 0 takes it.
	item func(id string, document []byte) (status int, kind, reason string)
	// bulk may answer in place of the server, with what is written of its answer.
	after func(w http.ResponseWriter, answer []byte) bool
	most  int // bytes of a request, uncompressed; 0: any
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, documents: map[string]map[string]any{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the other side went away
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes += int64(len(body))
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	f.asked = append(f.asked, r.Method+" "+r.URL.Path)
	if f.before != nil && f.before(w, r) {
		return
	}
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/_bulk"):
		f.exists = true
		f.takeBulk(w, r, body)
	case r.Method == http.MethodGet && strings.HasPrefix(path, "/_resolve/index/"):
		if !f.exists {
			f.say(w, http.StatusNotFound, "index_not_found_exception", "no such index")
			return
		}
		_, _ = fmt.Fprintf(w, `{"indices":[{"name":%q}],"aliases":[],"data_streams":[]}`, strings.TrimPrefix(path, "/_resolve/index/"))
	case strings.HasSuffix(path, "/_settings/index.uuid"):
		_, _ = fmt.Fprintf(w, `{"logs":{"settings":{"index":{"uuid":"made-%d"}}}}`, f.made)
	case r.Method == http.MethodGet && strings.HasPrefix(path, "/_index_template/"):
		f.say(w, http.StatusNotFound, "resource_not_found_exception", "no such template")
	case r.Method == http.MethodPut && (strings.Contains(path, "_template/") || strings.Count(path, "/") == 1):
		if strings.Count(path, "/") == 1 {
			f.exists = true
			f.made++
		}
		_, _ = io.WriteString(w, `{"acknowledged":true}`)
	default:
		f.t.Errorf("asked for %s %s", r.Method, path)
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (f *fake) say(w http.ResponseWriter, status int, kind, reason string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"type": kind, "reason": reason}, "status": status})
}

func (f *fake) takeBulk(w http.ResponseWriter, r *http.Request, body []byte) {
	if r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Content-Type") != "application/x-ndjson" {
		f.t.Errorf("bulk with headers %v", r.Header)
	}
	zip, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		f.t.Error(err)
		return
	}
	plain, err := io.ReadAll(zip)
	if err != nil {
		f.t.Error(err)
	}
	f.bulks++
	if f.most > 0 && len(plain) > f.most {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	if len(plain) == 0 || plain[len(plain)-1] != '\n' {
		f.t.Error("a bulk must end with a line's end")
	}
	var items []string
	for lines := bufio.NewReader(bytes.NewReader(plain)); ; {
		action, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		document, _ := lines.ReadBytes('\n')
		items = append(items, f.take(action, document))
	}
	answer := []byte(`{"items":[` + strings.Join(items, ",") + `]}`)
	if f.after != nil && f.after(w, answer) {
		return
	}
	_, _ = w.Write(answer)
}

func (f *fake) take(action, document []byte) string {
	var asked map[string]struct {
		ID string `json:"_id"`
	}
	if err := json.Unmarshal(action, &asked); err != nil || len(asked) != 1 {
		f.t.Errorf("bulk says %q: %v", action, err)
	}
	for op, about := range asked {
		if f.item != nil {
			if status, kind, reason := f.item(about.ID, document); status != 0 {
				text, _ := json.Marshal(map[string]any{op: map[string]any{"status": status, "error": map[string]any{"type": kind, "reason": reason}}})
				return string(text)
			}
		}
		var fields map[string]any
		if err := json.Unmarshal(document, &fields); err != nil {
			f.t.Errorf("document %q: %v", document, err)
		}
		if _, there := f.documents[about.ID]; there && op == opCreate {
			return `{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"document already exists"}}}`
		}
		f.documents[about.ID] = fields
		return `{"` + op + `":{"status":201}}`
	}
	return ""
}

// messages are those of a kind of document, by group/instance/file:offset.
func (f *fake) messages(kind string) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[string]string{}
	for _, d := range f.documents {
		if d["kind"] == kind {
			key := fmt.Sprintf("%v/%v/%v:%v", d["group"], d["instance"], d["file"], d["offset"])
			if _, twice := found[key]; twice {
				f.t.Errorf("%s is there twice", key)
			}
			found[key], _ = d["message"].(string)
		}
	}
	return found
}
