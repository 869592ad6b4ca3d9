package retention

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// ago is a run that began and ended so many days ago.
func ago(id string, days float64, change func(*Run)) Run {
	at := now.Add(-time.Duration(days * 24 * float64(time.Hour)))
	r := Run{ID: id, Pipeline: "dht", Kind: "dht", Started: at, Ended: at.Add(time.Minute), Changed: at.Add(time.Minute), Bytes: 100}
	if change != nil {
		change(&r)
	}
	return r
}

func going(list []Decision) string {
	var names []string
	for _, d := range list {
		if d.Goes {
			names = append(names, d.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestDecide(t *testing.T) {
	day := 24 * time.Hour
	plain := []Run{ago("a", 1, nil), ago("b", 10, nil), ago("c", 40, nil), ago("d", 50, nil)}
	compared := func(n int) []Run {
		var list []Run
		for i := range n {
			list = append(list, ago(fmt.Sprintf("r%d", i), float64(40+i), func(r *Run) { r.Compared, r.Compares = true, 3 }))
		}
		return list
	}
	turns := func(n int) (list []Turn) {
		for i := range n {
			at := now.Add(-time.Duration(i+40) * day)
			list = append(list, Turn{Suite: "nightly", ID: fmt.Sprintf("t%02d", i), Started: at, Ended: at, Runs: []string{fmt.Sprintf("n%02d", i)}})
		}
		return list
	}
	var ofTurns []Run
	for i := range 12 {
		ofTurns = append(ofTurns, ago(fmt.Sprintf("n%02d", i), float64(40+i), nil))
	}
	for name, c := range map[string]struct {
		runs      []Run
		turns     []Turn
		artifacts []Artifact
		policy    Policy
		goes      string
		turnsGo   string
		builtGo   string
		why       map[string]string // run → part of why it stays
	}{
		"no policy takes nothing": {runs: plain},
		"by age":                  {runs: plain, policy: Policy{Age: 30 * day}, goes: "c d"},
		"by count":                {runs: plain, policy: Policy{Runs: 1}, goes: "b c d"},
		"by count, of each pipeline": {
			runs: append(slices.Clone(plain), ago("x", 60, func(r *Run) { r.Pipeline = "other" })), policy: Policy{Runs: 2}, goes: "c d",
		},
		"by size, the oldest first": {runs: plain, policy: Policy{Size: 250}, goes: "c d"},
		"by size, with what only they were made with": {
			runs:      []Run{ago("a", 1, func(r *Run) { r.Artifacts = []string{"x"} }), ago("b", 10, func(r *Run) { r.Artifacts = []string{"x", "y"} }), ago("c", 20, nil)},
			artifacts: []Artifact{{Digest: "x", Used: now.Add(-9 * day), Bytes: 50}, {Digest: "y", Used: now.Add(-9 * day), Bytes: 500}, {Digest: "z", Used: now.Add(-9 * day), Bytes: 7}},
			policy:    Policy{Size: 160}, goes: "b c", builtGo: "y z",
		},
		"under way, and holding": {
			runs:   []Run{ago("a", 40, func(r *Run) { r.Underway = true }), ago("b", 50, nil)},
			policy: Policy{Age: day}, goes: "b", why: map[string]string{"a": "under way"},
		},
		"what a fork under way takes over": {
			runs:   []Run{ago("f", 0.5, func(r *Run) { r.Underway, r.From = true, "a" }), ago("a", 40, nil), ago("b", 50, nil)},
			policy: Policy{Age: day}, goes: "b", why: map[string]string{"a": "run f takes over"},
		},
		"what a fork that has ended took over may go": {
			runs:   []Run{ago("f", 0.5, func(r *Run) { r.From = "a" }), ago("a", 40, nil)},
			policy: Policy{Age: day}, goes: "a",
		},
		"changed a moment ago": {
			runs:   []Run{ago("a", 40, func(r *Run) { r.Changed = now.Add(-Grace / 2) })},
			policy: Policy{Age: day}, why: map[string]string{"a": "changed within"},
		},
		"compared with": {
			runs: compared(8), policy: Policy{Age: day}, goes: "r4 r5 r6 r7",
			why: map[string]string{"r0": "the next run like it", "r3": "run r0 compares with it"},
		},
		"a run alone of its kind has no history": {runs: compared(1), policy: Policy{Age: day}, goes: "r0"},
		"compared with one by name": {
			runs:   append(compared(2), ago("base", 400, func(r *Run) { r.Kind = "base" }), ago("new", 2, func(r *Run) { r.Kind, r.With = "new", "base" })),
			policy: Policy{Age: 365 * day}, why: map[string]string{"base": "run new compares with it"},
		},
		"a matrix and its cells": {
			runs: []Run{
				ago("m", 40, nil), ago("m.1", 40, func(r *Run) { r.Parent = "m" }), ago("m.2", 40, func(r *Run) { r.Parent, r.Changed = "m", now }),
				ago("n", 50, nil), ago("n.1", 50, func(r *Run) { r.Parent = "n" }),
			},
			policy: Policy{Age: day}, goes: "n n.1", why: map[string]string{"m": "its cell m.2 stays", "m.1": "its cell m.2 stays"},
		},
		"a matrix counts once": {
			runs: []Run{ago("m", 1, nil), ago("m.1", 1, func(r *Run) { r.Parent = "m" }), ago("m.2", 1, func(r *Run) { r.Parent = "m" }), ago("b", 10, nil), ago("c", 20, nil)}, policy: Policy{Runs: 2}, goes: "c",
		},
		"a cell whose matrix is gone is a run like others": {
			runs: []Run{ago("m.1", 40, func(r *Run) { r.Parent = "m" })}, policy: Policy{Age: day}, goes: "m.1",
		},
		"the newest turns of a suite": {
			runs: ofTurns, turns: turns(12), policy: Policy{Age: day}, goes: "n10 n11", turnsGo: "nightly/t10 nightly/t11",
			why: map[string]string{"n09": "one of its newest turns"},
		},
		"artifacts of a run under way that its record doesn't name yet": {
			runs:      []Run{ago("a", 2, func(r *Run) { r.Underway = true })},
			artifacts: []Artifact{{Digest: "x", Used: now.Add(-day)}, {Digest: "y", Used: now.Add(-3 * day)}, {Digest: "z", Used: now}},
			builtGo:   "y",
		},
	} {
		t.Run(name, func(t *testing.T) {
			plan := Decide(Facts{Now: now, Runs: c.runs, Turns: c.turns, Artifacts: c.artifacts}, c.policy)
			for what, pair := range map[string][2]string{
				"runs": {going(plan.Runs), c.goes}, "turns": {going(plan.Turns), c.turnsGo}, "artifacts": {going(plan.Artifacts), c.builtGo},
			} {
				if pair[0] != pair[1] {
					t.Errorf("%s that go: %q, want %q", what, pair[0], pair[1])
				}
			}
			for _, d := range slices.Concat(plan.Runs, plan.Turns, plan.Artifacts) {
				if d.Why == "" {
					t.Errorf("nothing says why about %s", d.Name)
				}
				if want := c.why[d.Name]; want != "" && !strings.Contains(d.Why, want) {
					t.Errorf("%s: %q, want %q", d.Name, d.Why, want)
				}
			}
		})
	}
}

// FuzzDecide makes up homes and policies: what the rules protect never goes, and what goes is what a bound takes.
func FuzzDecide(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		facts, policy := makeUp(random)
		plan := Decide(facts, policy)
		if len(plan.Runs) != len(facts.Runs) || len(plan.Turns) != len(facts.Turns) || len(plan.Artifacts) != len(facts.Artifacts) {
			t.Fatalf("decided about %d runs of %d, %d turns of %d, %d artifacts of %d", len(plan.Runs), len(facts.Runs), len(plan.Turns), len(facts.Turns), len(plan.Artifacts), len(facts.Artifacts))
		}
		goes := map[string]bool{}
		for _, d := range slices.Concat(plan.Runs, plan.Turns, plan.Artifacts) {
			goes[d.Name] = d.Goes
		}
		checkRuns(t, facts, policy, goes)
		checkCompared(t, facts, goes)
		checkRest(t, facts, goes)
	})
}

// makeUp makes facts and a policy up.
func makeUp(random *rand.Rand) (Facts, Policy) {
	facts := Facts{Now: now}
	at := func() time.Time { return now.Add(-time.Duration(random.IntN(100*24)) * time.Hour) }
	chance := func(of int) bool { return random.IntN(of) == 0 }
	pick := func() string { return fmt.Sprintf("r%d", random.IntN(40)) }
	for i := range random.IntN(40) {
		r := Run{ID: fmt.Sprintf("r%d", i), Started: at(), Bytes: random.Int64N(1000), Underway: chance(8), Compared: chance(2)}
		r.Pipeline = fmt.Sprintf("p%d", random.IntN(3))
		r.Kind = fmt.Sprintf("%s-%d", r.Pipeline, random.IntN(2))
		r.Ended = r.Started.Add(time.Minute)
		r.Changed = r.Ended
		if chance(10) {
			r.Changed = now
		}
		if chance(4) {
			r.From = pick()
		}
		if chance(3) {
			r.Parent = pick()
		}
		if chance(2) {
			r.Compares = random.IntN(5)
		}
		if chance(10) {
			r.With = pick()
		}
		for range random.IntN(3) {
			r.Artifacts = append(r.Artifacts, fmt.Sprintf("d%d", random.IntN(10)))
		}
		facts.Runs = append(facts.Runs, r)
	}
	for i := range random.IntN(30) {
		turn := Turn{Suite: fmt.Sprintf("s%d", random.IntN(2)), ID: fmt.Sprint(i), Started: at(), Underway: chance(20), Runs: []string{pick()}}
		turn.Ended = turn.Started
		facts.Turns = append(facts.Turns, turn)
	}
	for i := range 10 {
		facts.Artifacts = append(facts.Artifacts, Artifact{Digest: fmt.Sprintf("d%d", i), Used: at(), Bytes: random.Int64N(1000)})
	}
	var policy Policy
	if chance(2) {
		policy.Age = time.Duration(random.IntN(90*24)) * time.Hour
	}
	if chance(2) {
		policy.Runs = random.IntN(5)
	}
	if chance(2) {
		policy.Size = random.Int64N(20_000)
	}
	return facts, policy
}

func checkRuns(t *testing.T, facts Facts, policy Policy, goes map[string]bool) {
	heads := map[string]Run{}
	for _, r := range facts.Runs {
		if r.Parent == "" {
			heads[r.ID] = r
		}
	}
	for _, r := range facts.Runs {
		if head, cell := heads[r.Parent]; cell && goes[r.ID] != goes[head.ID] {
			t.Errorf("%s and its matrix %s don't stay or go together", r.ID, head.ID)
		}
		if r.Underway && r.From != "" && goes[r.From] {
			t.Errorf("%s goes, and %s takes over from it", r.From, r.ID)
		}
		if !goes[r.ID] {
			continue
		}
		if r.Underway || now.Sub(r.Changed) < Grace {
			t.Errorf("%+v goes", r)
		}
		if policy == (Policy{}) {
			t.Errorf("%s goes without a policy", r.ID)
		}
	}
}

func checkCompared(t *testing.T, facts Facts, goes map[string]bool) {
	kinds := map[string][]Run{}
	for _, r := range facts.Runs {
		kinds[r.Kind] = append(kinds[r.Kind], r)
	}
	for _, of := range kinds {
		slices.SortStableFunc(of, func(a, b Run) int { return b.Started.Compare(a.Started) })
		newest, with := of[0], 0
		if newest.With != "" && goes[newest.With] {
			t.Errorf("%s goes, and %s compares with it", newest.With, newest.ID)
		}
		for _, r := range of[1:] {
			if !r.Compared || with == newest.Compares {
				continue
			}
			if with++; goes[r.ID] || goes[newest.ID] {
				t.Errorf("%s goes, or %s, which compares with it", r.ID, newest.ID)
			}
		}
	}
}

func checkRest(t *testing.T, facts Facts, goes map[string]bool) {
	bySuite := map[string][]Turn{}
	for _, turn := range facts.Turns {
		bySuite[turn.Suite] = append(bySuite[turn.Suite], turn)
	}
	for _, of := range bySuite {
		slices.SortFunc(of, func(a, b Turn) int {
			return cmp.Or(b.Started.Compare(a.Started), strings.Compare(b.ID, a.ID))
		})
		for i, turn := range of {
			if i >= Turns && !turn.Underway {
				continue
			}
			if goes[turn.name()] || goes[turn.Runs[0]] {
				t.Errorf("turn %s goes, or its run %s", turn.name(), turn.Runs[0])
			}
		}
	}
	for _, r := range facts.Runs {
		for _, digest := range r.Artifacts {
			if !goes[r.ID] && goes[digest] {
				t.Errorf("artifact %s goes, and %s was made with it", digest, r.ID)
			}
		}
	}
}
