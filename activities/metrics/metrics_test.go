package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestResults reads each testdata/*.results, one instance's file, and compares what comes of it with the .golden beside.
func TestResults(t *testing.T) {
	files, err := filepath.Glob("testdata/*.results")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			folder := runs.Folder(t.TempDir())
			instanceFile(t, folder, "eu", 0, string(data))
			report := summarise(t, folder, pipelines.Group{Name: "eu", Instances: 1})
			got, err := json.MarshalIndent(report, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, strings.TrimSuffix(path, ".results")+".golden", string(got)+"\n")
		})
	}
}

func instanceFile(t *testing.T, folder runs.Folder, group string, index int, content string) {
	t.Helper()
	dir := folder.Outputs(group, index)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "results.out"), []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func summarise(t *testing.T, folder runs.Folder, groups ...pipelines.Group) Report {
	t.Helper()
	report, err := Summarise(t.Context(), folder, groups, Times{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestGroups(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	for index := range 3 {
		instanceFile(t, folder, "eu", index, fmt.Sprintf(`{"type":"point","name":"rtt","measures":{"value":%d}}`, index+1))
	}
	instanceFile(t, folder, "us", 0, `{"type":"point","name":"rtt,to=eu","measures":{"value":10}}`+"\nnot a metric\n")
	instanceFile(t, folder, "us", 2, "also not\n")
	done := 0
	report, err := Summarise(t.Context(), folder, []pipelines.Group{{Name: "eu", Instances: 3}, {Name: "us", Instances: 3}}, Times{}, func(n int) { done = n })
	if err != nil {
		t.Fatal(err)
	}
	if done != 6 || report.Files != 5 || report.BadLines != 2 || !strings.HasPrefix(report.BadLine, "us/0 line 2: not a metric") {
		t.Errorf("done %d, report %+v", done, report)
	}
	for name, want := range map[string]float64{"rtt": 16, "eu.rtt": 6, "us.rtt": 10} {
		if got := report.Metrics[name].Sum; got != want {
			t.Errorf("the sum of %s is %v, want %v", name, got, want)
		}
	}
	if len(report.Metrics) != 3 {
		t.Errorf("metrics: %v", report.Metrics)
	}
}

func TestWhatAnInstancePutsInThePlaceOfResults(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	if err := errors.Join(os.MkdirAll(filepath.Join(folder.Outputs("g", 0), "results.out"), 0o755), os.MkdirAll(folder.Outputs("g", 1), 0o755),
		syscall.Mkfifo(filepath.Join(folder.Outputs("g", 1), "results.out"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if report := summarise(t, folder, pipelines.Group{Name: "g", Instances: 2}); report.Files != 0 {
		t.Errorf("got %+v", report)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := Summarise(ctx, runs.Folder(t.TempDir()), []pipelines.Group{{Name: "g", Instances: 3}}, Times{}, func(int) {}); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

// endless is a file that has no end; somebody gives up after its tenth piece.
type endless struct {
	pieces int
	giveUp func()
}

func (e *endless) Read(into []byte) (int, error) {
	if e.pieces++; e.pieces == 10 {
		e.giveUp()
	}
	line := `{"type":"point","name":"x","measures":{"value":1}}` + "\n"
	return copy(into, strings.Repeat(line, len(into)/len(line))), nil
}

func TestCancelledInALongFile(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	long := &endless{giveUp: func() { cancel(gone) }}
	var f file
	if err := f.read(bounded{ctx, long}); !errors.Is(err, gone) || long.pieces != 10 {
		t.Errorf("got %v after %d pieces", err, long.pieces)
	}
}

func TestLongLines(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	point := `{"type":"point","name":"x","measures":{"value":1}}` + "\n"
	instanceFile(t, folder, "g", 0, point+strings.Repeat("x", longestLine+10)+"\n"+point)
	report := summarise(t, folder, pipelines.Group{Name: "g", Instances: 1})
	if report.Metrics["x"].Count != 2 || report.BadLines != 1 || report.BadLine != fmt.Sprintf("g/0 line 2: longer than %d bytes", longestLine) {
		t.Errorf("got %+v", report)
	}
}

func TestTooManyNames(t *testing.T) {
	var content strings.Builder
	for i := range mostNames + 5 {
		fmt.Fprintf(&content, `{"type":"point","name":"m%d","measures":{"value":1}}`+"\n", i)
	}
	folder := runs.Folder(t.TempDir())
	instanceFile(t, folder, "g", 0, content.String())
	if report := summarise(t, folder, pipelines.Group{Name: "g", Instances: 1}); report.BadLines != 5 || len(report.Metrics) != 2*mostNames {
		t.Errorf("%d bad lines, %d metrics", report.BadLines, len(report.Metrics))
	}
}

// exactSummary computes a summary the slow way.
func exactSummary(values []float64) pipelines.Summary {
	sorted := slices.Sorted(slices.Values(values))
	sum := 0.0
	for _, v := range sorted {
		sum += v
	}
	at := func(share float64) float64 {
		return sorted[max(int(math.Ceil(share*float64(len(sorted))-1e-9))-1, 0)]
	}
	return pipelines.Summary{
		Count: int64(len(sorted)), Sum: sum, Min: sorted[0], Max: sorted[len(sorted)-1], Mean: sum / float64(len(sorted)),
		P50: at(0.5), P90: at(0.9), P95: at(0.95), P99: at(0.99),
	}
}

// TestAccuracy compares summaries of many kinds of values with the exact ones: off by no more than 0.1 %.
func TestAccuracy(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	kinds := map[string]func() float64{
		"seconds":      func() float64 { return random.ExpFloat64() * 0.08 },
		"nanoseconds":  func() float64 { return math.Floor(random.ExpFloat64() * 8e7) },
		"both signs":   func() float64 { return random.NormFloat64() * 1000 },
		"mostly zero":  func() float64 { return float64(random.IntN(100) / 98) },
		"tiny":         func() float64 { return random.ExpFloat64() * 1e-12 },
		"huge":         func() float64 { return random.ExpFloat64() * 1e200 },
		"all the same": func() float64 { return 0.1 },
		"wide":         func() float64 { return math.Pow(10, random.Float64()*30-15) },
	}
	for name, draw := range kinds {
		for _, count := range []int{1, 2, 10, exactly, exactly + 1, 50_000} {
			values := make([]float64, count)
			for i := range values {
				values[i] = draw()
			}
			check(t, fmt.Sprintf("%d of %s", count, name), Summary(values), exactSummary(values))
			var parts distribution
			for chunk := range slices.Chunk(values, 7000) {
				var part distribution
				for _, v := range chunk {
					part.add(v, 1)
				}
				parts.merge(&part)
			}
			check(t, fmt.Sprintf("%d of %s, merged", count, name), parts.summary(), exactSummary(values))
		}
	}
}

func check(t *testing.T, name string, got, want pipelines.Summary) {
	t.Helper()
	if got.Count != want.Count || got.Min != want.Min || got.Max != want.Max {
		t.Errorf("%s: got %+v, want %+v", name, got, want)
	}
	scale := max(math.Abs(want.Min), math.Abs(want.Max))
	for what, pair := range map[string][2]float64{
		"p50": {got.P50, want.P50}, "p90": {got.P90, want.P90}, "p95": {got.P95, want.P95}, "p99": {got.P99, want.P99},
	} {
		if off := math.Abs(pair[0] - pair[1]); off > 0.001*math.Abs(pair[1]) {
			t.Errorf("%s: %s is %v, want %v", name, what, pair[0], pair[1])
		}
	}
	if off := math.Abs(got.Sum - want.Sum); off > 1e-9*scale*float64(want.Count) {
		t.Errorf("%s: the sum is %v, want %v", name, got.Sum, want.Sum)
	}
}

// TestBesideHdrHistogram compares with the library of that name on values that it can hold.
func TestBesideHdrHistogram(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	histogram := hdrhistogram.New(1, 1<<40, 3)
	var d distribution
	for range 100_000 {
		v := int64(random.ExpFloat64()*1e6) + 1
		if err := histogram.RecordValue(v); err != nil {
			t.Fatal(err)
		}
		d.add(float64(v), 1)
	}
	s := d.summary()
	for share, got := range map[float64]float64{50: s.P50, 90: s.P90, 95: s.P95, 99: s.P99} {
		if want := float64(histogram.ValueAtQuantile(share)); math.Abs(got-want) > 0.002*want {
			t.Errorf("p%v is %v, HdrHistogram says %v", share, got, want)
		}
	}
}

// TestSnapshots gives what a histogram would have said of known values, and checks that the values come back.
func TestSnapshots(t *testing.T) {
	values := make([]float64, 1000)
	for i := range values {
		values[i] = float64(i + 1)
	}
	var d distribution
	snapshotOf(values).into(&d)
	got, want := d.summary(), exactSummary(values)
	if got.Count != want.Count || got.Min != want.Min || got.Max != want.Max || math.Abs(got.Sum-want.Sum) > 1e-6 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for what, pair := range map[string][2]float64{"p50": {got.P50, want.P50}, "p95": {got.P95, want.P95}, "p99": {got.P99, want.P99}, "p90": {got.P90, want.P90}} {
		if math.Abs(pair[0]-pair[1]) > 10 {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
}

func snapshotOf(values []float64) snapshot {
	s := exactSummary(values)
	return snapshot{Count: s.Count, Mean: s.Mean, Min: s.Min, Max: s.Max, Points: []point{{0.5, s.P50}, {0.95, s.P95}, {0.99, s.P99}}}
}

func TestExtremesStayFinite(t *testing.T) {
	s := Summary([]float64{math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 0, math.Copysign(0, -1)})
	if _, err := json.Marshal(s); err != nil {
		t.Errorf("%+v: %v", s, err)
	}
	var d distribution
	snapshot{Count: 3, Mean: math.MaxFloat64, Min: -math.MaxFloat64, Max: math.MaxFloat64}.into(&d)
	if _, err := json.Marshal(d.summary()); err != nil {
		t.Errorf("%+v: %v", d.summary(), err)
	}
}

// FuzzResults gives the reader anything: it never panics, never fails, and what it says can be written as JSON.
func FuzzResults(f *testing.F) {
	files, err := filepath.Glob("testdata/*.results")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Fuzz(func(t *testing.T, content string) {
		var results file
		if err := results.read(strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(content, "\n") + 1; results.bad > lines {
			t.Errorf("%d bad lines of %d", results.bad, lines)
		}
		for name, d := range results.values {
			s := d.summary()
			if _, err := json.Marshal(s); err != nil {
				t.Errorf("%s: %+v: %v", name, s, err)
			}
			if s.Count > 0 && !(s.Min <= s.P50 && s.P50 <= s.P90 && s.P90 <= s.P95 && s.P95 <= s.P99 && s.P99 <= s.Max) {
				t.Errorf("%s: percentiles out of order: %+v", name, s)
			}
		}
	})
}

func BenchmarkSummarise(b *testing.B) {
	folder := runs.Folder(b.TempDir())
	var content strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&content, `{"ts":1700000000000000000,"type":"point","name":"rtt_seconds,peer=%d","measures":{"value":0.0%d}}`+"\n", i%10, i)
	}
	for index := range 100 {
		dir := folder.Outputs("g", index)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "results.out"), []byte(content.String()), 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := Summarise(b.Context(), folder, []pipelines.Group{{Name: "g", Instances: 100}}, Times{}, func(int) {}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/line")
}
