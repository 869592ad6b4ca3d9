package pipelines

import (
	"strings"
	"testing"
)

// TestOnlyARun leaves out what was done for groups that the run doesn't have.
func TestOnlyARun(t *testing.T) {
	const text = `pipeline: runs
groups:
  a: {artifact: x, instances: 1}
  b: {artifact: x, instances: 1}
stages:
  - {name: build, build: {x: {image: y}}}
  - {name: place-a, schedule: {groups: [a]}}
  - {name: run-a, run: {case: x, groups: [a]}, onFailure: continue}
  - {name: place-b, schedule: {groups: [b]}}
  - {name: wan, network: {}}
  - {name: warm-b, run: {case: warm, groups: [b]}}
  - {name: run-b, WHEN run: {case: x, groups: [b]}, onFailure: continue}
  - {name: gather, collect: {}}
`
	const everything = "build() place-a(build) run-a(place-a) place-b(run-a) wan(place-b) warm-b(wan) run-b(warm-b)"
	for _, c := range []struct{ only, when, want string }{
		{"run-a", "", "build() place-a(build) run-a(place-a)"},
		{"run-b", "", "build() place-b(build) wan(place-b) warm-b(wan) run-b(warm-b)"},
		{"place-b", "", "build() place-a(build) run-a(place-a) place-b(run-a)"},
		{"gather", "", everything + " gather(run-b)"},
		{"run-b", `when: stages.warm-b.outcome == "passed",`, "build() place-b(build) wan(place-b) warm-b(wan) run-b(warm-b)"},
		{"run-b", `when: stages.run-a.outcome == "passed",`, everything},
		{"run-b", `when: outcomes.a.succeeded > 0,`, everything},
	} {
		d, err := Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": strings.Replace(text, "WHEN", c.when, 1)}, Only: c.only})
		if err != nil {
			t.Fatalf("only %s %s: %v", c.only, c.when, err)
		}
		r, err := d.Resolve(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range r.Stages {
			got = append(got, s.Name+"("+strings.Join(s.Needs, " ")+")")
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("only %s %s:\n got %s\nwant %s", c.only, c.when, strings.Join(got, " "), c.want)
		}
	}
}

// TestOnlyARunInANetwork keeps the placing that a network stage follows.
func TestOnlyARunInANetwork(t *testing.T) {
	const text = `pipeline: runs
groups:
  a: {artifact: x, instances: 1}
  b: {artifact: x, instances: 1}
stages:
  - {name: build, build: {x: {image: y}}}
  - {name: place-a, schedule: {groups: [a]}}
  - {name: wan, network: {}}
  - {name: place-b, schedule: {groups: [b]}}
  - {name: run-b, run: {case: x, groups: [b]}}
`
	d, err := Open(Bundle{File: "p.yaml", Files: map[string]string{"p.yaml": text}, Only: "run-b"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := d.Resolve(nil); err != nil || len(r.Stages) != 5 {
		t.Errorf("kept %d stages (%v), want all: the network is of a placement", len(r.Stages), err)
	}
}
