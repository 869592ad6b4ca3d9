package progress

import (
	"fmt"
	"strings"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/workflows"
)

// Escape sequences of the terminals in use since the VT100.
const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	eraseBelow = "\x1b[J"
	lineStart  = "\r"
)

const (
	barWidth  = 24
	nameWidth = 20 // a longer stage name is cut
	minRows   = 6  // of stages, however low the terminal is
)

// live redraws one block at the bottom of the terminal.
type live struct {
	term *terminal.Terminal
	// widths are those of the lines on the screen: what they take there depends on the terminal's width now, which may
	// have changed since they were drawn.
	widths []int
	last   Frame
	shown  bool
}

// line is a row of the block: the text as shown and how many cells it takes.
type line struct {
	painted string
	width   int
}

func (l *live) Show(f Frame) {
	l.last, l.shown = f, true
	l.draw("")
}

func (l *live) Say(text string) {
	width, _ := l.term.Size()
	var b strings.Builder
	for _, row := range terminal.Wrap(terminal.Clean(text), width-1) {
		b.WriteString(row + "\n")
	}
	l.draw(b.String())
}

func (l *live) Close() {
	fmt.Fprint(l.term, l.erase()+showCursor)
	l.widths, l.shown = nil, false
}

// draw replaces the block, with text that stays above it. It is one write, so that nothing flickers.
func (l *live) draw(text string) {
	var b strings.Builder
	b.WriteString(l.erase())
	b.WriteString(text)
	l.widths = nil
	if l.shown {
		b.WriteString(hideCursor)
		for _, row := range l.block(l.last) {
			b.WriteString(row.painted + "\n")
			l.widths = append(l.widths, row.width)
		}
	}
	fmt.Fprint(l.term, b.String())
}

// erase moves to the block's first line and clears from there.
func (l *live) erase() string {
	if len(l.widths) == 0 {
		return ""
	}
	width, _ := l.term.Size()
	up := 0
	for _, w := range l.widths {
		up += 1 + max(0, w-1)/width
	}
	return fmt.Sprintf("%s\x1b[%dA%s", lineStart, up, eraseBelow)
}

// block lays a frame out.
func (l *live) block(f Frame) []line {
	width, height := l.term.Size()
	width-- // a line that fills the last cell would wrap on some terminals
	rows := []line{l.heading(f, width), {}}
	stages, above, below := window(f.State.Stages, max(minRows, height-10))
	if above != "" {
		rows = append(rows, l.line(width, cell{"    " + above, terminal.Dim}))
	}
	names := nameColumn(f.State.Stages)
	for _, s := range stages {
		rows = append(rows, l.stage(f, s, names, width)...)
	}
	if below != "" {
		rows = append(rows, l.line(width, cell{"    " + below, terminal.Dim}))
	}
	rows = append(rows, l.firstFailure(f, width)...)
	return rows[:min(len(rows), max(1, height-1))] // what scrolls away can't be redrawn
}

type cell = struct {
	text  string
	style terminal.Style
}

// line joins cells, cut to width.
func (l *live) line(width int, cells ...cell) line {
	var out line
	for _, c := range cells {
		text := terminal.Fit(c.text, width-out.width)
		out.painted += l.term.Paint(c.style, text)
		out.width += terminal.Width(text)
	}
	return out
}

func (l *live) heading(f Frame, width int) line {
	elapsed := terminal.Elapsed(f.Elapsed())
	left := []cell{{"  " + f.Pipeline, terminal.Bold}, {"  " + f.Run, terminal.Dim}}
	room := width - terminal.Width(left[0].text) - len(elapsed) - 2
	left[1].text = terminal.Pad(terminal.Fit(left[1].text, room), room)
	return l.line(width, append(left, cell{"  " + elapsed, terminal.Plain})...)
}

// stage is one row, and for a stage with instances under way a second one with the counts.
func (l *live) stage(f Frame, s workflows.StageState, names, width int) []line {
	mark, style := StateGlyph(s)
	if s.Phase == phaseRunning {
		mark = spinner(f)
	}
	cells := []cell{
		{"  " + mark + " ", style},
		{terminal.Pad(terminal.Fit(s.Name, names), names), nameStyle(s)},
		{"  " + terminal.Pad(Label(s), 10), style},
	}
	if took := Spent(s, f.Now); took > 0 {
		cells = append(cells, cell{fmt.Sprintf("%7s", terminal.Elapsed(took)), terminal.Plain})
	}
	p, known := f.Of(s)
	if s.Phase != phaseRunning || !known {
		return []line{l.line(width, append(cells, cell{"  " + remark(s), terminal.Dim})...)}
	}
	if p.Total == 0 {
		return []line{l.line(width, append(cells, cell{"  " + terminal.Clean(p.Note), terminal.Dim})...)}
	}
	cells = append(cells, bar(p, min(barWidth, max(0, width-names-40)))...)
	cells = append(cells, cell{fmt.Sprintf("  %d/%d", Done(p), p.Total), terminal.Plain})
	rows := []line{l.line(width, cells...)}
	detail := Counts(p)
	if note := terminal.Clean(p.Note); note != "" {
		detail = strings.TrimPrefix(detail+" · "+note, " · ")
	}
	if detail != "" {
		rows = append(rows, l.line(width, cell{strings.Repeat(" ", 6+names) + detail, terminal.Dim}))
	}
	return rows
}

func (l *live) firstFailure(f Frame, width int) []line {
	for _, s := range f.State.Stages {
		p, _ := f.Of(s)
		if p.FirstFailure == "" {
			continue
		}
		var rows []line
		rows = append(rows, line{})
		for i, text := range terminal.Wrap("first failure: "+terminal.Clean(p.FirstFailure), width-4) {
			if i == 3 {
				break
			}
			mark := "    "
			if i == 0 {
				mark = "  ✘ "
			}
			rows = append(rows, l.line(width, cell{mark, terminal.Red}, cell{text, terminal.Plain}))
		}
		return rows
	}
	return nil
}

// remark is what is worth knowing of a stage that isn't under way.
func remark(s workflows.StageState) string {
	if s.Verdict == "passed" && s.Attempt > 1 {
		return fmt.Sprintf("at attempt %d", s.Attempt)
	}
	if s.Phase == phaseBackoff {
		return terminal.Clean(fmt.Sprintf("attempt %d: %s", s.Attempt, s.Reason))
	}
	return terminal.Clean(s.Reason)
}

func nameStyle(s workflows.StageState) terminal.Style {
	switch s.Phase {
	case phaseRunning, phaseHolding, phaseBackoff:
		return terminal.Bold
	case phaseEnded:
		return terminal.Plain
	}
	return terminal.Dim
}

func nameColumn(stages []workflows.StageState) int {
	names := 0
	for _, s := range stages {
		names = max(names, terminal.Width(s.Name))
	}
	return min(names, nameWidth)
}

// spinner turns five times a second, by the frame's clock.
func spinner(f Frame) string {
	frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	step := int(f.Elapsed().Milliseconds()/100) % len(frames)
	return string(frames[step])
}
