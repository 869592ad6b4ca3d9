package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/progress"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
)

// Suites is a table of suites: when each runs, and how its last turn ended.
func Suites(t *terminal.Terminal, all []worker.SuiteStatus, now time.Time) string {
	rows := [][]terminal.Cell{head("SUITE", "LAST TURN", "VERDICT", "NEXT", "SCHEDULE", "NOTE")}
	for _, s := range all {
		last, verdict := terminal.Cell{Text: "none yet", Style: terminal.Dim}, terminal.Text("")
		if s.Last != nil {
			last, verdict = terminal.Text(s.Last.ID), turnVerdict(*s.Last)
		}
		rows = append(rows, []terminal.Cell{
			terminal.Text(s.Name), last, verdict, terminal.Text(Next(s, now)), terminal.Text(Schedule(s.Schedule)),
			{Text: terminal.Clean(suiteNote(s)), Style: terminal.Dim},
		})
	}
	return t.Table(rows)
}

// Schedule is when a suite runs, in words.
func Schedule(s pipelines.SuiteSchedule) string {
	if s.Cron == "" {
		return "when triggered"
	}
	return s.Cron + " " + s.Timezone
}

// Next is when a suite's next turn begins.
func Next(s worker.SuiteStatus, now time.Time) string {
	switch {
	case s.Paused:
		return "paused"
	case s.Next.IsZero():
		return "–"
	}
	return s.Next.Local().Format("2006-01-02 15:04") + " (in " + distance(s.Next.Sub(now)) + ")"
}

// distance is a time to come in its two largest units.
func distance(d time.Duration) string {
	switch d = max(d, 0).Round(time.Second); {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return d.String()
}

// suiteNote is what a person should know of a suite beside its verdict.
func suiteNote(s worker.SuiteStatus) string {
	var all []string
	if s.Note != "" {
		all = append(all, s.Note)
	}
	if !s.Here {
		all = append(all, "runs on "+s.Host)
	}
	if s.Missed > 0 {
		all = append(all, fmt.Sprintf("%d missed while nothing was up", s.Missed))
	}
	if s.Overlapped > 0 {
		all = append(all, fmt.Sprintf("%d left out because of overlap", s.Overlapped))
	}
	return strings.Join(all, "; ")
}

func turnVerdict(t runs.SuiteTurn) terminal.Cell {
	if t.Verdict == "" {
		return terminal.Cell{Text: "● " + t.Status, Style: terminal.Cyan}
	}
	mark, style := progress.Glyph(t.Verdict)
	return terminal.Cell{Text: mark + " " + string(t.Verdict), Style: style}
}

// Turns is a table of a suite's turns and what each pipeline came to in them.
func Turns(t *terminal.Terminal, turns []runs.SuiteTurn, now time.Time) string {
	columns := columnsOf(turns)
	titles := []string{"TURN", "VERDICT", "BY", ">TIME"}
	for _, c := range columns {
		titles = append(titles, c.title)
	}
	rows := [][]terminal.Cell{head(append(titles, "NOTE")...)}
	for _, turn := range turns {
		ended := turn.Ended
		if ended.IsZero() {
			ended = now
		}
		row := []terminal.Cell{terminal.Text(turn.ID), turnVerdict(turn), terminal.Text(turn.Trigger), right(took(turn.Started, ended))}
		cells := cellsOf(turn)
		for _, c := range columns {
			row = append(row, cells[c.key])
		}
		rows = append(rows, append(row, terminal.Cell{Text: strings.Join(turn.News, ", "), Style: terminal.Dim}))
	}
	return t.Table(rows)
}

// column is a pipeline: a file, and which one where a suite has it more than once.
type column struct{ key, title string }

func keyOf(r runs.SuiteRun, seen map[string]int) string {
	seen[r.File]++
	return fmt.Sprintf("%s#%d", r.File, seen[r.File])
}

// columnsOf are the pipelines of all turns, those of the newest first. A pipeline has the newest name that it was read
// with.
func columnsOf(turns []runs.SuiteTurn) []column {
	var all []column
	at := map[string]int{}
	for _, turn := range turns {
		seen := map[string]int{}
		for _, r := range turn.Runs {
			key := keyOf(r, seen)
			i, known := at[key]
			if !known {
				i = len(all)
				at[key] = i
				all = append(all, column{key, r.Pipeline})
			}
			if all[i].title == r.File {
				all[i].title = r.Pipeline
			}
		}
	}
	return all
}

func cellsOf(turn runs.SuiteTurn) map[string]terminal.Cell {
	cells, seen := map[string]terminal.Cell{}, map[string]int{}
	for _, r := range turn.Runs {
		key := keyOf(r, seen)
		switch {
		case r.Verdict != "":
			mark, style := progress.Glyph(r.Verdict)
			text := mark
			if r.Verdict != stage.Passed {
				text += " " + string(r.Verdict)
			}
			if len(r.Regressed) > 0 {
				text = mark + " regressed"
			}
			cells[key] = terminal.Cell{Text: text, Style: style}
		case !r.Started.IsZero():
			cells[key] = terminal.Cell{Text: "●", Style: terminal.Cyan}
		default:
			cells[key] = terminal.Cell{Text: "·", Style: terminal.Dim}
		}
	}
	return cells
}

// Trouble says of each pipeline of a turn that did not pass why, since when, and where to look.
func Trouble(t *terminal.Terminal, turn runs.SuiteTurn) string {
	var b strings.Builder
	for _, r := range turn.Runs {
		if r.Verdict == "" || r.Verdict == stage.Passed {
			continue
		}
		mark, style := progress.Glyph(r.Verdict)
		since := ""
		if r.Since != "" && r.Since != turn.ID {
			since = ", since " + r.Since
		}
		fmt.Fprintf(&b, "  %s%s\n", t.Paint(style, mark+" "+terminal.Clean(r.Pipeline)), since)
		fmt.Fprintf(&b, "    %s\n", terminal.Clean(r.Reason))
		for _, figure := range r.Regressed {
			fmt.Fprintf(&b, "    ✘ %s\n", terminal.Clean(figure))
		}
		if r.Run != "" {
			fmt.Fprintf(&b, "    %s\n", t.Paint(terminal.Dim, "groundplan status "+r.Run))
		}
	}
	return b.String()
}
