package capacity

import (
	"strings"
	"testing"

	"github.com/groundplan/groundplan/pipelines"
)

// file is a pipeline with everything that a sample leaves out.
const file = `pipeline: long-name-that-is-about-as-long-as-a-name-may-be-in-this-world
groups:
  a: {artifact: x, instances: 100, outcome: exit}
  b: {artifact: x, instances: 2, outcome: exit}
stages:
  - {name: build, build: {x: {executable: {path: x.sh}}}}
  - {name: place, schedule: {}, retry: {attempts: 5}}
  - {name: lan, network: {default: {latency: 1ms}}}
  - name: warm-up
    run:
      case: warm-up
      events: [{at: 10s, kill: {group: a, share: 5%}}]
    timeout: 1h
    onFailure: hold
  - {name: look, collect: {outputs: true}}
  - {name: wan, network: {default: {latency: 9ms}}}
  - {name: work, run: {case: work}, timeout: 5s, when: "stages['warm-up'].outcome == 'passed'"}
  - {name: gather, collect: {assert: [outcomes.a.succeeded == 100]}}
`

func resolve(t *testing.T, text string) pipelines.Resolved {
	t.Helper()
	doc, err := pipelines.Open(pipelines.Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": text}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := doc.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSample(t *testing.T) {
	whole := resolve(t, file)
	for _, c := range []struct {
		stage, stages string
		bound, want   pipelines.Duration
	}{
		{"", "build() place(build) lan(place) warm-up(lan)", 60e9, 60e9},
		{"work", "build() place(build) lan(place) wan(lan) work(wan)", 60e9, 5e9},
	} {
		p, err := Sample(whole, c.stage, 3, c.bound)
		if err != nil {
			t.Fatal(err)
		}
		var stages []string
		for _, s := range p.Stages {
			stages = append(stages, s.Name+"("+strings.Join(s.Needs, ",")+")")
			if s.When != "" || s.Retry.Attempts > 0 || s.OnFailure != pipelines.OnFailureAbort {
				t.Errorf("stage %s still has conditions: %+v", s.Name, s)
			}
		}
		if got := strings.Join(stages, " "); got != c.stages {
			t.Errorf("%q: %s, want %s", c.stage, got, c.stages)
		}
		run := p.Stages[len(p.Stages)-1]
		if run.Timeout != c.want || len(run.Run.Events) > 0 {
			t.Errorf("%q: %+v", c.stage, run)
		}
		if p.Groups[0].Instances != 3 || p.Groups[1].Instances != 2 || len(p.Name) > 63 || p.Digest == whole.Digest || p.Digest == "" {
			t.Errorf("%q: %+v", c.stage, p)
		}
	}
	if whole.Groups[0].Instances != 100 || len(whole.Stages[3].Run.Events) != 1 || whole.Stages[3].Timeout == 60e9 {
		t.Error("the whole pipeline was changed")
	}
}

func TestNoSample(t *testing.T) {
	whole := resolve(t, file)
	if _, err := Sample(whole, "wan", 3, 1); err == nil || !strings.Contains(err.Error(), `"wan" is no run stage`) || !strings.Contains(err.Error(), "warm-up, work") {
		t.Errorf("got %v", err)
	}
	whole.Stages = whole.Stages[:3]
	if _, err := Sample(whole, "", 3, 1); err == nil || !strings.Contains(err.Error(), "no run stage") {
		t.Errorf("got %v", err)
	}
}
