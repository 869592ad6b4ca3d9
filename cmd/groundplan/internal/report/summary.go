// Package report turns the record of a run into what people and other programs read: a summary, JUnit XML, tables.
package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/progress"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Stages is a table of stages: verdict, time and what is worth knowing of each.
func Stages(t *terminal.Terminal, results []stage.Result) string {
	if len(results) == 0 {
		return ""
	}
	rows := [][]terminal.Cell{head("STAGE", "VERDICT", ">TIME", "NOTE")}
	// Results stand in the order in which stages ended; people think of them as they began.
	results = slices.SortedStableFunc(slices.Values(results), func(a, b stage.Result) int { return a.Started.Compare(b.Started) })
	for _, r := range results {
		mark, style := progress.Glyph(r.Verdict)
		rows = append(rows, []terminal.Cell{
			terminal.Text(r.Stage),
			{Text: mark + " " + string(r.Verdict), Style: style},
			{Text: stageTime(r), Right: true},
			{Text: Note(r), Style: terminal.Dim},
		})
	}
	return t.Table(rows)
}

// Cells is a table of a matrix' child runs.
func Cells(t *terminal.Terminal, cells []stage.Cell) string {
	if len(cells) == 0 {
		return ""
	}
	rows := [][]terminal.Cell{head("RUN", "VERDICT", "CELL", "NOTE")}
	for _, c := range cells {
		mark, style := progress.Glyph(c.Verdict)
		rows = append(rows, []terminal.Cell{
			terminal.Text(c.Run),
			{Text: mark + " " + string(c.Verdict), Style: style},
			terminal.Text(Values(c.Values)),
			{Text: terminal.Clean(c.Reason), Style: terminal.Dim},
		})
	}
	return t.Table(rows)
}

// Values writes parameters or a cell in one line: rtt=80ms version=v0.34.0.
func Values(values map[string]any) string {
	var parts []string
	for _, name := range sorted(values) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, values[name]))
	}
	return strings.Join(parts, " ")
}

// Broken lists the assertions that did not hold, each with the values it was made of.
func Broken(t *terminal.Terminal, rec runs.Record) string {
	var b strings.Builder
	for _, a := range Assertions(rec) {
		if a.Held {
			continue
		}
		fmt.Fprintf(&b, "  %s %s\n", t.Paint(terminal.Red, "✘"), terminal.Clean(a.Expr))
		for _, detail := range []string{a.Explanation, a.Position} {
			if detail != "" {
				fmt.Fprintf(&b, "    %s\n", t.Paint(terminal.Dim, terminal.Clean(detail)))
			}
		}
	}
	return b.String()
}

// Assertions are those of the record, or where it has none those of its stages.
func Assertions(rec runs.Record) []stage.Assertion {
	if len(rec.Assertions) > 0 {
		return rec.Assertions
	}
	var out []stage.Assertion
	for _, r := range rec.Stages {
		out = append(out, r.Assertions...)
	}
	return out
}

// Sentence says how a run ended or where it stands, beginning with the verdict.
func Sentence(rec runs.Record) string {
	word := string(rec.Verdict)
	if word == "" {
		word = rec.Status
	}
	if !rec.Ended.IsZero() {
		word += " in " + took(rec.Started, rec.Ended)
	}
	reason := reason(rec)
	switch {
	case reason == "" || reason == string(rec.Verdict):
		return word
	case rec.Status == stage.StatusHolding && strings.HasPrefix(reason, "holds "):
		return reason
	}
	return word + ": " + reason
}

// reason is a run's, without the verdict that it may begin with.
func reason(rec runs.Record) string {
	return strings.TrimPrefix(terminal.Clean(rec.Reason), string(rec.Verdict)+": ")
}

// Verdict is the sentence with the verdict's glyph and colour, wrapped to the terminal.
func Verdict(t *terminal.Terminal, rec runs.Record) string {
	mark, style := progress.Glyph(rec.Verdict)
	if rec.Status == stage.StatusHolding {
		mark, style = "‖", terminal.Yellow
	}
	width, _ := t.Size()
	if !t.Live {
		width = 1 << 20 // a log is searched by lines
	}
	var b strings.Builder
	for i, line := range terminal.Wrap(Sentence(rec), width-5) {
		if i == 0 {
			first, rest := line, ""
			if word, after, cut := strings.Cut(line, ":"); cut {
				first, rest = word, ":"+after
			}
			fmt.Fprintf(&b, "  %s %s%s\n", t.Paint(style, mark), t.Paint(style, first), rest)
			continue
		}
		fmt.Fprintf(&b, "    %s\n", line)
	}
	return b.String()
}

// Note is what is worth knowing of a stage's result in a few words.
func Note(r stage.Result) string {
	if r.Reason != "" && r.Verdict != stage.Passed {
		return terminal.Clean(r.Reason)
	}
	var parts []string
	switch r.Kind {
	case pipelines.KindBuild:
		parts = append(parts, artifacts(r.Artifacts))
	case pipelines.KindSchedule:
		parts = append(parts, some(r.Placed, "placed"), some(r.Kept, "kept"))
	case pipelines.KindRun:
		parts = append(parts, Outcomes(r.Outcomes))
	case pipelines.KindCollect:
		parts = append(parts, held(r.Assertions))
	}
	if r.Attempt > 1 {
		parts = append(parts, fmt.Sprintf("attempt %d", r.Attempt))
	}
	if r.From != "" {
		parts = append(parts, "taken over from "+terminal.Clean(r.From))
	}
	parts = append(parts, terminal.Clean(r.Reason))
	for _, note := range r.Notes {
		parts = append(parts, terminal.Clean(note))
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " · ")
}

// Outcomes adds up how the instances of all groups ended.
func Outcomes(groups map[string]pipelines.Outcomes) string {
	var sum pipelines.Outcomes
	for _, o := range groups {
		sum.Succeeded += o.Succeeded
		sum.Failed += o.Failed
		sum.Crashed += o.Crashed
		sum.Silent += o.Silent
		sum.Killed += o.Killed
	}
	parts := []string{
		some(sum.Succeeded, "succeeded"), some(sum.Failed, "failed"), some(sum.Crashed, "crashed"), some(sum.Silent, "silent"),
		some(sum.Killed, "killed"),
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " · ")
}

func artifacts(made map[string]stage.Artifact) string {
	if len(made) == 0 {
		return ""
	}
	cached := 0
	for _, a := range made {
		if a.Cached {
			cached++
		}
	}
	text := plural(len(made), "artifact")
	switch cached {
	case 0:
		return text
	case len(made):
		return text + ", built before"
	}
	return fmt.Sprintf("%s, %d built before", text, cached)
}

func held(assertions []stage.Assertion) string {
	if len(assertions) == 0 {
		return ""
	}
	return plural(len(assertions), "assertion") + " held"
}

func some(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s", n, what)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// stageTime is how long a stage took; nothing for one that never began.
func stageTime(r stage.Result) string {
	if r.Verdict == stage.Skipped {
		return ""
	}
	return took(r.Started, r.Ended)
}

func took(started, ended time.Time) string {
	if started.IsZero() || ended.IsZero() {
		return ""
	}
	return terminal.Elapsed(ended.Sub(started))
}

// head is a row of column titles; one that begins with ">" is aligned to the right.
func head(titles ...string) []terminal.Cell {
	row := make([]terminal.Cell, len(titles))
	for i, title := range titles {
		text, right := strings.CutPrefix(title, ">")
		row[i] = terminal.Cell{Text: text, Style: terminal.Dim, Right: right}
	}
	return row
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
