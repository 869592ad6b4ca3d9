package terminal

import (
	"fmt"
	"strings"
	"time"
)

// Cell is one cell of a table.
type Cell struct {
	Text  string
	Style Style
	// Right aligns to the right.
	Right bool
}

// Text is a cell without a style.
func Text(text string) Cell { return Cell{Text: text} }

// Table lays rows out in columns two spaces apart, indented by two, cut to the terminal's width when it has one. Only
// the last column gives way where the table is too wide.
func (t *Terminal) Table(rows [][]Cell) string {
	widths := columnWidths(rows)
	limit := 0
	if t.Live {
		limit, _ = t.Size()
	}
	var b strings.Builder
	for _, row := range rows {
		b.WriteString(t.row(row, widths, limit))
		b.WriteByte('\n')
	}
	return b.String()
}

func columnWidths(rows [][]Cell) []int {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Width(cell.Text))
		}
	}
	return widths
}

func (t *Terminal) row(row []Cell, widths []int, limit int) string {
	line, used := "", 0
	for i, cell := range row {
		gap := "  "
		text := cell.Text
		if limit > 0 {
			text = Fit(text, limit-used-len(gap))
		}
		fill := strings.Repeat(" ", max(0, widths[i]-Width(text)))
		used += len(gap) + Width(text)
		last := i == len(row)-1
		switch {
		case cell.Right:
			line += gap + fill + t.Paint(cell.Style, text)
			used += len(fill)
		case last:
			line += gap + t.Paint(cell.Style, text)
		default:
			line += gap + t.Paint(cell.Style, text) + fill
			used += len(fill)
		}
	}
	return strings.TrimRight(line, " ")
}

// Elapsed writes a length of time for a person, in about three digits: 340ms, 12.4s, 3m04s, 1h02m.
func Elapsed(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	default:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
}

// Unbounded is the terminal without the bound on the width of tables: for text that must not be cut.
func (t *Terminal) Unbounded() *Terminal {
	wide := *t
	wide.Live = false
	return &wide
}
