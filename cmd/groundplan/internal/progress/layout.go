package progress

import (
	"fmt"
	"strings"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/workflows"
)

// bar shows shares of a total: succeeded, failed, running, placed and the rest, in width cells. What is not zero gets a cell, so
// that one failure of 10,000 is seen.
func bar(p stage.Progress, width int) []cell {
	if width <= 0 || p.Total <= 0 {
		return nil
	}
	idle := max(p.Waiting, p.Placed-p.Running-p.Succeeded-p.Failed, 0)
	parts := []struct {
		n     int
		style terminal.Style
	}{
		{p.Succeeded, terminal.Green},
		{p.Failed, terminal.Red},
		{p.Running, terminal.Cyan},
		{idle, terminal.Plain},
	}
	cells := []cell{{"  ", terminal.Plain}}
	used, sum := 0, 0
	for _, part := range parts {
		if part.n <= 0 {
			continue
		}
		sum += part.n
		end := min(max(used+1, sum*width/p.Total), width)
		cells = append(cells, cell{strings.Repeat("━", end-used), part.style})
		used = end
	}
	return append(cells, cell{strings.Repeat("╌", width-used), terminal.Dim})
}

// window picks at most rows stages of a long list: those around what is under way. above and below say what is missing.
func window(stages []workflows.StageState, rows int) (shown []workflows.StageState, above, below string) {
	if len(stages) <= rows {
		return stages, "", ""
	}
	first := len(stages)
	for i, s := range stages {
		if s.Phase != phaseEnded {
			first = i
			break
		}
	}
	from := min(max(0, first-rows/3), len(stages)-rows)
	return stages[from : from+rows], summary(stages[:from], "earlier"), summary(stages[from+rows:], "more")
}

// summary says what is in a part of the list that isn't shown: "… 12 earlier: 11 passed, 1 failed".
func summary(stages []workflows.StageState, word string) string {
	if len(stages) == 0 {
		return ""
	}
	var order []string
	seen := map[string]int{}
	for _, s := range stages {
		what := Label(s)
		if seen[what] == 0 {
			order = append(order, what)
		}
		seen[what]++
	}
	parts := make([]string, len(order))
	for i, what := range order {
		parts[i] = fmt.Sprintf("%d %s", seen[what], what)
	}
	return fmt.Sprintf("… %d %s: %s", len(stages), word, strings.Join(parts, ", "))
}
