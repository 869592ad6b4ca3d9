package worker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// report gives the median and the 95th percentile, in milliseconds: the mean hides what a person meets.
func report(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	ms := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.95), "p95-ms")
}

// BenchmarkWarm is what a command pays while `groundplan dev` is up: a session of its own, a run, its end. Stages do
// nothing, so that the rest is what Temporal, the workflow and the client take.
func BenchmarkWarm(b *testing.B) {
	home := runs.Home(b.TempDir())
	openSession(b, testConfig(home))
	for name, stages := range map[string]string{"one": "ok-build", "five": five} {
		b.Run(name, func(b *testing.B) {
			var opened, ran []time.Duration
			for n := 0; b.Loop(); n++ {
				began := time.Now()
				s, err := Open(b.Context(), testConfig(home))
				if err != nil {
					b.Fatal(err)
				}
				open := time.Now()
				h := start(b, s, fmt.Sprintf("%s-%d-%d", name, b.N, time.Now().UnixNano()), stages)
				if output := wait(b, h); output.Verdict != stage.Passed {
					b.Fatalf("got %+v", output)
				}
				ended := time.Now()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				opened, ran = append(opened, open.Sub(began)), append(ran, ended.Sub(open))
			}
			slices.Sort(opened)
			b.ReportMetric(float64(opened[len(opened)/2].Microseconds())/1000, "open-p50-ms")
			report(b, ran)
		})
	}
}

// BenchmarkOwn is what a command pays while nothing is up: the services are started for it and stopped behind it.
func BenchmarkOwn(b *testing.B) {
	home := runs.Home(b.TempDir())
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		s, err := Open(b.Context(), testConfig(home))
		if err != nil {
			b.Fatal(err)
		}
		h := start(b, s, fmt.Sprint("own-", began.UnixNano()), "ok-build")
		if output := wait(b, h); output.Verdict != stage.Passed {
			b.Fatalf("got %+v", output)
		}
		gone := s.owned.gone
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
		<-gone
	}
	report(b, took)
}
