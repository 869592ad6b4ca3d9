package worker

import (
	"slices"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

func TestStillHolds(t *testing.T) {
	for name, c := range map[string]struct {
		stages   string // as pipeline takes them; `a-run<b-run,c-run` says needs
		verdicts string // stage=verdict
		from     string
		again    string // stages that are run, in the order of the file
		fault    string
	}{
		"a failed run stage": {
			stages:   "a-build b-schedule c-network d-run e-run f-collect",
			verdicts: "a-build=passed b-schedule=passed c-network=passed d-run=passed e-run=failed f-collect=skipped",
			again:    "b-schedule c-network e-run f-collect",
		},
		"a failed collect stage needs no placement": {
			stages:   "a-build b-schedule d-run f-collect",
			verdicts: "a-build=passed b-schedule=passed d-run=passed f-collect=failed",
			again:    "f-collect",
		},
		"a failed build": {
			stages:   "a-build b-schedule d-run",
			verdicts: "a-build=failed b-schedule=skipped d-run=skipped",
			again:    "a-build b-schedule d-run",
		},
		"a build beside the failed stage stays": {
			stages:   "a-build b-build< c-schedule<a-build d-run",
			verdicts: "a-build=passed b-build=passed c-schedule=invalid d-run=skipped",
			again:    "c-schedule d-run",
		},
		"named: a stage that passed, and what needs it": {
			stages:   "a-build b-schedule d-run e-run f-collect",
			verdicts: "a-build=passed b-schedule=passed d-run=passed e-run=passed f-collect=passed",
			from:     "e-run",
			again:    "b-schedule e-run f-collect",
		},
		"named: an earlier failure that was set aside stays": {
			stages:   "a-build b-schedule d-run e-run",
			verdicts: "a-build=passed b-schedule=passed d-run=failed e-run=passed",
			from:     "e-run",
			again:    "b-schedule e-run",
		},
		"named: what never ran before it is run": {
			stages:   "a-build b-schedule d-run e-run f-collect",
			verdicts: "a-build=passed b-schedule=passed d-run=invalid e-run=skipped f-collect=skipped",
			from:     "f-collect",
			again:    "b-schedule d-run e-run f-collect",
		},
		"needs said in any order": {
			stages:   "z-collect<y-run y-run<a-schedule a-schedule<",
			verdicts: "a-schedule=passed y-run=failed",
			again:    "z-collect y-run a-schedule",
		},
		"nothing known": {
			stages: "a-build b-schedule d-run", again: "a-build b-schedule d-run",
		},
		"a cancelled stage": {
			stages: "a-schedule d-run", verdicts: "a-schedule=passed d-run=cancelled", again: "a-schedule d-run",
		},
		"all passed": {
			stages: "a-build", verdicts: "a-build=passed", fault: "every stage passed",
		},
		"named: unknown": {
			stages: "a-build b-run", from: "c", fault: `no stage "c" to begin with; it has a-build, b-run`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := graph(c.stages)
			var results []stage.Result
			for pair := range strings.FieldsSeq(c.verdicts) {
				name, verdict, _ := strings.Cut(pair, "=")
				results = append(results, stage.Result{Stage: name, Verdict: stage.Verdict(verdict), Attempt: 1})
			}
			held, again, err := stillHolds(p, results, c.from)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(held)+len(again) != len(results) {
				t.Errorf("%d held and %d again don't make %d", len(held), len(again), len(results))
			}
			var ran []string
			for _, s := range p.Stages {
				if !slices.ContainsFunc(held, func(r stage.Result) bool { return r.Stage == s.Name }) {
					ran = append(ran, s.Name)
				}
			}
			if got := strings.Join(ran, " "); got != c.again {
				t.Errorf("run again are %q, want %q", got, c.again)
			}
		})
	}
}

// graph is pipeline with needs: `name<a,b`, or `name<` for none.
func graph(text string) pipelines.Resolved {
	var names []string
	for word := range strings.FieldsSeq(text) {
		name, _, _ := strings.Cut(word, "<")
		names = append(names, name)
	}
	p := pipeline(strings.Join(names, " "))
	for i, word := range strings.Fields(text) {
		if _, needs, ok := strings.Cut(word, "<"); ok {
			p.Stages[i].Needs = strings.FieldsFunc(needs, func(r rune) bool { return r == ',' })
		}
	}
	return p
}
