package elasticserver

import (
	"net/http"
	"testing"
)

// TestElasticsearchServer keeps a document over a kill.
func TestElasticsearchServer(t *testing.T) {
	s := Start(t)
	s.Ask(http.MethodPut, "/notes/_doc/1?refresh=true", map[string]any{"text": "kept"})
	s.Kill()
	if _, _, err := s.do(http.MethodGet, "/_cluster/health", nil); err == nil {
		t.Error("a killed server answers")
	}
	s.Restart()
	if n := s.Count("notes", map[string]any{"match": map[string]any{"text": "kept"}}); n != 1 {
		t.Errorf("%d documents are left", n)
	}
}
