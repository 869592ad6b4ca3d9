package sdk

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestParams(t *testing.T) {
	read := map[string]func(*Run) (any, error){
		"string":    func(r *Run) (any, error) { return Param[string](r, "x") },
		"bool":      func(r *Run) (any, error) { return Param[bool](r, "x") },
		"int":       func(r *Run) (any, error) { return Param[int](r, "x") },
		"int64":     func(r *Run) (any, error) { return Param[int64](r, "x") },
		"uint64":    func(r *Run) (any, error) { return Param[uint64](r, "x") },
		"float64":   func(r *Run) (any, error) { return Param[float64](r, "x") },
		"duration":  func(r *Run) (any, error) { return Param[time.Duration](r, "x") },
		"size":      func(r *Run) (any, error) { return Param[Size](r, "x") },
		"bandwidth": func(r *Run) (any, error) { return Param[Bandwidth](r, "x") },
		"share":     func(r *Run) (any, error) { return Param[Share](r, "x") },
	}
	for _, c := range []struct {
		kind, text string
		want       any
		wrong      string
	}{
		{"string", "a=b|c", "a=b|c", ""}, {"string", "", "", ""},
		{"bool", "true", true, ""}, {"bool", "yes", nil, `parameter x is "yes": it should be true or false`},
		{"int", "-7", -7, ""}, {"int", "7.5", nil, "a whole number"}, {"int", "99999999999999999999", nil, "a whole number"},
		{"int64", "9223372036854775807", int64(9223372036854775807), ""},
		{"uint64", "18446744073709551615", uint64(18446744073709551615), ""}, {"uint64", "-1", nil, "from 0 on"},
		{"float64", "1e-3", 0.001, ""}, {"float64", "x", nil, "a number"},
		{"duration", "1m30s", 90 * time.Second, ""}, {"duration", "30", nil, "80ms or 2m"},
		{"size", "64Mi", Size(64 << 20), ""}, {"size", "1.5kB", Size(1500), ""}, {"size", "10", Size(10), ""},
		{"size", "64MI", nil, "64Mi or 10MB"}, {"size", "0.3B", nil, "64Mi"}, {"size", "9999999999T", nil, "64Mi"}, {"size", "-1B", nil, "64Mi"}, {"size", "", nil, "64Mi"}, {"size", "1e3B", nil, "64Mi"},
		{"bandwidth", "20Mbit", 20 * Mbit, ""}, {"bandwidth", "0.5Gbit", 500 * Mbit, ""}, {"bandwidth", "20MB", nil, "20Mbit"},
		{"share", "5%", Share(0.05), ""}, {"share", "0.5", Share(0.5), ""}, {"share", "120%", nil, "5%"}, {"share", "NaN", nil, "5%"},
	} {
		got, err := read[c.kind](&Run{Environment: Environment{Params: map[string]string{"x": c.text}}})
		if c.wrong == "" && (err != nil || got != c.want) || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s %q: %v, %v; want %v %s", c.kind, c.text, got, err, c.want, c.wrong)
		}
	}
	none := &Run{}
	for kind, f := range read {
		if _, err := f(none); !errors.Is(err, ErrNoParam) || !strings.Contains(err.Error(), "parameter x") {
			t.Errorf("%s that is not there: %v", kind, err)
		}
	}
}

func TestOtherParams(t *testing.T) {
	r := &Run{Environment: Environment{Params: map[string]string{"n": "x", "list": `["a","b"]`}}}
	if n, err := ParamOr(r, "m", 7); n != 7 || err != nil {
		t.Error(n, err)
	}
	if _, err := ParamOr(r, "n", 7); err == nil {
		t.Error("a parameter that is wrong is replaced by the fallback")
	}
	if list, err := ParamJSON[[]string](r, "list"); !slices.Equal(list, []string{"a", "b"}) || err != nil {
		t.Error(list, err)
	}
	for _, name := range []string{"n", "m"} {
		if _, err := ParamJSON[[]string](r, name); err == nil || !strings.Contains(err.Error(), "parameter "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzQuantity(f *testing.F) {
	for _, s := range []string{"64Mi", "1.5kB", "..", "", "0x1", "1e9", "٣B", "9223372036854775808"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := quantity[Size](s, sizes); err == nil && n < 0 {
			t.Errorf("%q is %d", s, n)
		}
	})
}

func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	var m *Metrics
	for range 2 { // the second stage appends
		var err error
		if m, err = openMetrics(dir, "results.out"); err != nil {
			t.Fatal(err)
		}
		c := m.Counter("found,by=me")
		c.Add(2)
		m.Counter("found,by=me").Add(3)
		for _, err := range []error{
			m.Point("p", 1.5), m.Gauge("g", -2), m.Histogram("h", 3), m.Timer("t_seconds", 250*time.Millisecond), m.close(), m.close(),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	if err := m.Point("late", 1); !errors.Is(err, errMetricsClosed) {
		t.Error(err)
	}
	i := &instance{t: t, env: map[string]string{"TEST_OUTPUTS_PATH": dir}}
	want := []string{`"counter","name":"found,by=me","measures":{"count":0}`, `"point","name":"p","measures":{"value":1.5}`, `"gauge","name":"g","measures":{"value":-2}`,
		`"histogram","name":"h","measures":{"value":3}`, `"timer","name":"t_seconds","measures":{"value":0.25}`, `"counter","name":"found,by=me","measures":{"count":5}`}
	lines := slices.Collect(strings.Lines(i.output("results.out")))
	if len(lines) != 2*len(want) {
		t.Fatalf("%q", lines)
	}
	for n, line := range lines {
		var l struct{ TS int64 }
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.TS == 0 || !strings.Contains(line, `"type":`+want[n%len(want)]) {
			t.Errorf("line %d is %s (%v), want %s", n, line, err, want[n%len(want)])
		}
	}
	if _, err := openMetrics("/does/not/exist", "x"); err == nil {
		t.Error("metrics in no folder")
	}
}

func TestMetricsAreOnDiskSoon(t *testing.T) {
	m, err := openMetrics(t.TempDir(), "results.out")
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	m.Counter("c").Add(1)
	for range 100 {
		time.Sleep(50 * time.Millisecond)
		if info, err := m.file.Stat(); err == nil && info.Size() > 0 {
			return
		}
	}
	t.Error("nothing was written within five seconds")
}
