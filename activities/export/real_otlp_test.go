//go:build prometheus

package export

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestRunningOTLP sends to a real Prometheus that takes OTLP (version 3 with --web.enable-otlp-receiver; Debian's is older),
// which GROUNDPLAN_PROMETHEUS_SERVER names.
func TestRunningOTLP(t *testing.T) {
	address := strings.TrimSuffix(os.Getenv("GROUNDPLAN_PROMETHEUS_SERVER"), "/")
	if address == "" {
		t.Fatal("GROUNDPLAN_PROMETHEUS_SERVER names no Prometheus")
	}
	run := sampleRun(t)
	run.ID = "run-" + time.Now().Format("150405.000")
	run.Started, run.Ended = time.Now().Add(-time.Minute), time.Now()
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
