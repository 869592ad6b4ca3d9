package report

import (
	"cmp"
	"fmt"
	"html/template"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// page is what a run's report shows, part by part; a part without anything is left out.
type page struct {
	ID, Pipeline, Description string
	// State is the verdict, or where the run is.
	State string
	// Stage is the one that the reason is about, and Sentence the reason in the record's words, without the verdict and
	// the stage, which stand before it.
	Stage, Sentence string
	// Since says for how long it has been so.
	Since   since
	Facts   []fact
	Faults  []string
	Made    time.Time
	Trouble *trouble

	Cells      []cellRow
	Stages     []stageRow
	Axis       []string
	Events     []eventRow
	MoreEvents int
	Instances  *instances
	Metrics    *measured
	Networks   []network
	Resources  []resource
	Comparison *compared
	Origin     *origin
}

// fact is a thing to know, and Link where more of it is.
type fact struct{ Name, Text, Link string }

// part is an entry of the list of parts.
type part struct{ Anchor, Name string }

func (p *page) title() string {
	return strings.Join([]string{p.State, cmp.Or(p.Pipeline, p.ID), p.ID}, " · ")
}

// Long says that the sentence is too long for large letters.
func (p *page) Long() bool { return len(p.Sentence) > 140 }

// Parts are those that the page has.
func (p *page) Parts() []part {
	var list []part
	for _, of := range []struct {
		there bool
		part
	}{
		{p.Trouble != nil, part{"trouble", "What went wrong"}},
		{len(p.Cells) > 0, part{"cells", "Cells"}},
		{len(p.Stages) > 0, part{"stages", "Stages"}},
		{p.Instances != nil, part{"instances", "Instances"}},
		{p.Comparison != nil, part{"comparison", "Against earlier runs"}},
		{p.Metrics != nil, part{"metrics", "Metrics"}},
		{len(p.Networks) > 0, part{"network", "Network"}},
		{len(p.Resources) > 0, part{"resources", "Resources"}},
		{p.Origin != nil, part{"origin", "How it was made"}},
	} {
		if of.there {
			list = append(list, of.part)
		}
	}
	return list
}

// Data is what the script knows of the instances.
func (p *page) Data() template.JS {
	if p.Instances == nil {
		return ""
	}
	return p.Instances.data()
}

func runPage(m *material, now time.Time) *page {
	r := m.record
	p := &page{ID: m.id, Pipeline: clean(r.Pipeline, 100), Description: clean(r.Description, shownRunes), Made: now, Faults: m.faults}
	p.State, p.Sentence = m.state()
	p.Stage, p.Sentence = about(p.Sentence)
	p.Since = m.since()
	p.Facts = m.facts(now)
	p.Trouble = m.trouble()
	p.Cells = m.cells()
	if len(p.Cells) == 0 { // a matrix has no stages and instances of its own
		p.Stages, p.Axis = m.stages(now)
		p.Instances = m.instances()
	}
	p.Events, p.MoreEvents = m.happened()
	p.Metrics = m.measured()
	p.Networks = m.networks()
	p.Resources = m.resources()
	p.Comparison = m.compared()
	p.Origin = m.origin()
	return p
}

// state is the word for where the run is, and the sentence about it: the record's own, without the word it begins with.
func (m *material) state() (word, sentence string) {
	r := m.record
	sentence = clean(strings.TrimPrefix(r.Reason, string(r.Verdict)+": "), 4*shownRunes)
	switch {
	case !m.recorded:
		return "unfinished", "There is no record of this run: it is just being started, or what started it was killed before it could write one."
	case r.Verdict != "":
		return string(r.Verdict), cmp.Or(sentence, string(r.Verdict))
	case r.Status == stage.StatusHolding:
		return stage.StatusHolding, cmp.Or(sentence, "The run holds: its instances are still there.")
	}
	return stage.StatusRunning, m.doing()
}

// doing says what a run under way is at.
func (m *material) doing() string {
	var at []string
	ended := 0
	for _, a := range m.attempts {
		switch {
		case a.running && a.newest:
			at = append(at, fmt.Sprintf("stage %q", a.Stage))
		case a.newest && a.Verdict != "":
			ended++
		}
	}
	if len(at) == 0 {
		return fmt.Sprintf("Under way when this was written: %d of %s had ended.", ended, plural(len(m.pipeline.Stages), "stage"))
	}
	return fmt.Sprintf("Under way when this was written, in %s; %d of %s had ended.", strings.Join(at, " and "), ended, plural(len(m.pipeline.Stages), "stage"))
}

var aboutStage = regexp.MustCompile(`^stage "([^"]+)"( \(attempt [0-9]+\))? — `)

// about splits a reason into the stage that it is about and the rest.
func about(reason string) (name, rest string) {
	found := aboutStage.FindStringSubmatch(reason)
	if found == nil {
		return "", reason
	}
	return found[1] + found[2], reason[len(found[0]):]
}

// since says for how long runs of the same kind have not passed.
type since struct {
	// InARow counts the runs that did not pass, this one among them; First is the first of them, and Passed the last one
	// that passed.
	InARow        int
	First, Passed *runs.Record
	// Known is false where the run has passed or goes on, or nothing was before it.
	Known bool
}

func (m *material) since() since {
	v := m.record.Verdict
	if v != stage.Failed && v != stage.Invalid || len(m.earlier) == 0 {
		return since{}
	}
	s := since{Known: true, InARow: 1}
	for i, r := range m.earlier {
		if r.Verdict == stage.Passed {
			s.Passed = &m.earlier[i]
			break
		}
		if r.Verdict == stage.Failed || r.Verdict == stage.Invalid {
			s.InARow++
			s.First = &m.earlier[i]
		}
	}
	return s
}

// facts stand below the verdict.
func (m *material) facts(now time.Time) []fact {
	r := m.record
	from, to := m.span(now)
	var list []fact
	add := func(name, text, link string) {
		if text != "" {
			list = append(list, fact{name, clean(text, shownRunes), link})
		}
	}
	if !from.IsZero() {
		add("Started", instant(from), "")
		took := lasted(to.Sub(from))
		if m.underWay() {
			took += " so far"
		}
		add("Took", took, "")
	}
	if n := m.pipeline.Instances(); n > 0 {
		text := plural(n, "instance")
		if len(m.pipeline.Groups) > 1 {
			text += fmt.Sprintf(" in %d groups", len(m.pipeline.Groups))
		}
		add("Size", text+place(r.Ground), "")
	}
	link := ""
	if runs.CheckSuite(r.Suite) == nil {
		link = "../../suites/" + r.Suite + "/report.html"
	}
	add("Suite", strings.TrimSpace(r.Suite+" "+r.Turn), link)
	add("Took over from", r.From, besideLink(r.From))
	return list
}

func place(ground string) string {
	switch ground {
	case "":
		return ""
	case "local":
		return ", on one machine"
	}
	return ", on " + clean(ground, 60)
}

// cellRow is one run of a matrix.
type cellRow struct {
	Run, Link, Values, Reason string
	Verdict                   stage.Verdict
}

func (m *material) cells() []cellRow {
	var list []cellRow
	for _, c := range m.record.Cells {
		row := cellRow{Run: clean(c.Run, 63), Values: values(c.Values), Verdict: c.Verdict}
		row.Reason = clean(strings.TrimPrefix(c.Reason, string(c.Verdict)+": "), shownRunes)
		row.Link = besideLink(c.Run)
		list = append(list, row)
	}
	return list
}

// besideLink is where a run's report finds that of another run; empty for what can't be one.
func besideLink(id string) string {
	if runs.CheckID(id) != nil {
		return ""
	}
	return "../" + id + "/report.html"
}

// values writes parameters in one line.
func values(of map[string]any) string {
	var parts []string
	for _, name := range sorted(of) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, of[name]))
	}
	return clean(strings.Join(parts, " "), shownRunes)
}

func sorted[V any](of map[string]V) []string {
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
