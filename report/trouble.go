package report

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

const (
	// mostClusters bounds how many kinds of failures are told apart, mostRanges how many ranges of instances are named, and
	// mostLinks how many links are.
	mostClusters = 12
	mostRanges   = 12
	mostLinks    = 10
)

// trouble is what a person looks for first in a run that did not pass.
type trouble struct {
	Stages    []stageTrouble
	Clusters  []cluster
	More      int // clusters that are not shown
	Broken    []stage.Assertion
	Regressed []string
	Links     []control.Pair
	MoreLinks int
	Logs      []logTail
	// Unanswered are the instances that never had an outcome, of a run whose gate had opened.
	Unanswered *cluster
}

// stageTrouble is a stage that did not pass.
type stageTrouble struct {
	Name, Reason string
	Verdict      stage.Verdict
}

// cluster is the instances that ended the same way and said the same.
type cluster struct {
	Outcome, Stage, Reason string
	// Ended is the outcome as a verb.
	Ended string
	Count int
	// Names are the instances, as ranges.
	Names string
	// Example is the first of them, and Lines its last ones.
	Example string
	Lines   []string
	How     string // exit status or signal

	lives []*life
}

// logTail is the end of a log that may tell why.
type logTail struct {
	Name  string
	Lines []string
}

func (m *material) trouble() *trouble {
	t := &trouble{}
	for _, a := range m.attempts {
		if a.newest && (a.Verdict == stage.Failed || a.Verdict == stage.Invalid) {
			t.Stages = append(t.Stages, stageTrouble{a.Stage, clean(a.Reason, 2*shownRunes), a.Verdict})
			t.Logs = append(t.Logs, m.logsOf(a)...)
			t.Regressed = append(t.Regressed, shown(a.Regressed)...)
		}
	}
	t.Clusters, t.More = clusters(m.census.all())
	t.Unanswered = m.unanswered()
	for _, a := range m.assertions() {
		if !a.Held {
			t.Broken = append(t.Broken, stage.Assertion{Expr: clean(a.Expr, shownRunes), Position: clean(a.Position, shownRunes), Explanation: clean(a.Explanation, shownRunes)})
		}
	}
	for _, p := range m.proofs {
		for _, pair := range p.Pairs {
			if pair.OK {
				continue
			}
			if len(t.Links) < mostLinks {
				t.Links = append(t.Links, cleanPair(pair))
			} else {
				t.MoreLinks++
			}
		}
	}
	t.Stages = slices.DeleteFunc(t.Stages, func(s stageTrouble) bool {
		return strings.Contains(m.record.Reason, s.Reason) // it stands above, in large letters
	})
	if m.record.Verdict == stage.Passed || t.empty() {
		return nil
	}
	return t
}

func (t *trouble) empty() bool {
	return len(t.Stages)+len(t.Clusters)+len(t.Broken)+len(t.Regressed)+len(t.Links)+len(t.Logs) == 0 && t.Unanswered == nil
}

// cleanPair is what is shown of a pair.
func cleanPair(p control.Pair) control.Pair {
	return control.Pair{From: clean(p.From, 80), To: clean(p.To, 80), Fault: clean(p.Fault, shownRunes)}
}

func (m *material) assertions() []stage.Assertion {
	if len(m.record.Assertions) > 0 {
		return m.record.Assertions
	}
	var list []stage.Assertion
	for _, a := range m.attempts {
		if a.newest {
			list = append(list, a.Assertions...)
		}
	}
	return list
}

// logsOf are the ends of the logs that tell about a stage: the compiler's of a build, the sidecar's of what is invalid.
func (m *material) logsOf(a attempt) []logTail {
	var names []string
	switch {
	case a.Kind == pipelines.KindBuild:
		for _, s := range m.pipeline.Stages {
			if s.Name == a.Stage {
				for _, artifact := range sorted(s.Build) {
					names = append(names, "build-"+path.Base(artifact)+".log")
				}
			}
		}
	case a.Verdict == stage.Invalid:
		names = append([]string{"sidecar.log"}, m.nodeLogs()...)
	}
	var logs []logTail
	for _, name := range names {
		if lines := m.files.tail(name); len(lines) > 0 {
			logs = append(logs, logTail{name, lines})
		}
	}
	return logs
}

// nodeLogs are the logs of the nodes of a cluster that have any, at most four.
func (m *material) nodeLogs() []string {
	entries, _ := fs.ReadDir(m.files.root.FS(), "nodes") // only runs on clusters have them
	var names []string
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && info.Size() > 0 && len(names) < 4 {
			names = append(names, path.Join("nodes", entry.Name()))
		}
	}
	return names
}

// unanswered are the instances without an outcome of a run that has ended and in which a run stage had begun.
func (m *material) unanswered() *cluster {
	begun := slices.ContainsFunc(m.attempts, func(a attempt) bool {
		return a.Kind == pipelines.KindRun && !a.Started.IsZero() && a.Verdict != stage.Skipped
	})
	if m.underWay() || !begun {
		return nil
	}
	var lives []*life
	for _, g := range m.census.groups {
		for i, l := range g.lives {
			if l == nil && m.takesPart(g.name) {
				lives = append(lives, &life{group: g.name, index: i})
			}
		}
	}
	if len(lives) == 0 {
		return nil
	}
	return &cluster{Count: len(lives), Names: ranges(lives)}
}

// takesPart says whether a group is in any run stage that has begun.
func (m *material) takesPart(name string) bool {
	for _, s := range m.pipeline.Stages {
		if s.Run == nil || !slices.ContainsFunc(m.attempts, func(a attempt) bool { return a.Stage == s.Name && !a.Started.IsZero() && a.Verdict != stage.Skipped }) {
			continue
		}
		if len(s.Run.Groups) == 0 || slices.Contains(s.Run.Groups, name) {
			return true
		}
	}
	return false
}

var numbers = regexp.MustCompile(`0x[0-9a-fA-F]+|[0-9]+`)

// clusters puts together the instances that did not succeed and whose reasons differ in nothing but numbers; those of
// the most instances first.
func clusters(lives []*life) (list []cluster, more int) {
	at := map[string]int{}
	for _, l := range lives {
		if l.outcome == control.OutcomeSucceeded || l.outcome == control.OutcomeKilled {
			continue
		}
		key := l.outcome + "\x00" + l.stage + "\x00" + numbers.ReplaceAllString(l.reason, "#")
		i, known := at[key]
		if !known {
			i = len(list)
			at[key] = i
			list = append(list, cluster{Outcome: l.outcome, Ended: ended(l.outcome), Stage: clean(l.stage, 63), Reason: clean(l.reason, shownRunes), Example: l.name(), Lines: l.lines, How: how(l)})
		}
		list[i].lives = append(list[i].lives, l)
	}
	for i := range list {
		list[i].Count, list[i].Names = len(list[i].lives), ranges(list[i].lives)
	}
	slices.SortStableFunc(list, func(a, b cluster) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(badness[b.Outcome], badness[a.Outcome]))
	})
	if len(list) > mostClusters {
		more = len(list) - mostClusters
		list = list[:mostClusters]
	}
	return list, more
}

func ended(outcome string) string {
	if outcome == control.OutcomeSilent {
		return "ended without an outcome"
	}
	return clean(outcome, 30)
}

// how says how a process ended.
func how(l *life) string {
	switch {
	case l.signal != "":
		return "ended by signal " + clean(l.signal, 30)
	case l.exit != 0:
		return "exit status " + strconv.Itoa(l.exit)
	}
	return ""
}

// ranges names instances: `peers/0–3, peers/7`.
func ranges(lives []*life) string {
	var parts []string
	for i := 0; i < len(lives); {
		j := i + 1
		for j < len(lives) && lives[j].group == lives[i].group && lives[j].index == lives[j-1].index+1 {
			j++
		}
		text := clean(lives[i].group, 63) + "/" + strconv.Itoa(lives[i].index)
		if j-i > 1 {
			text += "–" + strconv.Itoa(lives[j-1].index)
		}
		if len(parts) == mostRanges {
			return strings.Join(parts, ", ") + fmt.Sprintf(" and %d more", len(lives)-i)
		}
		parts = append(parts, text)
		i = j
	}
	return strings.Join(parts, ", ")
}
