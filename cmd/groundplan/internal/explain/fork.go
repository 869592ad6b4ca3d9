package explain

import (
	"fmt"
	"strings"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
)

// Fork explains what a run takes over from an earlier one (stage and verdict), and what it carries out itself (stage and
// why).
func Fork(t *terminal.Terminal, from string, taken, runs [][2]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", t.Paint(terminal.Bold, "Taken over from run "+from))
	table := func(rows [][2]string) {
		cells := make([][]terminal.Cell, 0, len(rows))
		for _, row := range rows {
			cells = append(cells, []terminal.Cell{terminal.Text(row[0]), {Text: terminal.Clean(row[1]), Style: terminal.Dim}})
		}
		b.WriteString(t.Table(cells))
	}
	if len(taken) == 0 {
		b.WriteString("  nothing\n")
	}
	table(taken)
	fmt.Fprintf(&b, "\n%s\n", t.Paint(terminal.Bold, "Carried out"))
	table(runs)
	b.WriteString("\n")
	return b.String()
}
