package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/report/plot"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

const (
	// mostSlow is how many of the slowest instances are shown.
	mostSlow = 10
	// mostCells bounds the instances that have a cell; groups that don't fit any more are only counted.
	mostCells = 100_000
)

// instances is the part about single instances.
type instances struct {
	Total  int
	Groups []groupGrid
	Kinds  []kindCount
	Slow   []slowRow

	// drawn are the groups that have cells.
	drawn []*group
}

// groupGrid is a group with a cell for each instance.
type groupGrid struct {
	Name    string
	Total   int
	Summary string
	Grid    template.HTML
}

// kindCount is an outcome and how many instances had it.
type kindCount struct {
	Word  string
	Count int
	Key   template.HTML
}

// slowRow is one of the instances that took longest.
type slowRow struct {
	Name, Outcome, Took, Memory, CPU, Stage string
	Lines                                   []string
}

// kinds are the outcomes in the order in which they are listed, with the letter of their cells.
var kinds = []struct {
	letter  byte
	outcome string
}{
	{'c', control.OutcomeCrashed}, {'f', control.OutcomeFailed}, {'q', control.OutcomeSilent}, {'k', control.OutcomeKilled},
	{'s', control.OutcomeSucceeded}, {'.', "no outcome"},
}

func letter(l *life) byte {
	for _, k := range kinds {
		if l != nil && l.outcome == k.outcome {
			return k.letter
		}
	}
	return '.'
}

func (m *material) instances() *instances {
	if m.census.size() == 0 {
		return nil
	}
	in := &instances{Total: m.census.size()}
	left := mostCells
	sums := map[byte]int{}
	for _, g := range m.census.groups {
		letters := g.letters()
		for i := range len(letters) {
			sums[letters[i]]++
		}
		name := clean(g.name, 63)
		text := tally(letters)
		row := groupGrid{Name: name, Total: len(letters), Summary: text}
		if len(letters) <= left {
			left -= len(letters)
			row.Grid = plot.Grid("Instances of "+name, text, letters)
			in.drawn = append(in.drawn, g)
		}
		in.Groups = append(in.Groups, row)
	}
	for _, k := range kinds {
		if sums[k.letter] > 0 {
			in.Kinds = append(in.Kinds, kindCount{k.outcome, sums[k.letter], plot.Key(k.letter)})
		}
	}
	in.Slow = m.slowest()
	return in
}

// letters are the group's outcomes, a letter each.
func (g *group) letters() string {
	letters := make([]byte, len(g.lives))
	for i, l := range g.lives {
		letters[i] = letter(l)
	}
	return string(letters)
}

// tally counts letters in words.
func tally(letters string) string {
	var parts []string
	for _, k := range kinds {
		if n := strings.Count(letters, string(k.letter)); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k.outcome))
		}
	}
	return strings.Join(parts, ", ")
}

// slowest are the instances that took longest, with their last lines.
func (m *material) slowest() []slowRow {
	lives := m.census.all()
	slices.SortStableFunc(lives, func(a, b *life) int { return cmp.Compare(b.seconds, a.seconds) })
	var rows []slowRow
	for _, l := range lives[:min(len(lives), mostSlow)] {
		row := slowRow{
			Name: clean(l.name(), 80), Outcome: clean(l.outcome, 20), Took: plot.Seconds.Format(l.seconds),
			Memory: plot.Bytes.Format(float64(l.memory)), CPU: plot.Seconds.Format(l.cpu), Stage: l.stage, Lines: l.lines,
		}
		if len(row.Lines) == 0 {
			row.Lines = m.lastLines(l)
		}
		rows = append(rows, row)
	}
	return rows
}

// lastLines are the last of an instance's stderr, or of its stdout where that is empty.
func (m *material) lastLines(l *life) []string {
	if runs.CheckID(l.group) != nil {
		return nil
	}
	folder := fmt.Sprintf("outputs/%s/%d/", l.group, l.index)
	if lines := m.files.tail(folder + "run.err"); len(lines) > 0 {
		return lines
	}
	return m.files.tail(folder + "run.out")
}

// data is what the script shows of an instance that is pointed at: letters, and per instance milliseconds, KiB of memory
// and milliseconds of CPU.
func (in *instances) data() template.JS {
	type groupData struct {
		Name    string  `json:"name"`
		Columns int     `json:"columns"`
		Kinds   string  `json:"kinds"`
		Took    []int64 `json:"took"`
		Memory  []int64 `json:"memory"`
		CPU     []int64 `json:"cpu"`
	}
	var list []groupData
	for _, g := range in.drawn {
		d := groupData{Name: clean(g.name, 63), Columns: plot.Columns(len(g.lives)), Kinds: g.letters()}
		for _, l := range g.lives {
			if l == nil {
				l = &life{}
			}
			d.Took = append(d.Took, int64(math.Round(l.seconds*1000)))
			d.Memory = append(d.Memory, l.memory>>10)
			d.CPU = append(d.CPU, int64(math.Round(l.cpu*1000)))
		}
		list = append(list, d)
	}
	text, err := json.Marshal(list) // it escapes <, > and &
	if err != nil {
		return "[]"
	}
	return template.JS(text) //nolint:gosec // JSON without < in it can't end the script that it stands in
}
