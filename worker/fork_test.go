package worker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

const forkedFile = `pipeline: dht
seed: 7
parameters:
  peers: 3
  rtt: 10ms
  wait: 5s
  depth: 4
  limit: 2
groups:
  all: {artifact: peer, instances: =parameters.peers}
stages:
  - {name: build, build: {peer: {go: {module: .}}}}
  - {name: place, schedule: {}}
  - {name: wan, network: {default: {latency: =parameters.rtt}}}
  - {name: warm-up, run: {case: bootstrap, params: {wait: =parameters.wait}}}
  - {name: early, collect: {assert: ['outcomes.all.succeeded > parameters.limit']}}
  - {name: lookups, needs: [warm-up], run: {case: lookup, params: {depth: '=string(parameters.depth)'}}}
  - {name: gather, collect: {outputs: true}}
`

// resolveText resolves a pipeline's text with overrides, `name=value name=value`.
func resolveText(t *testing.T, text, set string) pipelines.Resolved {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := pipelines.Options{Root: filepath.Dir(path), Set: map[string]string{}}
	for pair := range strings.FieldsSeq(set) {
		name, value, _ := strings.Cut(pair, "=")
		o.Set[name] = value
	}
	doc, err := pipelines.Load(path, o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := doc.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// endedRun is the record of a run of a pipeline whose stages ended as told (`stage=verdict`), the others passed.
func endedRun(p pipelines.Resolved, verdicts string) runs.Record {
	r := runs.Record{ID: "r0", Status: stage.StatusEnded, Ground: GroundLocal, Started: time.Unix(1, 0), Ended: time.Unix(2, 0)}
	ended := map[string]string{}
	for pair := range strings.FieldsSeq(verdicts) {
		name, verdict, _ := strings.Cut(pair, "=")
		ended[name] = verdict
	}
	for _, s := range p.Stages {
		result := stage.Result{Stage: s.Name, Kind: s.Kind, Verdict: stage.Passed, Attempt: 1}
		if v := ended[s.Name]; v != "" {
			result.Verdict, result.Reason = stage.Verdict(v), "of old"
		}
		if s.Build != nil {
			result.Artifacts = map[string]stage.Artifact{"peer": {Name: "peer", Digest: "d1", Path: "/gone"}}
		}
		r.Stages = append(r.Stages, result)
	}
	return r
}

func TestPlanFork(t *testing.T) {
	changed := func(old, fresh string) string { return strings.Replace(forkedFile, old, fresh, 1) }
	for name, c := range map[string]struct {
		now      string // the pipeline's text; empty: as it was
		set      string
		verdicts string
		begin    string
		gone     bool // the artifacts are
		taken    string
		runs     string
		fault    string
	}{
		"a parameter of the stage to begin with": {
			set: "depth=9", begin: "lookups", taken: "build warm-up early", runs: "place wan lookups gather",
		},
		"found by what differs": {
			set: "depth=9", taken: "build warm-up early", runs: "place wan lookups gather",
		},
		"the last stage: no placement is needed": {
			begin: "gather", taken: "build place wan warm-up early lookups", runs: "gather",
		},
		"the first stage: nothing is taken": {
			begin: "build", runs: "build place wan warm-up early lookups gather",
		},
		"a build that is gone is built again": {
			begin: "lookups", gone: true, taken: "warm-up early", runs: "build place wan lookups gather",
		},
		"a parameter of a stage before it": {
			set: "wait=6s depth=9", begin: "lookups",
			fault: `stage "warm-up" comes before "lookups", but can't be taken over from run r0: warm-up: run.params.wait is "6s" instead of "5s" (depth=9 instead of 4, wait=6s instead of 5s); begin with it instead (--stage warm-up)`,
		},
		"the network under a stage before it": {
			set: "rtt=20ms", begin: "lookups", fault: `can't be taken over from run r0: wan: network.default.latency is "20ms" instead of "10ms" (rtt=20ms instead of 10ms)`,
		},
		"the network, begun with": {
			set: "rtt=20ms", begin: "wan", taken: "build", runs: "place wan warm-up early lookups gather",
		},
		"the network, found by what differs": {
			set: "rtt=20ms", taken: "build", runs: "place wan warm-up early lookups gather",
		},
		"the network under no stage that is taken over": {
			set: "rtt=20ms", begin: "warm-up", taken: "build", runs: "place wan warm-up early lookups gather",
		},
		"the number of instances": {
			set: "peers=5", begin: "lookups", fault: `group all: instances is 5 instead of 3`,
		},
		"what an assertion sees, of a stage beside the one to begin with": {
			set: "limit=1", begin: "lookups", taken: "build warm-up", runs: "place wan early lookups gather",
		},
		"a stage that failed before it": {
			verdicts: "warm-up=failed", begin: "lookups", fault: `"warm-up" comes before "lookups", but can't be taken over from run r0: it failed there: of old`,
		},
		"a stage that failed, nothing named": {
			verdicts: "lookups=failed gather=skipped", taken: "build warm-up early", runs: "place wan lookups gather",
		},
		"another program": {
			now: changed("module: .", "module: ./peer"), begin: "lookups", fault: `build: build.peer.go.module is "peer" instead of "."`,
		},
		"another seed": {
			now: changed("seed: 7", "seed: 8"), begin: "lookups", fault: "the seed is 8 instead of 7",
		},
		"another seed matters to no build": {
			now: changed("seed: 7", "seed: 8"), begin: "warm-up", taken: "build", runs: "place wan warm-up early lookups gather",
		},
		"lines that moved, a timeout, a retry": {
			now:   changed("  - {name: warm-up,", "\n\n  - {name: warm-up, timeout: 3m, retry: {attempts: 2},"),
			begin: "lookups", taken: "build warm-up early", runs: "place wan lookups gather",
		},
		"a new stage before it": {
			now:   changed("  - {name: lookups, needs: [warm-up],", "  - {name: more, needs: [warm-up], run: {case: x}}\n  - {name: lookups,"),
			begin: "lookups", fault: `"more" comes before "lookups", but can't be taken over from run r0: run r0 has no such stage`,
		},
		"a stage whose when said no is asked again": {
			now:      changed("{name: early,", "{name: early, when: parameters.limit > 5,"),
			verdicts: "early=skipped", begin: "gather", taken: "build place wan warm-up lookups", runs: "early gather",
		},
		"nothing to do":  {fault: "every stage of run r0 passed, and nothing differs"},
		"no such stage":  {begin: "lookup", fault: `no stage "lookup" to begin with; it has build, place, wan`},
		"all is skipped": {verdicts: "build=invalid place=skipped wan=skipped warm-up=skipped early=skipped lookups=skipped gather=skipped", runs: "build place wan warm-up early lookups gather"},
	} {
		t.Run(name, func(t *testing.T) {
			was := resolveText(t, forkedFile, "")
			text := c.now
			if text == "" {
				text = forkedFile
			}
			fork, err := PlanFork(endedRun(was, c.verdicts), was, resolveText(t, text, c.set), c.begin, func(stage.Artifact) bool { return !c.gone })
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var taken, carried []string
			for _, r := range fork.Taken {
				taken = append(taken, r.Stage)
				if r.From != "r0" {
					t.Errorf("%s is from %q", r.Stage, r.From)
				}
			}
			for _, s := range fork.Runs {
				carried = append(carried, s.Stage)
				if s.Why == "" {
					t.Errorf("nothing says why %s is carried out", s.Stage)
				}
			}
			if got := strings.Join(taken, " "); got != c.taken {
				t.Errorf("taken over are %q, want %q", got, c.taken)
			}
			if got := strings.Join(carried, " "); got != c.runs {
				t.Errorf("carried out are %q, want %q", got, c.runs)
			}
		})
	}
}

func TestNotForkable(t *testing.T) {
	p := resolveText(t, forkedFile, "")
	for want, change := range map[string]func(*runs.Record){
		"is under way": func(r *runs.Record) { r.Status = stage.StatusRunning },
		"holds":        func(r *runs.Record) { r.Status = stage.StatusHolding },
		"is a matrix: begin with what one of its cells came to (r0.1, r0.2)": func(r *runs.Record) {
			r.Cells = []stage.Cell{{Run: "r0.1"}, {Run: "r0.2"}}
		},
	} {
		r := endedRun(p, "")
		change(&r)
		if _, err := PlanFork(r, p, p, "gather", Kept); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		artifact stage.Artifact
		want     bool
	}{
		{stage.Artifact{Path: path}, true},
		{stage.Artifact{Path: path + "x"}, false},
		{stage.Artifact{Path: filepath.Dir(path)}, false},
		{stage.Artifact{Image: "registry/peer@sha256:1"}, true},
		{stage.Artifact{Archive: path + "x"}, false},
		{stage.Artifact{Archive: path + "x", Image: "registry/peer@sha256:1"}, true},
	} {
		if got := Kept(c.artifact); got != c.want {
			t.Errorf("%+v: %v", c.artifact, got)
		}
	}
}

func testFork(t *testing.T, s *Session, home runs.Home) {
	first := start(t, s, "forked", "ok-build ok-schedule ok-run ok-run-two ok-collect")
	wait(t, first)
	record, err := home.Run("forked").ReadRecord()
	if err != nil {
		t.Fatal(err)
	}
	p := pipeline("ok-build ok-schedule ok-run ok-run-two ok-collect")
	fork, err := PlanFork(record, p, p, "ok-run-two", Kept)
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Start(t.Context(), StartOptions{
		Run: stage.Run{ID: "fork", Ground: GroundLocal, From: "forked"}, Pipeline: p, Earlier: fork.Taken,
	})
	if err != nil {
		t.Fatal(err)
	}
	if output := wait(t, h); output.Verdict != stage.Passed || len(output.Results) != 5 {
		t.Errorf("got %+v", output)
	}
	want := "taken: ok-build ok-run; ok-schedule 1 1; ok-run-two 1 1; ok-collect 1 1"
	if got := strings.Join(starts(t, home, "fork"), "; "); got != want {
		t.Errorf("started were %q, want %q", got, want)
	}
}
