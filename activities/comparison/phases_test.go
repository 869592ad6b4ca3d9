package comparison

import "testing"

func TestMoreIsBetterInEveryPhase(t *testing.T) {
	for figure, want := range map[string]bool{
		"upload_bits.p50": true, "eu.upload_bits.during.split.p50": true, "upload_bits.before.split.p50": true, "upload_bits.after.split.p99": true,
		"rtt_seconds.p50": false, "rtt_seconds.after.cache_hits.p50": false, "hits.sum": true,
	} {
		if got := greaterIsBetter(figure); got != want {
			t.Errorf("%s: %v", figure, got)
		}
	}
}
