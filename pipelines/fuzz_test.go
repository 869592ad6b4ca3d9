package pipelines

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// loadText loads a single file that names no other.
func loadText(text string) (*Document, error) {
	return Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": text, "parts/wan.stages.yaml": wanStages, "regions.csv": ",eu\neu,1ms\n"}})
}

const wanStages = "parameters: {rtt: 80ms}\nstages:\n  - network: {default: {latency: =parameters.rtt}}\n"

// exercise loads a text and everything that can be done with what comes out; it returns the time and the memory that
// were needed at most.
func exercise(t testing.TB, text string) (time.Duration, uint64) {
	runtime.GC()
	var before, peak runtime.MemStats
	runtime.ReadMemStats(&before)
	stop, done := make(chan struct{}), make(chan uint64)
	go func() {
		highest := uint64(0)
		for {
			runtime.ReadMemStats(&peak)
			highest = max(highest, peak.HeapInuse+peak.StackInuse)
			select {
			case <-stop:
				done <- highest
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	start := time.Now()
	check(t, text)
	took := time.Since(start)
	close(stop)
	highest := <-done
	return took, highest - min(highest, before.HeapInuse+before.StackInuse)
}

func check(t testing.TB, text string) {
	d, err := loadText(text)
	if _, parseErr := ParseSuite("p.yaml", []byte(text)); parseErr != nil {
		var faults Faults
		if !errors.As(parseErr, &faults) {
			t.Fatalf("an error that is no Faults: %v", parseErr)
		}
	}
	if err != nil {
		var faults Faults
		if !errors.As(err, &faults) || len(faults) == 0 || err.Error() == "" {
			t.Fatalf("an error that is no Faults: %v", err)
		}
		return
	}
	r, err := d.Resolve(d.Cells()[0])
	if err != nil {
		t.Fatalf("what loads does not resolve: %v", err)
	}
	encoded, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Resolved
	if err := json.Unmarshal(encoded, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, back) {
		t.Fatalf("the round trip through JSON changes the value: %.2000s", encoded)
	}
}

// bombs are files that are small and ask for much. Each must be refused, or done with, within a second and 256 MiB.
func bombs() map[string]string {
	head := "pipeline: p\ngroups:\n  a: {artifact: x, instances: 1}\n"
	stages := "stages:\n  - build: {x: {image: y}}\n  - schedule: {}\n"
	many := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
			if b.Len() > 1<<20-200_000 {
				break
			}
		}
		return b.String()
	}
	laughs := "pipeline: p\nx0: &x0 [a, a, a, a, a, a, a, a, a]\n"
	for i := 1; i < 12; i++ {
		laughs += fmt.Sprintf("x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 9), ", "))
	}
	merges := "pipeline: p\nm0: &m0 {a: {artifact: x}}\n"
	for i := 1; i < 30; i++ {
		merges += fmt.Sprintf("m%d: &m%d {<<: [*m%d, *m%d]}\n", i, i, i-1, i-1)
	}
	params := many(9000, func(i int) string { return fmt.Sprintf("p%d: %d, ", i, i) })
	return map[string]string{
		"billion laughs":     laughs + "groups: *x11\nstages: *x11\n",
		"merge keys":         merges + "groups: *m29\nstages: []\n",
		"self reference":     "pipeline: p\ngroups: &g {a: *g}\nstages: &s [*s]\n",
		"deep flow":          strings.Repeat("[", 1<<20),
		"deep flow in keys":  "pipeline: p\ngroups: " + strings.Repeat("{a: ", 250_000),
		"deep indent":        "pipeline: p\n" + many(5000, func(i int) string { return strings.Repeat(" ", i) + "a:\n" }),
		"deep lists":         "pipeline: p\nstages:\n" + strings.Repeat("- ", 500_000),
		"many commas":        "pipeline: [" + strings.Repeat(",", 1_000_000) + "]",
		"many items":         "pipeline: [" + strings.Repeat("a,", 500_000) + "]",
		"many lines":         strings.Repeat("a:\n", 349_000),
		"many duplicates":    head + many(70_000, func(int) string { return "a: 1\n" }),
		"many unknown":       head + many(70_000, func(i int) string { return fmt.Sprintf("k%d: 1\n", i) }),
		"many comments":      head + strings.Repeat("#\n", 300_000) + stages,
		"many anchors":       head + many(49_000, func(i int) string { return fmt.Sprintf("k%d: &a%d 1\n", i, i) }),
		"many aliases":       head + "x: &x 1\ny: [" + strings.Repeat("*x,", 100_000) + "]\n",
		"long line":          head + "description: " + strings.Repeat("x", 1_000_000) + "\nfoo: 1\n",
		"long key":           head + strings.Repeat("x", 1_000_000) + ": 1\n",
		"long quoted":        head + `description: "` + strings.Repeat(`\n`, 400_000) + `"` + "\n",
		"long folded":        head + "description: >\n" + strings.Repeat("  x\n\n", 140_000),
		"unclosed quote":     head + `description: "` + strings.Repeat("x\n ", 250_000),
		"big numbers":        "pipeline: p\nseed: " + strings.Repeat("9", 1_000_000) + "\n",
		"big instances":      "pipeline: p\ngroups: {a: {artifact: x, instances: " + strings.Repeat("9", 500_000) + "}}\n",
		"big unit":           head + stages + "    timeout: " + strings.Repeat("9", 500_000) + "h\n",
		"exponent":           "pipeline: p\nparameters: {a: 1e999999999}\ngroups: {a: {artifact: x, instances: =parameters.a}}\n",
		"long expression":    "pipeline: p\ngroups: {a: {artifact: x, instances: =1" + strings.Repeat("+1", 400_000) + "}}\n",
		"deep expression":    "pipeline: p\ngroups: {a: {artifact: x, instances: '=" + strings.Repeat("(", 2000) + "1" + strings.Repeat(")", 2000) + "'}}\n",
		"unary expression":   "pipeline: p\ngroups: {a: {artifact: x, instances: '=" + strings.Repeat("-", 4000) + "1'}}\n",
		"nested expressions": "pipeline: p\ngroups: {a: {artifact: x, instances: '=" + strings.Repeat("[1,2,3,4,5,6,7,8].map(x, ", 20) + "1" + strings.Repeat(")", 20) + ".size()'}}\n",
		"costly expressions": "pipeline: p\ngroups:\n" + many(900, func(i int) string {
			return fmt.Sprintf("  g%d: {artifact: x, instances: \"=[%d,2,3,4,5,6,7,8].map(x, [1,2,3,4,5,6,7,8].map(y, [1,2,3,4,5,6,7,8].map(z, x+y+z))).size()\"}\n", i, i)
		}) + stages,
		"same costly": "pipeline: p\ngroups:\n" + many(900, func(i int) string {
			return fmt.Sprintf("  g%d: {artifact: x, instances: \"=[1,2,3,4,5,6,7,8].map(x, [1,2,3,4,5,6,7,8].map(y, [1,2,3,4,5,6,7,8].map(z, x+y+z))).size()\"}\n", i)
		}) + stages,
		"many expressions":  "pipeline: p\ngroups:\n" + many(1000, func(i int) string { return fmt.Sprintf("  g%d: {artifact: x, instances: =%d}\n", i, i%90+1) }) + stages,
		"bad expressions":   head + stages + "  - collect:\n      assert:\n" + many(30_000, func(i int) string { return fmt.Sprintf("        - (((%d]\n", i) }),
		"small expressions": head + "stages:\n  - build: {x: {image: y}}\n  - collect:\n      assert:\n" + many(30_000, func(i int) string { return fmt.Sprintf("        - %d<1\n", i) }),
		"names":             head + stages + "  - collect:\n      assert:\n" + many(3_000, func(i int) string { return fmt.Sprintf("        - outcomes.a%d.failed<1\n", i) }),
		"many stages":       head + "stages:\n  - build: {x: {image: y}}\n  - schedule: {}\n" + many(998, func(int) string { return "  - run: {case: x}\n" }),
		"many parallel":     head + "stages:\n  - build: {x: {image: y}}\n  - {name: s, schedule: {}}\n" + many(998, func(int) string { return "  - {needs: s, run: {case: x}}\n" }),
		"too many stages":   head + "stages:\n" + many(40_000, func(int) string { return "  - schedule: {}\n" }),
		"many groups":       "pipeline: p\ngroups:\n" + many(30_000, func(i int) string { return fmt.Sprintf("  g%d: {artifact: x, instances: 1}\n", i) }) + stages,
		"groups and stages": "pipeline: p\ngroups:\n" + many(1000, func(i int) string { return fmt.Sprintf("  g%d: {artifact: x, instances: 1, region: r}\n", i) }) + stages + many(998, func(i int) string { return "  - schedule: {}\n  - run: {case: x}\n" }),
		"region links":      "pipeline: p\ngroups:\n" + many(1000, func(i int) string { return fmt.Sprintf("  g%d: {artifact: x, instances: 1, region: r}\n", i) }) + stages + "  - network:\n      links:\n" + many(5000, func(int) string { return "        - {between: [r, r], latency: 1ms}\n" }),
		"unknown groups":    "pipeline: p\ngroups:\n" + many(1000, func(i int) string { return fmt.Sprintf("  group-number-%d: {artifact: x, instances: 1}\n", i) }) + stages + "  - run: {case: x, groups: [" + many(20_000, func(i int) string { return fmt.Sprintf("group-nummer-%d, ", i) }) + "]}\n",
		"extends":           "pipeline: p\ngroups:\n  g0: {artifact: x, instances: 1, parameters: {" + params + "}}\n" + many(999, func(i int) string { return fmt.Sprintf("  g%d: {extends: g%d}\n", i+1, i) }) + stages,
		"aliased groups":    "pipeline: p\nparameters: {q: &p {type: int, default: 1}}\ngroups:\n  g0: &g {artifact: x, instances: 1, parameters: {" + params + "}}\n" + many(999, func(i int) string { return fmt.Sprintf("  g%d: *g\n", i+1) }) + stages,
		"aliased stages":    head + "stages:\n  - build: {x: {image: y}}\n  - schedule: {}\n  - &r {run: {case: x, params: {" + params + "}}}\n" + many(990, func(int) string { return "  - *r\n" }),
		"full matrix":       "pipeline: p\nmatrix: {axes: {a: [1,2,3,4,5,6,7,8,9,10], b: [1,2,3,4,5,6,7,8,9,10], c: [1,2,3,4,5,6,7,8,9,10], d: [1,2,3,4,5,6,7,8,9,10]}, exclude: [matrix.a == matrix.b, matrix.c > 8]}\ngroups: {a: {artifact: x, instances: =matrix.a * matrix.b}}\nstages:\n" + many(500, func(int) string { return "  - build: {}\n" }),
		"wide matrix":       "pipeline: p\nmatrix: {axes: {" + many(100, func(i int) string { return fmt.Sprintf("a%d: [1,2,3,4,5,6,7,8,9,10], ", i) }) + "}}\ngroups: {a: {artifact: x, instances: 1}}\nstages: []\n",
		"matrix includes":   "pipeline: p\nmatrix:\n  axes: {a: [1,2,3,4,5,6,7,8,9,10], b: [1,2,3,4,5,6,7,8,9,10], c: [1,2,3,4,5,6,7,8,9,10], d: [1,2,3,4,5,6,7,8,9,10]}\n  include:\n" + many(20_000, func(i int) string { return fmt.Sprintf("    - {a: %d, b: 1, c: 1, d: 1}\n", i) }) + "groups: {a: {artifact: x, instances: 1}}\nstages: []\n",
		"long axis":         "pipeline: p\nmatrix: {axes: {a: [" + many(70_000, func(i int) string { return fmt.Sprintf("%d,", i) }) + "]}}\ngroups: {a: {artifact: x, instances: 1}}\nstages: []\n",
		"includes":          head + "stages:\n  - build: {x: {image: y}}\n  - schedule: {}\n" + many(2000, func(int) string { return "  - include: parts/wan.stages.yaml\n" }),
		"many events":       head + stages + "  - run:\n      case: x\n      events:\n" + many(15_000, func(i int) string { return fmt.Sprintf("        - {name: e%d, at: e%d, kill: {group: a}}\n", i, i+1) }),
		"many regions":      head + stages + many(900, func(int) string { return "  - network: {regions: regions.csv}\n" }),
		"not text":          strings.Repeat("\xff\xfe", 500_000),
		"nul":               strings.Repeat("\x00", 1<<20),
		"too long":          strings.Repeat("a", 1<<20+1),
		"tags":              head + many(50_000, func(int) string { return "? !!map\n: !!str x\n" }),
		"block scalars":     head + many(50_000, func(i int) string { return fmt.Sprintf("k%d: |\n  x\n", i) }),
		"braces":            strings.Repeat("{}", 500_000),
		"pairs":             "pipeline: {" + strings.Repeat("a: b,", 29_000) + "}",
		"complex keys":      strings.Repeat("? ", 500_000),
		"colons":            strings.Repeat(":", 1<<20),
		"spaces":            "pipeline: p\n" + strings.Repeat(" ", 1_000_000) + "x: 1",
		"quotes":            strings.Repeat(`"`, 1<<20),
		"documents":         strings.Repeat("---\n", 250_000),
		"directives":        strings.Repeat("%YAML 1.2\n", 100_000),
	}
}

func TestBombs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes under -race")
	}
	for name, text := range bombs() {
		t.Run(name, func(t *testing.T) {
			took, memory := exercise(t, text)
			t.Logf("%s: %d bytes: %v, %d MiB", name, len(text), took.Round(time.Millisecond), memory>>20)
			if memory > 256<<20 {
				t.Errorf("needs %d MiB", memory>>20)
			}
		})
	}
}

// FuzzLoad looks for panics, hangs and waste.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml", "testdata/good/parts/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		check(t, text)
		if took := time.Since(start); took > 5*time.Second { // 1 s on a machine that does nothing else
			t.Fatalf("took %v", took)
		}
	})
}

func FuzzUnits(f *testing.F) {
	for _, seed := range []string{"80ms", "1h30m", "64Mi", "10MB", "1.5Gi", "20Mbit", "5%", "0.1%", "33.3333333%", "0", "", "9223372036854775807B", "1e3", "٣ms"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, k := range quantityKinds {
			v, err := k.parseText(text)
			if err != nil {
				if err.Error() == "" || v != nil {
					t.Fatalf("%s: value %v with error %q", k, v, err)
				}
				continue
			}
			canonical := v.(fmt.Stringer).String()
			again, err := k.parseText(canonical)
			if err != nil || again != v {
				t.Fatalf("%s: %q is %v, written %q, read again %v (%v)", k, text, v, canonical, again, err)
			}
			if twice := again.(fmt.Stringer).String(); twice != canonical {
				t.Fatalf("%s: %q is written %q and %q", k, text, canonical, twice)
			}
		}
	})
}

func FuzzExpression(f *testing.F) {
	for _, seed := range []string{
		"parameters.rtt / 2", "metrics.a-b.p95 < 2.0", `metrics["x.y"].sum == 0`, "outcomes.eu-west.failed-1 > 0",
		`stages.warm-up.outcome in ["passed"]`, "has(metrics.x) || true", "[1, 2].all(x, x > 0)", `"a" + 'b' + r"\n"`, "size(\"abc\")",
		"parameters.peers / 0", "duration('1h') * 9223372036854775807", "-9223372036854775808 / -1", "share('50%') * 3", "// only a comment",
		"metrics.x.during.split.p99 - metrics.eu.y.mean", "1 ? 2 : 3", "'\\", "\"\"\"", "has(parameters.x", "_i0 + 1",
	} {
		f.Add(seed)
	}
	d, err := loadText("pipeline: p\nenv: [CI]\nparameters: {peers: 3, rtt: 80ms, x: 1.0, name: a}\ngroups: {eu: {artifact: y, instances: 1}, eu-west: {artifact: y, instances: 1}}\nstages:\n  - build: {y: {image: z}}\n  - schedule: {}\n  - {name: warm-up, run: {case: x, events: [{name: split, at: 1s, kill: {group: eu}}]}}\n")
	if err != nil {
		f.Fatal(err)
	}
	r, err := d.Resolve(nil)
	if err != nil {
		f.Fatal(err)
	}
	v := Variables{Stages: map[string]string{"warm-up": "passed"}, Metrics: map[string]Summary{"a-b": {P95: 1}, "x.y": {}, "x": {Sum: 2}},
		Outcomes: map[string]Outcomes{"eu": {Failed: 2}}}
	f.Fuzz(func(t *testing.T, text string) {
		for _, want := range []kind{kindBool, kindInt, kindFloat, kindText, kindDuration} {
			c, faults := compile(text, want, d.isGroup, scopeNames{d.root, contextVerdict})
			if (c == nil) == (faults == nil) {
				t.Fatalf("neither compiled nor refused: %q", text)
			}
			for _, f := range faults {
				if f.message == "" || f.offset < 0 || f.offset > len(text) {
					t.Fatalf("%q: fault %+v", text, f)
				}
			}
		}
		_, _, _ = Evaluate(text, Inputs{Parameters: r.Parameters, Groups: r.Groups}, v)
	})
}
