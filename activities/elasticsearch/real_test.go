package elasticsearch

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/internal/elasticserver"
	"github.com/groundplan/groundplan/runs"
)

// TestElasticsearchTakesAll pushes to a real server what a hostile plan may write, and asks for it as a person would.
func TestElasticsearchTakesAll(t *testing.T) {
	s := elasticserver.Start(t)
	deep := strings.Repeat(`{"a":`, 50) + "1" + strings.Repeat("}", 50)
	wide := make([]string, 2000)
	for i := range wide {
		wide[i] = fmt.Sprintf(`"field%d":%d`, i, i)
	}
	log := strings.Join([]string{
		`{"ts":` + fmt.Sprint(at(15).UnixNano()) + `,"event":{"message_event":{"message":"in the split"}}}`,
		`{"twice":1,"twice":2}`, deep, "{" + strings.Join(wide, ",") + "}", `{"\u0000key":1}`, `{"n":1e999,"m":[1,"a",{"b":null}]}`, `{"":1}`, `{"a.b":1,"a":{"b":2}}`,
		"nul \x00 bad \xff\xfe \u2028", strings.Repeat("x", 300<<10), `{"long":"` + strings.Repeat("y", 100<<10) + `"}`, "", "last",
	}, "\n") + "\n"
	o := run(t, map[string]string{"eu/0/run.out": log, "eu/1/run.out": numbered(3000)})
	for range 2 {
		out := must(t, Server{URL: s.URL}, o)
		if out.Reason != "" || len(out.Notes) > 0 {
			t.Errorf("%+v", out)
		}
		for query, want := range map[string]int{
			"kind:log": 3013, "kind:log AND instance:0": 13, "kind:event": 5, "kind:result AND result.outcome:crashed": 1, "kind:metric": 2,
			`event.message_event.message:"in the split" AND phase:during.split`: 1, "event_dropped:true": 3, "truncated:true": 1, "event.field1999:1999": 1,
			"run:run-1 AND suite:nightly AND stage:lookups AND kind:log": 3013,
		} {
			if got := s.Count("logs", map[string]any{"query_string": map[string]any{"query": query}}); got != want {
				t.Errorf("%s finds %d, want %d", query, got, want)
			}
		}
	}
	fields := s.Ask(http.MethodGet, "/logs/_mapping", nil)
	if text := fmt.Sprint(fields); strings.Contains(text, "field1999") || !strings.Contains(text, "flattened") {
		t.Errorf("the mapping is %.2000s", text)
	}
}

// TestElasticsearchStream pushes into a data stream of the user's own that rolls over between two tries, and finds
// everything once.
func TestElasticsearchStream(t *testing.T) {
	s := elasticserver.Start(t)
	s.Ask(http.MethodPut, "/_component_template/"+component, object{"template": object{"mappings": mappings()}})
	s.Ask(http.MethodPut, "/_index_template/mine", object{"index_patterns": []string{"lo*"}, "priority": 500, "composed_of": []string{component}, "data_stream": object{}})
	// The module that makes streams when asked is not on Maven Central; one is made for a first document all the same.
	s.Ask(http.MethodPost, "/logs/_doc?op_type=create", object{"@timestamp": "2026-01-01T00:00:00Z"})
	o := run(t, map[string]string{"eu/0/run.out": numbered(3000)})
	if out := must(t, Server{URL: s.URL}, o); out.Reason != "" {
		t.Fatal(out.Reason)
	}
	all := s.Count("logs", nil)
	s.Ask(http.MethodPost, "/logs/_rollover", nil)
	forget(t, o)
	if out := must(t, Server{URL: s.URL}, o); out.Reason != "" {
		t.Fatal(out.Reason)
	}
	if got := s.Count("logs", nil); got != all || all != 1+3000+5+1+2 {
		t.Errorf("%d documents, then %d", all, got)
	}
}

// forget takes the state back to the first line, as if its worker had been killed before it could note anything else.
func forget(t *testing.T, o Order) {
	t.Helper()
	var s state
	if err := runs.ReadJSON(o.Folder.Push(o.Index), &s); err != nil {
		t.Fatal(err)
	}
	s.rewind()
	if err := runs.WriteJSON(o.Folder.Push(o.Index), s); err != nil {
		t.Fatal(err)
	}
}
