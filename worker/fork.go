package worker

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Fork is what a new run takes over from an earlier one, and what it carries out itself.
type Fork struct {
	// From is the earlier run.
	From string `json:"from"`
	// Taken are the results that are taken over, in the order of the earlier run.
	Taken []stage.Result `json:"taken"`
	// Runs are the stages that are carried out, in the order of the pipeline.
	Runs []ForkStage `json:"runs"`
}

// ForkStage is a stage that a fork carries out, and why; one sentence.
type ForkStage struct {
	Stage string `json:"stage"`
	Why   string `json:"why"`
}

// PlanFork says what a run of the pipeline now can take over from an earlier one, which was of the pipeline was. begin is
// the stage to begin with: what it needs is taken over, and where that can't be the error says why. Empty: everything that
// can be is taken over. Placements end with their run, so that a fork which runs instances places them anew; results that
// were measured under another placement, network or build than the fork's are not taken over. there says whether an
// artifact is still to be had: one that isn't is built again.
func PlanFork(earlier runs.Record, was, now pipelines.Resolved, begin string, there func(stage.Artifact) bool) (Fork, error) {
	if err := forkable(earlier); err != nil {
		return Fork{}, err
	}
	p := forking{
		earlier: earlier, was: map[string]pipelines.Stage{}, now: map[string]pipelines.Stage{}, results: map[string]stage.Result{},
		before: was, after: now, begin: begin, why: map[string]string{}, apart: map[string]bool{},
	}
	for _, s := range was.Stages {
		p.was[s.Name] = s
	}
	for _, s := range now.Stages {
		p.now[s.Name] = s
	}
	for _, r := range earlier.Stages {
		p.results[r.Stage] = r
	}
	if _, known := p.now[begin]; begin != "" && !known {
		return Fork{}, fmt.Errorf("the pipeline has no stage %q to begin with; it has %s", begin, names(now.Stages))
	}
	if err := p.decide(there); err != nil {
		return Fork{}, err
	}
	return p.fork(), nil
}

// forkable says why nothing can be taken over from a run.
func forkable(earlier runs.Record) error {
	switch {
	case len(earlier.Cells) > 0:
		var cells []string
		for _, c := range earlier.Cells[:min(len(earlier.Cells), 5)] {
			cells = append(cells, c.Run)
		}
		if len(earlier.Cells) > 5 {
			cells = append(cells, "…")
		}
		return fmt.Errorf("run %s is a matrix: begin with what one of its cells came to (%s)", earlier.ID, strings.Join(cells, ", "))
	case earlier.Status == stage.StatusHolding:
		return fmt.Errorf("run %s holds, and its instances still write: go on with it by `groundplan resume %s`, or end it first by `groundplan cancel %s`", earlier.ID, earlier.ID, earlier.ID)
	case earlier.Status != stage.StatusEnded:
		return fmt.Errorf("run %s: %w: only what a run that has ended came to can be taken over (`groundplan watch %s` waits for it)", earlier.ID, ErrRunning, earlier.ID)
	}
	return nil
}

// forking is a fork being decided about.
type forking struct {
	earlier       runs.Record
	before, after pipelines.Resolved
	was, now      map[string]pipelines.Stage
	results       map[string]stage.Result
	begin         string
	// why is stage → why it is carried out, for those that are; apart are those of them that take nothing with them.
	why   map[string]string
	apart map[string]bool
}

// decide finds the stages that are carried out.
func (p *forking) decide(there func(stage.Artifact) bool) error {
	if p.begin != "" {
		p.why[p.begin] = "the fork begins here"
	}
	for changed := true; changed; {
		changed = p.spread()
		for _, s := range p.after.Stages {
			hindrance := ""
			if p.why[s.Name] == "" {
				hindrance = p.hindrance(s)
			}
			if hindrance == "" {
				continue
			}
			// What was carried out on another placement or network finds that out by itself; and a `when` that said no has
			// changed nothing.
			p.apart[s.Name] = placing(s) || s.When != "" && p.results[s.Name].Verdict == stage.Skipped
			if p.needed(s.Name) && !p.apart[s.Name] {
				return fmt.Errorf("stage %q comes before %q, but can't be taken over from run %s: %s; begin with it instead (--stage %s), or further back", s.Name, p.begin, p.earlier.ID, hindrance, s.Name)
			}
			p.why[s.Name] = hindrance
			changed = true
		}
	}
	if len(p.why) == 0 {
		return fmt.Errorf("every stage of run %s passed, and nothing differs: name the stage to begin with (--stage)", p.earlier.ID)
	}
	p.place()
	for _, s := range p.after.Stages {
		for _, name := range slices.Sorted(maps.Keys(p.results[s.Name].Artifacts)) {
			if p.why[s.Name] == "" && !there(p.results[s.Name].Artifacts[name]) {
				p.why[s.Name] = fmt.Sprintf("the artifact %s is not kept any more, and is built again", name)
			}
		}
	}
	return nil
}

// spread adds what needs a stage that is carried out.
func (p *forking) spread() (added bool) {
	for again := true; again; {
		again = false
		for _, s := range p.after.Stages {
			i := slices.IndexFunc(s.Needs, func(need string) bool { return p.why[need] != "" && !p.apart[need] })
			if p.why[s.Name] == "" && i >= 0 {
				p.why[s.Name] = fmt.Sprintf("it needs %s", s.Needs[i])
				added, again = true, true
			}
		}
	}
	return added
}

// place adds the stages that make the placement and its network, where a run stage needs them.
func (p *forking) place() {
	redo := map[string]bool{}
	for name := range p.why {
		redo[name] = true
	}
	replace(p.after.Stages, redo)
	for name := range redo {
		p.why[name] = cmp.Or(p.why[name], "a placement ends with its run")
	}
}

func placing(s pipelines.Stage) bool {
	return s.Kind == pipelines.KindSchedule || s.Kind == pipelines.KindNetwork
}

// needed says whether the stage to begin with needs another, over however many.
func (p *forking) needed(name string) bool {
	return p.begin != "" && slices.ContainsFunc(p.needs(p.now[p.begin]), func(s pipelines.Stage) bool { return s.Name == name })
}

// needs are all stages that one needs, over however many.
func (p *forking) needs(s pipelines.Stage) []pipelines.Stage {
	found := slices.Clone(s.Needs)
	var all []pipelines.Stage
	for at := 0; at < len(found); at++ { // grows as it goes
		need := p.now[found[at]]
		all = append(all, need)
		for _, next := range need.Needs {
			if !slices.Contains(found, next) {
				found = append(found, next)
			}
		}
	}
	return all
}

// hindrance is why a stage's result can't be taken over; empty when it can.
func (p *forking) hindrance(s pipelines.Stage) string {
	result, had := p.results[s.Name]
	was, known := p.was[s.Name]
	switch {
	case !known || !had:
		return fmt.Sprintf("run %s has no such stage", p.earlier.ID)
	case result.Verdict != stage.Passed && result.Reason != "":
		return fmt.Sprintf("it %s there: %s", ended(result.Verdict), result.Reason)
	case result.Verdict != stage.Passed:
		return "it " + ended(result.Verdict) + " there"
	}
	if why := difference(s.Name, substance(was), substance(s)); why != "" {
		return why + p.changed()
	}
	if why := p.seen(s); why != "" {
		return why + p.changed()
	}
	if s.Kind != pipelines.KindRun && s.Kind != pipelines.KindCollect {
		return ""
	}
	// What it found was found with other programs, on another placement or network.
	for _, need := range p.needs(s) {
		if need.Kind == pipelines.KindRun || need.Kind == pipelines.KindCollect {
			continue
		}
		if why := difference(need.Name, substance(p.was[need.Name]), substance(need)); why != "" {
			return why + p.changed()
		}
	}
	return ""
}

// seen is what of the pipeline beside its own value a stage sees, where that differs: groups, parameters, the seed.
func (p *forking) seen(s pipelines.Stage) string {
	var groups, expressions []string
	switch {
	case s.Schedule != nil:
		groups = s.Schedule.Groups
	case s.Run != nil:
		groups = s.Run.Groups
	case s.Collect != nil:
		for _, a := range s.Collect.Assert {
			expressions = append(expressions, a.Expr)
		}
	}
	for _, name := range groups {
		was, _ := p.before.Group(name)
		now, _ := p.after.Group(name)
		if why := difference("group "+name, was, now); why != "" {
			return why
		}
	}
	if s.Run != nil && p.before.Seed != p.after.Seed {
		return fmt.Sprintf("the seed is %d instead of %d", p.after.Seed, p.before.Seed)
	}
	for _, expression := range append(expressions, s.When) {
		for _, name := range changedNames(p.before.Parameters, p.after.Parameters) {
			if strings.Contains(expression, "parameters."+name) || strings.Contains(expression, "parameters[") {
				return fmt.Sprintf("`%s` sees the parameter %s", expression, name)
			}
		}
	}
	return ""
}

// changed names the parameters that differ, as the end of a sentence.
func (p *forking) changed() string {
	var parts []string
	for _, name := range changedNames(p.before.Parameters, p.after.Parameters) {
		parts = append(parts, fmt.Sprintf("%s=%v instead of %v", name, p.after.Parameters[name], cmp.Or(p.before.Parameters[name], any("nothing"))))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// changedNames are the parameters of a run that have other values in the next one.
func changedNames(was, now map[string]any) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if fmt.Sprint(was[name]) != fmt.Sprint(now[name]) {
			names = append(names, name)
		}
	}
	return names
}

// ended is how a stage ended, as the verb of a sentence.
func ended(v stage.Verdict) string {
	switch v {
	case stage.Invalid:
		return "was invalid"
	case stage.Skipped, stage.Cancelled:
		return "was " + string(v)
	}
	return string(v)
}

// substance is what a stage does, without what only matters to how it is tried and where it stands.
func substance(s pipelines.Stage) pipelines.Stage {
	s.Needs, s.Timeout, s.Retry, s.OnFailure, s.HoldFor, s.Position = nil, 0, pipelines.Retry{}, "", 0, ""
	if s.Collect != nil {
		collect := *s.Collect
		collect.Assert = slices.Clone(collect.Assert)
		for i := range collect.Assert {
			collect.Assert[i].Position = ""
		}
		s.Collect = &collect
	}
	return s
}

// difference names the first thing in which two values differ: `wan: network.default.latency is "20ms" instead of "10ms"`.
func difference(what string, was, now any) string {
	path, a, b, same := firstDifference("", plainly(was), plainly(now))
	if same {
		return ""
	}
	return fmt.Sprintf("%s: %s is %s instead of %s", what, cmp.Or(path, "it"), briefly(b), briefly(a))
}

// plainly is a value as JSON has it.
func plainly(v any) any {
	data, err := json.Marshal(v)
	var plain any
	if err := errors.Join(err, json.Unmarshal(data, &plain)); err != nil {
		return err.Error()
	}
	return plain
}

func firstDifference(path string, was, now any) (at string, a, b any, same bool) {
	one, isMap := was.(map[string]any)
	other, both := now.(map[string]any)
	if !isMap || !both {
		return path, was, now, reflect.DeepEqual(was, now)
	}
	keys := maps.Clone(one)
	maps.Copy(keys, other)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if at, a, b, same := firstDifference(strings.TrimPrefix(path+"."+key, "."), one[key], other[key]); !same {
			return at, a, b, false
		}
	}
	return path, was, now, true
}

// briefly is a value in a sentence.
func briefly(v any) string {
	const most = 80
	if v == nil {
		return "nothing"
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(data) > most {
		return strings.ToValidUTF8(string(data[:most]), "") + "…"
	}
	return string(data)
}

// fork sums up.
func (p *forking) fork() Fork {
	f := Fork{From: p.earlier.ID}
	for _, r := range p.earlier.Stages {
		if _, known := p.now[r.Stage]; known && p.why[r.Stage] == "" {
			r.From = p.earlier.ID
			f.Taken = append(f.Taken, r)
		}
	}
	for _, s := range p.after.Stages {
		if why := p.why[s.Name]; why != "" {
			f.Runs = append(f.Runs, ForkStage{Stage: s.Name, Why: why})
		}
	}
	return f
}

// Kept says whether an artifact is still to be had: its file on this machine, or the image by which a cluster's nodes
// know it.
func Kept(a stage.Artifact) bool {
	for _, path := range []string{a.Path, a.Archive} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return a.Image != "" && path == a.Archive
		}
	}
	return true
}
