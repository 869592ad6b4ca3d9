package metrics

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// twoStages is a run of two groups and two run stages; the program of each counts from 0.
func twoStages(t *testing.T) (runs.Folder, []pipelines.Group, Times) {
	folder := runs.Folder(t.TempDir())
	var content strings.Builder
	say := func(at int, kind, name, measures string) {
		fmt.Fprintf(&content, `{"ts":%d,"type":%q,"name":%q,"measures":{%s}}`+"\n", int64(at)*1e9, kind, name, measures)
	}
	for at := range 10 {
		n := at%5 + 1 // the second stage begins at 5
		say(at, "point", "rtt,to=us", fmt.Sprintf(`"value":%d`, at))
		say(at, "gauge", "peers", fmt.Sprintf(`"value":%d`, at))
		say(at, "meter", "bytes", fmt.Sprintf(`"count":%d,"rate":1`, 100*n))
		say(at, "timer", "took", fmt.Sprintf(`"count":%d,"mean":%d,"min":%d,"max":%d`, n, at, at, at))
		if at == 4 {
			content.WriteString("garbage\n")
		}
	}
	say(20, "counter", "late", `"count":1`)
	content.WriteString(`{"type":"point","name":"timeless","measures":{"value":1}}` + "\n")
	for _, group := range []string{"eu", "us"} {
		instanceFile(t, folder, group, 0, content.String())
	}
	stages := []Window{{Stage: "warm", From: second(0), To: second(4)}, {Stage: "load", From: second(5), To: second(9)}}
	times := Times{
		Windows:    []Window{{"load", "before", "split", second(5), second(6)}, {"load", "during", "split", second(7), second(8)}},
		Stages:     map[string][]Window{"eu": stages, "us": stages[1:]},
		Superseded: map[string][]Window{"us": {{From: second(0), To: second(4)}}},
	}
	return folder, []pipelines.Group{{Name: "eu", Instances: 1}, {Name: "us", Instances: 2}}, times
}

func TestSeries(t *testing.T) {
	folder, groups, times := twoStages(t)
	report, err := Summarise(t.Context(), folder, groups, times, func(int) {})
	if err != nil || report.BadLines != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	var got []string
	for _, s := range report.Series {
		got = append(got, fmt.Sprintf("%s %s/%s %s.%s %s %d %v", s.Metric, s.Group, s.Stage, s.Phase, s.Event, s.Kind, s.Summary.Count, s.Summary.Sum))
	}
	want := `bytes /load . totals 2 1000
bytes /load before.split totals 2 400
bytes /load during.split totals 2 400
bytes /warm . totals 1 500
bytes eu/load . totals 1 500
bytes eu/load before.split totals 1 200
bytes eu/load during.split totals 1 200
bytes eu/warm . totals 1 500
bytes us/load . totals 1 500
bytes us/load before.split totals 1 200
bytes us/load during.split totals 1 200
late / . totals 2 2
late eu/ . totals 1 1
late us/ . totals 1 1
peers /load . last 2 18`
	if text := strings.Join(got[:15], "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	for _, line := range []string{"took eu/warm . values 5 20", "took eu/load . values 5 45", "rtt /load during.split values 4 30", "timeless / . values 2 2"} {
		if !slices.Contains(got, line) {
			t.Errorf("%s is missing in\n%s", line, strings.Join(got, "\n"))
		}
	}
	// A meter's program counts anew in each stage, and so does a timer's.
	if s := report.Metrics["eu.bytes"]; s.Count != 1 || s.Sum != 1000 {
		t.Errorf("bytes: %+v", s)
	}
	if s := report.Metrics["eu.took"]; s.Count != 10 {
		t.Errorf("took: %+v", s)
	}
}

// TestMeterOfAProgramStartedAgain falls back to less than it had counted.
func TestMeterOfAProgramStartedAgain(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	var content strings.Builder
	for at, n := range []int{10, 20, 5, 5, 8} {
		fmt.Fprintf(&content, `{"ts":%d,"type":"meter","name":"bytes","measures":{"count":%d}}`+"\n", at*1e9, n)
	}
	instanceFile(t, folder, "g", 0, content.String())
	times := Times{Windows: []Window{{"s", "during", "churn", second(2), second(3)}}}
	report, err := Summarise(t.Context(), folder, []pipelines.Group{{Name: "g", Instances: 1}}, times, func(int) {})
	if err != nil || report.Metrics["bytes"].Sum != 28 || report.Metrics["bytes.during.churn"].Sum != 5 {
		t.Errorf("%+v, %v", report.Metrics, err)
	}
}

func TestMixedKinds(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	instanceFile(t, folder, "g", 0, `{"type":"gauge","name":"x","measures":{"value":1}}`+"\n"+`{"type":"counter","name":"x","measures":{"count":2}}`)
	report := summarise(t, folder, pipelines.Group{Name: "g", Instances: 1})
	if len(report.Series) != 1 || report.Series[0].Kind != KindValues || report.Series[0].Summary.Sum != 3 {
		t.Errorf("%+v", report.Series)
	}
}

func TestWalk(t *testing.T) {
	folder, groups, times := twoStages(t)
	var got []string
	err := Walk(t.Context(), folder, groups, times, func(m *Measurement) error {
		got = append(got, fmt.Sprintf("%s/%d %s %s %q %s %v %v %v", m.Group, m.Instance, m.Type, m.Metric, m.Tags, m.Stage, m.Phases, m.Summarises, m.Value))
		return nil
	})
	if err != nil || len(got) != 42+22 {
		t.Fatalf("%d lines, %v", len(got), err)
	}
	for _, line := range []string{
		`eu/0 point rtt "to=us" warm [] false 0`, `eu/0 meter bytes "" load [before.split] false 200`, `us/0 timer took "" load [during.split] true 0`,
		`us/0 point timeless ""  [] false 1`, `eu/0 counter late ""  [] false 1`,
	} {
		if !slices.Contains(got, line) {
			t.Errorf("%s is missing in\n%s", line, strings.Join(got, "\n"))
		}
	}
	stop, calls := errors.New("enough"), 0
	err = Walk(t.Context(), folder, groups, times, func(*Measurement) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 || !strings.Contains(err.Error(), "eu/0") {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// TestExponential checks that every value lies in a bucket whose bounds hold it, that none is lost, and that the buckets are
// as fine as they may be.
func TestExponential(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for name, draw := range map[string]func() float64{
		"seconds": func() float64 { return random.ExpFloat64() }, "both signs": random.NormFloat64, "one": func() float64 { return 8 },
		"powers of 2": func() float64 { return math.Ldexp(1, random.IntN(40)-20) }, "zero": func() float64 { return 0 },
		"everything": func() float64 { return math.Float64frombits(random.Uint64() & (1<<62 - 1)) },
	} {
		var d distribution
		values := make([]float64, 2000)
		for i := range values {
			values[i] = draw()
			d.add(values[i], 1)
		}
		e := Series{values: &d}.Exponential(160)
		total := e.Zero
		for sign, b := range map[float64]Buckets{1: e.Positive, -1: e.Negative} {
			if len(b.Counts) > 160 {
				t.Errorf("%s: %d buckets", name, len(b.Counts))
			}
			for i, n := range b.Counts {
				total += n
				low, high := bound(b.Offset+i, e.Scale), bound(b.Offset+i+1, e.Scale)
				within := uint64(0)
				for _, v := range values {
					if v*sign > low*(1-1e-12) && v*sign <= high*(1+1e-12) {
						within++
					}
				}
				if within < n {
					t.Errorf("%s: the bucket (%v, %v] has %d, the values %d", name, low, high, n, within)
				}
			}
		}
		if total != 2000 {
			t.Errorf("%s: %d of 2000 values", name, total)
		}
	}
	var d distribution
	d.add(8, 1)
	if e := (Series{values: &d}).Exponential(160); e.Scale != finest || len(e.Positive.Counts) != 1 {
		t.Errorf("%+v", e)
	}
}

// bound is the lower bound of a bucket.
func bound(bucket, scale int) float64 { return math.Exp2(math.Ldexp(float64(bucket), -scale)) }

// TestNoAverageOfPercentiles has instances of very unlike distributions, which write summaries only. The percentiles over
// all of them are those of the values together, as exactly as the summaries allow: between the known percentile below and
// the one above.
func TestNoAverageOfPercentiles(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for round := range 200 {
		var merged, low, high distribution
		var all []float64
		for range 2 + random.IntN(6) {
			shift := math.Pow(10, random.Float64()*4-2)
			values := make([]float64, 100+random.IntN(3000))
			for i := range values {
				values[i] = shift * (1 + random.ExpFloat64())
			}
			all = append(all, values...)
			s := snapshotOf(values)
			var one distribution
			s.into(&one)
			merged.merge(&one)
			bounds(s, &low, &high)
		}
		got, want := merged.summary(), exactSummary(all)
		if got.Count != want.Count || got.Min != want.Min || got.Max != want.Max || math.Abs(got.Sum-want.Sum) > 1e-9*want.Sum {
			t.Fatalf("round %d: got %+v, want %+v", round, got, want)
		}
		least, most := low.summary(), high.summary()
		for name, p := range map[string][4]float64{
			"p50": {least.P50, got.P50, most.P50, want.P50}, "p90": {least.P90, got.P90, most.P90, want.P90},
			"p95": {least.P95, got.P95, most.P95, want.P95}, "p99": {least.P99, got.P99, most.P99, want.P99},
		} {
			for what, v := range map[string]float64{"merged": p[1], "true": p[3]} {
				if v < p[0]*0.999 || v > p[2]*1.001 {
					t.Errorf("round %d: the %s %s is %v, outside of %v to %v", round, what, name, v, p[0], p[2])
				}
			}
		}
	}
	// Half of all values are 1, half are 100. An average would say 50.5.
	var d distribution
	for _, v := range []float64{1, 100} {
		snapshot{Count: 1000, Mean: v, Min: v, Max: v, Points: []point{{0.5, v}, {0.99, v}}}.into(&d)
	}
	if s := d.summary(); s.P50 != 1 || s.P90 != 100 || s.P99 != 100 || s.Mean != 50.5 {
		t.Errorf("%+v", s)
	}
}

// bounds adds the least and the greatest values that a snapshot can stand for.
func bounds(s snapshot, low, high *distribution) {
	points := append(append([]point{{0, s.Min}}, s.Points...), point{1, s.Max})
	for i := 1; i < len(points); i++ {
		from, through := int64(points[i-1].Share*float64(s.Count)+0.5), int64(points[i].Share*float64(s.Count)+0.5)
		low.add(points[i-1].Value, through-from)
		high.add(points[i].Value, through-from)
	}
}
