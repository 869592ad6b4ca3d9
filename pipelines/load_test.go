package pipelines

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder writes files (path → text) into a temporary folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		full := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const simple = `pipeline: simple
parameters:
  peers: 3
  rtt: 80ms
  mode: {type: string, default: a, enum: [a, b]}
groups: {a: {artifact: x, instances: =parameters.peers}}
stages:
  - {name: build, build: {x: {image: y}}}
  - {name: place, schedule: {}}
  - {name: one, run: {case: x}}
  - {name: two, needs: place, when: stages.place.outcome == "passed", run: {case: =parameters.mode, groups: [a]}, timeout: =parameters.rtt}
`

func mustContain(t *testing.T, err error, wants ...string) {
	t.Helper()
	if faults := (Faults)(nil); !errors.As(err, &faults) {
		t.Fatalf("want Faults, got %v", err)
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in:\n%v", want, err)
		}
	}
}

func TestSet(t *testing.T) {
	text := strings.Replace(simple, "needs: place,", "", 1)
	text = strings.Replace(text, "stages.place", "stages.one", 1)
	open := func(set map[string]string) (*Document, error) {
		return Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": text}, Set: set})
	}
	d, err := open(map[string]string{"peers": "10", "rtt": "1s", "mode": "b"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Instances() != 10 || r.Stages[3].Timeout != Duration(1e9) || r.Stages[3].Run.Case != "b" || r.Parameters["peers"] != int64(10) {
		t.Errorf("got %+v", r)
	}
	_, err = open(map[string]string{"peers": "many", "rtt": "5", "mode": "c", "pers": "1"})
	mustContain(t, err, "--set: peers: `many` is not an integer", "--set: rtt: the bare number `5`", "--set: mode: `c` is not one of a, b",
		"--set: unknown parameter `pers` (did you mean `peers`?)")
	_, err = open(map[string]string{"peers": "-1"})
	mustContain(t, err, "-1 is too small")
}

func TestOnly(t *testing.T) {
	text := strings.Replace(simple, "{name: one, run", "{name: one, needs: place, run", 1)
	text = strings.Replace(text, "needs: place, when", "needs: one, when", 1)
	for only, want := range map[string]string{"": "build place one two", "place": "build place", "one": "build place one", "two": "build place one two"} {
		d, err := Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": text}, Only: only})
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.Resolve(nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range r.Stages {
			names = append(names, s.Name)
		}
		if strings.Join(names, " ") != want {
			t.Errorf("only %q: got %v", only, names)
		}
	}
	_, err := Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": text}, Only: "tow"})
	mustContain(t, err, "--only: unknown stage `tow` (did you mean `two`?)")
}

func TestSeedAndDigest(t *testing.T) {
	text := strings.Replace(simple, "needs: place,", "needs: one,", 1)
	resolve := func(text string, seed *uint64, set map[string]string) Resolved {
		t.Helper()
		d, err := Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": text}, Seed: seed, Set: set})
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.Resolve(nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	plain := resolve(text, nil, nil)
	if again := resolve(text, nil, nil); again.Seed != plain.Seed || again.Digest != plain.Digest {
		t.Error("the same inputs give another seed or digest")
	}
	if other := resolve(text, nil, map[string]string{"peers": "4"}); other.Seed == plain.Seed || other.Digest == plain.Digest {
		t.Error("other parameters give the same seed or digest")
	}
	if got := resolve(text+"seed: 7\n", nil, nil).Seed; got != 7 {
		t.Errorf("the file's seed: got %d", got)
	}
	if got := resolve(text+"seed: 7\n", ptr(uint64(9)), nil).Seed; got != 9 {
		t.Errorf("the flag's seed: got %d", got)
	}
}

func TestLoadFiles(t *testing.T) {
	text := strings.Replace(simple, "needs: place,", "needs: one,", 1)
	root := folder(t, map[string]string{
		"repo/.git/HEAD":            "",
		"repo/plans/a/p.yaml":       text + "  - include: ../../shared/wan.yaml\n    with: {rtt: 5ms}\n",
		"repo/shared/wan.yaml":      "parameters: {rtt: 80ms}\nstages:\n  - network: {default: {latency: =parameters.rtt}, regions: r/r.csv}\n",
		"repo/shared/r/r.csv":       ",eu\neu,1ms\n",
		"repo/plans/a/escape.yaml":  text + "  - include: ../../../outside.yaml\n",
		"outside.yaml":              "stages: []\n",
		"repo/plans/a/linked.yaml":  text + "  - include: link.yaml\n",
		"repo/plans/a/sources.yaml": strings.Replace(text, "{image: y}", "{executable: out/x}", 1),
		"repo/plans/a/folder.yaml":  text + "  - include: .\n",
	})
	plan := filepath.Join(root, "repo/plans/a")
	for link, target := range map[string]string{"link.yaml": "../../../outside.yaml", "out": "../../.."} {
		if err := os.Symlink(target, filepath.Join(plan, link)); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	d, err := Load(filepath.Join(plan, "p.yaml"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := d.Bundle()
	if b.File != "plans/a/p.yaml" || fmt.Sprint(sortedKeys(b.Files)) != "[plans/a/p.yaml shared/r/r.csv shared/wan.yaml]" {
		t.Errorf("the bundle has %s and %v", b.File, sortedKeys(b.Files))
	}
	r, err := d.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	last := r.Stages[len(r.Stages)-1]
	if *last.Network.Default.Latency != Duration(5e6) || last.Network.Regions != "shared/r/r.csv" || last.Position != "shared/wan.yaml:3" {
		t.Errorf("got %+v", last)
	}
	for file, want := range map[string]string{
		"escape.yaml":  "`../../../outside.yaml` lies outside the repository root",
		"linked.yaml":  "`link.yaml` leads outside the repository root through a symbolic link",
		"sources.yaml": "`out/x` leads outside the repository root through a symbolic link",
		"folder.yaml":  "it is not a regular file",
		"missing.yaml": "can't be read: no such file or directory",
	} {
		_, err := Load(filepath.Join(plan, file), Options{})
		mustContain(t, err, want)
	}
	_, err = Load(filepath.Join(root, "outside.yaml"), Options{Root: filepath.Join(root, "repo")})
	mustContain(t, err, "lies outside the repository root")
	if err := os.Symlink(filepath.Join(root, "repo"), filepath.Join(root, "alias")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(filepath.Join(plan, "p.yaml"), Options{Root: filepath.Join(root, "alias")}); err != nil {
		t.Errorf("a root that is named through a link: %v", err)
	}
}

func TestOpenLacksAFile(t *testing.T) {
	_, err := Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": "pipeline: p\ngroups: {a: {artifact: x, instances: 1}}\nstages:\n  - include: other.yaml\n"}})
	mustContain(t, err, "p.yaml:4:14: `other.yaml` can't be read: it is not part of the bundle")
	_, err = Open(Bundle{File: "p.yaml"})
	mustContain(t, err, "p.yaml: can't be read")
}

func TestCells(t *testing.T) {
	text := `pipeline: p
parameters: {rtt: 80ms, peers: 2}
matrix: {axes: {rtt: [20ms, 80ms], size: [1, 2]}, include: [{rtt: 20ms, peers: 5}], maxParallel: 2}
groups: {a: {artifact: x, instances: =parameters.peers * matrix.size}}
stages: [{build: {x: {image: y}}}]
`
	open := func(set map[string]string) *Document {
		t.Helper()
		d, err := Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": text}, Set: set})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open(nil)
	if got, want := fmt.Sprint(d.Cells()), "[map[peers:5 rtt:20ms size:1] map[peers:5 rtt:20ms size:2] map[rtt:80ms size:1] map[rtt:80ms size:2]]"; got != want {
		t.Errorf("got %s", got)
	}
	if d.MaxParallel() != 2 || d.Name() != "p" {
		t.Errorf("got %d, %s", d.MaxParallel(), d.Name())
	}
	r, err := d.Resolve(d.Cells()[1])
	if err != nil || r.Instances() != 10 {
		t.Errorf("got %d (%v)", r.Instances(), err)
	}
	if got := fmt.Sprint(open(map[string]string{"rtt": "1s"}).Cells()); got != "[map[rtt:1s size:1] map[rtt:1s size:2]]" {
		t.Errorf("--set on an axis: got %s", got)
	}
	for _, wrong := range []map[string]any{nil, {"rtt": "20ms"}, {"rtt": "x", "size": 1}, {"rtt": "20ms", "size": 1.5}, {"rtt": "20ms", "size": 1, "zzz": 1}} {
		if _, err := d.Resolve(wrong); err == nil {
			t.Errorf("the cell %v is taken", wrong)
		}
	}
	plain, err := loadText("pipeline: p\ngroups: {a: {artifact: x, instances: 1}}\nstages: [{build: {x: {image: y}}}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if cells := plain.Cells(); len(cells) != 1 || cells[0] != nil || plain.MaxParallel() != 1 {
		t.Errorf("without a matrix: %v", cells)
	}
	if _, err := plain.Resolve(map[string]any{"a": 1}); err == nil {
		t.Error("a cell without a matrix is taken")
	}
}

// A limit has a message of its own.
func TestLimits(t *testing.T) {
	texts := bombs()
	head := "pipeline: p\nparameters: {x: &x 1}\ngroups:\n  a: &g {artifact: x, instances: 1, args: [&y z]"
	texts["aliases"] = head + "}\n  b: {extends: a, args: [" + strings.Repeat("*y, ", 10_001) + "]}\nstages: []\n"
	texts["merge loop"] = head + ", <<: *g}\nstages: []\n"
	texts["stages"] = head + "}\nstages:\n" + strings.Repeat("  - collect: {}\n", 1001)
	texts["splices"] = strings.Repeat("  - include: parts/empty.yaml\n", 1001)
	texts["splices"] = head + "}\nstages:\n" + texts["splices"]
	texts["expression"] = head + "}\nstages:\n  - collect: {assert: [" + strings.Repeat("1+", 2100) + "1 > 0]}\n"
	for name, want := range map[string]string{
		"too long":           "more than the limit of 1 MiB",
		"aliases":            "expands more than 10000 aliases",
		"aliased stages":     "holds more than 100000 values once its aliases are expanded",
		"merge loop":         "nesting is deeper than the limit of 64",
		"deep flow":          "nests brackets deeper",
		"stages":             "at most 1000 stages",
		"many groups":        "at most 1000 groups",
		"wide matrix":        "more than 10000 cells",
		"long axis":          "more than the limit of 1000",
		"extends":            "once `extends` is worked out",
		"splices":            "includes at most 1000 times",
		"region links":       "more than 100000 links",
		"costly expressions": "have more than 65536 bytes together",
		"same costly":        "cost more than 2000000 together",
		"expression":         "at most 4096 bytes",
		"many commas":        "more than the limit of 100000",
		"not text":           "is not UTF-8 text",
		"many unknown":       "faults more",
	} {
		_, err := Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": texts[name], "parts/empty.yaml": "stages: []\n"}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %.300v, want %q", name, err, want)
		}
	}
}

func TestSuite(t *testing.T) {
	s, err := LoadSuite("testdata/suites/nightly.yaml", Options{Root: "testdata"})
	if err != nil {
		t.Fatal(err)
	}
	want := "[{good/minimal.yaml map[] abort} {good/language.yaml map[peers:2000] continue}]"
	if got := fmt.Sprint(s.Pipelines); s.Name != "nightly" || s.File != "suites/nightly.yaml" || got != want {
		t.Errorf("got %s", got)
	}
	if s.Schedule != (SuiteSchedule{"0 2 * * *", "Europe/Lisbon", "skip", Duration(3600e9), Duration(120e9)}) {
		t.Errorf("got %+v", s.Schedule)
	}
	secrets := environ(map[string]string{"ALERT_URL": "https://example.org/x", "BAD": "x"})
	if url, err := s.Notify.URL(secrets); err != nil || url != "https://example.org/x" {
		t.Errorf("got %s (%v)", url, err)
	}
	for _, webhook := range []string{"=secrets.NONE", "=secrets.BAD", "=secrets.", "=1"} {
		if url, err := (Notify{Webhook: webhook}).URL(secrets); err == nil {
			t.Errorf("%s gives %s", webhook, url)
		} else if strings.Contains(err.Error(), "example.org") {
			t.Errorf("the message tells a secret: %v", err)
		}
	}
	if key, err := s.Notify.Key(environ(map[string]string{"ALERT_KEY": "whsec_x"})); err != nil || key != "whsec_x" {
		t.Errorf("got %s (%v)", key, err)
	}
	if key, err := (Notify{}).Key(nil); key != "" || err != nil {
		t.Errorf("no secret gives %s (%v)", key, err)
	}
	if _, err := s.Notify.Key(secrets); err == nil || !strings.Contains(err.Error(), "the secret ALERT_KEY is not set") {
		t.Errorf("got %v", err)
	}
	if url, err := (Notify{Webhook: "https://a.b"}).URL(nil); err != nil || url != "https://a.b" {
		t.Errorf("got %s (%v)", url, err)
	}
	minimal, err := ParseSuite("s.yaml", []byte("suite: s\npipelines: [{file: p.yaml}]\nnotify: {webhook: https://a.b}\n"))
	if err != nil || minimal.Notify.On[0] != "failed" || minimal.Schedule.Cron != "" {
		t.Errorf("got %+v (%v)", minimal, err)
	}
}

func TestSuiteOfBadPipelines(t *testing.T) {
	root := folder(t, map[string]string{
		"s.yaml":  "suite: s\npipelines:\n  - {file: a.yaml, set: {nope: 1}}\n  - {file: b.yaml}\n  - {file: none.yaml}\n",
		"a.yaml":  strings.Replace(simple, "needs: place,", "needs: one,", 1),
		"b.yaml":  "pipeline: b\nstagse: []\n",
		"ss.yaml": "pipeline: p\nstages: []\n",
	})
	_, err := LoadSuite(filepath.Join(root, "s.yaml"), Options{Root: root})
	mustContain(t, err, "a.yaml: set: unknown parameter `nope`", "b.yaml:2:1: unknown key `stagse`", "none.yaml: can't be read")
	_, err = LoadSuite(filepath.Join(root, "ss.yaml"), Options{Root: root})
	mustContain(t, err, "this is a pipeline, not a suite")
	_, err = Load(filepath.Join(root, "s.yaml"), Options{Root: root})
	mustContain(t, err, "this is a suite, not a pipeline")
	_, err = LoadSuite(filepath.Join(root, "nothing.yaml"), Options{Root: root})
	mustContain(t, err, "can't be read")
	_, err = ParseSuite("s.yaml", []byte("suite: s\npipelines: []\n"))
	mustContain(t, err, "the suite has no pipeline")
	_, err = ParseSuite("s.yaml", []byte("suite: s\npipelines: [{file: p.yaml}]\nnotify: {webhook: https://a.b, secret: whsec_open}\nschedule: {cron: '* * * * *', jitter: -1s}\n"))
	mustContain(t, err, "s.yaml:3:40: a secret doesn't belong into the file: write `=secrets.NAME`", "s.yaml:4:")
}

func TestEarlierParameters(t *testing.T) {
	text := strings.Replace(strings.Replace(simple, "needs: place,", "", 1), "stages.place", "stages.one", 1)
	root := folder(t, map[string]string{"p.yaml": text})
	load := func(set, earlier map[string]string) (*Document, error) {
		return Load(filepath.Join(root, "p.yaml"), Options{Root: root, Set: set, Earlier: earlier})
	}
	d, err := load(map[string]string{"rtt": "2s"}, map[string]string{"peers": "10", "rtt": "1s", "gone": "x"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Resolve(nil)
	if err != nil || r.Parameters["peers"] != int64(10) || r.Parameters["rtt"] != "2s" || r.Groups[0].Instances != 10 {
		t.Errorf("got %v, %v", r.Parameters, err)
	}
	again, err := Open(d.Bundle())
	if err != nil {
		t.Fatal(err)
	}
	if second, err := again.Resolve(nil); err != nil || second.Digest != r.Digest {
		t.Errorf("the bundle resolves to %s, not %s: %v", second.Digest, r.Digest, err)
	}
	_, err = load(nil, map[string]string{"mode": "c"})
	mustContain(t, err, "mode")
}
