package export

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// running is the address of a real server that a variable names; without it the test is skipped.
func running(t *testing.T, variable, what string) string {
	t.Helper()
	address := os.Getenv(variable)
	if address == "" {
		t.Skipf("needs %s: name it in %s", what, variable)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return strings.TrimSuffix(address, "/")
}

func read(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %.300s %v", address, response.Status, body, err)
	}
	return string(body)
}

// TestRunningPushgateway pushes to a real one, twice, and has it show every sample of the second push and none of the first.
func TestRunningPushgateway(t *testing.T) {
	address := running(t, "GROUNDPLAN_PUSHGATEWAY_SERVER", "a Pushgateway")
	run := sampleRun(t)
	run.Cell = map[string]any{"path": "a/b", "x": "ü ?#"}
	run.ID = "first"
	if err := hasty(t, Targets{}).prometheus(t.Context(), address, run); err != nil {
		t.Fatal(err)
	}
	run.ID = "second"
	if err := hasty(t, Targets{}).prometheus(t.Context(), address, run); err != nil {
		t.Fatal(err)
	}
	shown := read(t, address+"/metrics")
	for _, f := range families(run) {
		for _, s := range f.samples {
			if got := strings.Count(shown, "\n"+s.name+"{"); got < 1 {
				t.Errorf("%s isn't shown", s.name)
			}
		}
	}
	if strings.Contains(shown, `run="first"`) || !strings.Contains(shown, `instance="dht path=a/b x=ü ?#",job="groundplan"`) ||
		strings.Count(shown, `run="second"`) != count(run) {
		t.Errorf("shown:\n%.2000s", shown)
	}
}

func count(run Run) int {
	n := 0
	for _, f := range families(run) {
		n += len(f.samples)
	}
	return n
}

// query asks a Prometheus, until it knows series.
func query(t *testing.T, address, text string) []json.RawMessage {
	t.Helper()
	for range 50 {
		var answer struct {
			Data struct{ Result []json.RawMessage }
		}
		if err := json.Unmarshal([]byte(read(t, address+"/api/v1/query?query="+url.QueryEscape(text))), &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Data.Result) > 0 {
			return answer.Data.Result
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// TestRunningPrometheus sends to a real one, by remote write (--web.enable-remote-write-receiver) twice the same, and by
// OTLP (--web.enable-otlp-receiver).
func TestRunningPrometheus(t *testing.T) {
	address := running(t, "GROUNDPLAN_PROMETHEUS_SERVER", "a Prometheus that takes remote write and OTLP")
	run := sampleRun(t)
	run.ID = "run-" + time.Now().Format("150405.000")
	run.Started, run.Ended = time.Now().Add(-time.Minute), time.Now()
	for range 2 {
		if err := hasty(t, Targets{}).prometheus(t.Context(), address+"/api/v1/write", run); err != nil {
			t.Fatal(err)
		}
	}
	if got := query(t, address, `{job="groundplan",run="`+run.ID+`"}`); len(got) != count(run) {
		t.Errorf("%d series, want %d", len(got), count(run))
	}
	got := query(t, address, `groundplan_rtt_seconds{run="`+run.ID+`",group="us",quantile="0.99",phase="during"}`)
	if len(got) != 1 || !strings.HasSuffix(string(got[0]), `"2"]}`) {
		t.Errorf("got %s", got)
	}
	to := Targets{OTLP: address + "/api/v1/otlp"}
	if notes, err := hasty(t, to).otlp(t.Context(), to, run); err != nil || len(notes) > 0 {
		t.Fatalf("%q, %v", notes, err)
	}
	sum := query(t, address, `sum({__name__=~"lookups_total",instance="`+run.ID+`",groundplan_group="eu",groundplan_phase=""})`)
	if len(sum) != 1 || !strings.HasSuffix(string(sum[0]), `"36"]}`) {
		t.Errorf("lookups: %s in %s", sum, query(t, address, `{instance="`+run.ID+`"}`))
	}
	p99 := query(t, address, `histogram_quantile(0.99, {__name__=~"rtt_seconds",instance="`+run.ID+`",groundplan_group="us",groundplan_phase=""})`)
	if len(p99) != 1 {
		t.Errorf("p99: %s in %s", p99, query(t, address, `{instance="`+run.ID+`"}`))
	}
	t.Logf("p99: %s", p99)
}
