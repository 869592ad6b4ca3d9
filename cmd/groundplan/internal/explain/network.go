package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/report"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
)

// The networks that every run has; both exist only inside its own namespaces.
const (
	controlSubnet = "100.96.0.0/16"
	dataSubnet    = "10.0.0.0/16"
)

func (e *explainer) network() {
	e.title("Network")
	e.fact("control", controlSubnet+" (eth0, never shaped, reaches only the sync gateway)")
	e.fact("data", dataSubnet+" (eth1, "+fmt.Sprintf("%d in use", e.r.Instances())+")")
	for _, s := range e.r.Stages {
		if s.Network == nil {
			continue
		}
		e.fact(s.Name, "default: "+shape(s.Network.Default)+access(s.Network))
		for _, line := range state(*s.Network) {
			e.fact("", "  "+line)
		}
	}
}

func access(n *pipelines.Network) string {
	if n.Access == pipelines.AccessInternet {
		return ", with access to the internet"
	}
	return ""
}

// state lists what a network state says beyond its default.
func state(n pipelines.Network) []string {
	var out []string
	if n.Regions != "" {
		out = append(out, fmt.Sprintf("latency between %d regions from %s", len(n.Matrix), n.Regions))
	}
	out = append(out, links(n.Links)...)
	for _, b := range n.Inbound {
		out = append(out, "inbound to "+strings.Join(b.Groups, ", ")+": "+b.Policy)
	}
	for _, t := range n.NAT {
		out = append(out, "behind a "+t.Type+" NAT: "+strings.Join(t.Groups, ", "))
	}
	return out
}

// links writes two directions with the same shape as one line.
func links(all []pipelines.Link) []string {
	var out []string
	done := make([]bool, len(all))
	for i, l := range all {
		if done[i] {
			continue
		}
		arrow := " → "
		for j := i + 1; j < len(all); j++ {
			back := all[j]
			if !done[j] && l.From != l.To && back.From == l.To && back.To == l.From && shape(back.Shape) == shape(l.Shape) {
				done[j], arrow = true, " ↔ "
				break
			}
		}
		out = append(out, l.From+arrow+l.To+": "+shape(l.Shape))
	}
	return out
}

// shape says what is set of a shape, in the language's own units.
func shape(s pipelines.Shape) string {
	var parts []string
	add := func(name, value string) { parts = append(parts, name+" "+value) }
	for _, d := range []struct {
		name  string
		value *pipelines.Duration
	}{{"latency", s.Latency}, {"jitter", s.Jitter}} {
		if d.value != nil {
			add(d.name, d.value.String())
		}
	}
	if s.Distribution != "" {
		add("distribution", s.Distribution)
	}
	for _, p := range []struct {
		name  string
		value *pipelines.Share
	}{{"loss", s.Loss}, {"loss correlation", s.LossCorr}, {"duplicate", s.Duplicate}, {"reorder", s.Reorder}, {"corrupt", s.Corrupt}} {
		if p.value != nil {
			add(p.name, p.value.String())
		}
	}
	if s.Bandwidth != nil {
		add("bandwidth", s.Bandwidth.String())
	}
	if s.Queue != nil {
		add("queue", fmt.Sprintf("%d packets", *s.Queue))
	}
	if s.Policy != "" {
		parts = append(parts, s.Policy)
	}
	if len(parts) == 0 {
		return "as it is"
	}
	return strings.Join(parts, ", ")
}

// events writes a timeline per run stage.
func (e *explainer) events() {
	for _, s := range e.r.Stages {
		if s.Run == nil || len(s.Run.Events) == 0 {
			continue
		}
		e.title("Events of " + s.Name)
		dim := func(text string) terminal.Cell { return terminal.Cell{Text: text, Style: terminal.Dim} }
		var rows [][]terminal.Cell
		for _, entry := range timeline(s.Run.Events) {
			rows = append(rows, []terminal.Cell{{Text: entry.when, Right: true}, terminal.Text(entry.name), dim(entry.what)})
		}
		e.b.WriteString(e.term.Table(rows))
	}
}

type entry struct {
	at               time.Duration
	known            bool // at is counted from the stage's start; else the plan decides when
	when, name, what string
}

// timeline puts events in their order as far as it is known, those that wait for a state of the plan behind.
func timeline(events []pipelines.Event) []entry {
	var out []entry
	for _, ev := range events {
		at, known := moment(events, ev, 0)
		out = append(out, entry{at: at, known: known, when: when(ev.At, at, known), name: ev.Name, what: action(ev)})
		if ev.For > 0 && ev.Network != nil {
			out = append(out, entry{
				at: at + time.Duration(ev.For), known: known, name: ev.Name, what: "healed",
				when: when(pipelines.Anchor{State: ev.At.State, Event: ev.At.Event, Healed: ev.At.Healed, Offset: ev.At.Offset + ev.For}, at+time.Duration(ev.For), known),
			})
		}
	}
	slices.SortStableFunc(out, func(a, b entry) int {
		switch {
		case a.known != b.known && a.known:
			return -1
		case a.known != b.known:
			return 1
		case a.known:
			return int(max(-1, min(1, a.at-b.at)))
		}
		return 0
	})
	return out
}

// moment is when an event happens, counted from the stage's start, if that doesn't depend on the plan.
func moment(events []pipelines.Event, ev pipelines.Event, depth int) (time.Duration, bool) {
	offset := time.Duration(ev.At.Offset)
	switch {
	case ev.At.State != "" || depth > len(events):
		return 0, false
	case ev.At.Event == "":
		return offset, true
	}
	for _, other := range events {
		if other.Name == ev.At.Event {
			at, known := moment(events, other, depth+1)
			if ev.At.Healed {
				at += time.Duration(other.For)
			}
			return at + offset, known
		}
	}
	return 0, false
}

func when(a pipelines.Anchor, at time.Duration, known bool) string {
	if known {
		return pipelines.Duration(at).String()
	}
	text := "at state " + a.State
	if a.Event != "" {
		text = "at " + a.Event
		if a.Healed {
			text += ".healed"
		}
	}
	if a.Offset > 0 {
		text += " + " + a.Offset.String()
	}
	return text
}

func action(ev pipelines.Event) string {
	var parts []string
	if ev.Network != nil {
		if set := shape(ev.Network.Default); set != "as it is" {
			parts = append(parts, set)
		}
		parts = append(parts, state(*ev.Network)...)
	}
	if ev.Kill != nil {
		parts = append(parts, "kill "+choice(*ev.Kill))
	}
	if ev.Pause != nil {
		text := "pause " + choice(*ev.Pause)
		if ev.Pause.For > 0 {
			text += " for " + ev.Pause.For.String()
		}
		parts = append(parts, text)
	}
	if ev.Restart > 0 {
		parts = append(parts, "restart after "+ev.Restart.String())
	}
	if ev.For > 0 {
		parts = append(parts, "for "+ev.For.String())
	}
	return strings.Join(parts, ", ")
}

func choice(c pipelines.Choice) string {
	switch {
	case c.Share != nil:
		return c.Share.String() + " of " + c.Group
	case c.Count > 0:
		return fmt.Sprintf("%d of %s", c.Count, c.Group)
	case len(c.Indices) > 0:
		names := make([]string, len(c.Indices))
		for i, n := range c.Indices {
			names[i] = fmt.Sprintf("%s/%d", c.Group, n)
		}
		return strings.Join(names, ", ")
	}
	return c.Group
}

// needs says what the place of running must have.
func (e *explainer) needs(cells, maxParallel int) {
	e.title("What it needs")
	atOnce := 1
	if cells > 0 {
		atOnce = max(1, min(cells, maxParallel))
	}
	var memory, cpu int64
	undeclared := false
	for _, g := range e.r.Groups {
		memory += int64(g.Memory) * int64(g.Instances)
		cpu += g.CPU * int64(g.Instances)
		undeclared = undeclared || g.Memory == 0
	}
	text := fmt.Sprint(e.r.Instances())
	if atOnce > 1 {
		text += fmt.Sprintf(" in each of %d cells at once", atOnce)
	}
	e.fact("instances", text)
	switch declared := report.Bytes(float64(memory * int64(atOnce))); {
	case memory == 0:
		e.fact("memory", "none is declared")
	case undeclared:
		e.fact("memory", declared+" for the groups that declare it")
	default:
		e.fact("memory", declared)
	}
	if cpu > 0 {
		e.fact("cpu", fmt.Sprintf("%.2f cores", float64(cpu)*float64(atOnce)/1000))
	}
	made := map[string]bool{}
	for _, s := range e.r.Stages {
		for name := range s.Build {
			made[name] = true
		}
	}
	e.fact("artifacts", strings.Join(keys(made), ", "))
}
