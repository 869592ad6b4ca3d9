package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
)

// Comparison is a table of what came of a comparison, with a picture of every change: where it lies between a half less
// and a half more, and how sure that is.
func Comparison(t *terminal.Terminal, o comparison.Outcome) string {
	rows := [][]terminal.Cell{head("FIGURE", ">BEFORE", ">AFTER", ">CHANGE", "-50 %      0     +50 %", ">TOLERATED", ">P", ">EFFECT", "VERDICT")}
	for _, f := range o.Findings {
		mark, style := judged(f.Judgement)
		rows = append(rows, []terminal.Cell{
			terminal.Text(terminal.Clean(f.Figure)), right(Number(f.Before)), right(Number(f.After)), right(fmt.Sprintf("%+.1f %%", 100*f.Change)),
			{Text: interval(f), Style: style}, right(f.Tolerance.String()), right(probability(f.P)), right(fmt.Sprintf("%+.2f", f.Effect)),
			{Text: mark + " " + string(f.Judgement), Style: style},
		})
	}
	return t.Table(rows)
}

// judged is the sign of a judgement.
func judged(j comparison.Judgement) (string, terminal.Style) {
	switch j {
	case comparison.Regressed:
		return "✘", terminal.Red
	case comparison.Better:
		return "✔", terminal.Green
	case comparison.Different:
		return "≠", terminal.Yellow
	case comparison.Untested:
		return "?", terminal.Dim
	}
	return "=", terminal.Dim
}

// probability of a difference by chance.
func probability(p float64) string {
	if p < 0.0001 {
		return "<0.0001"
	}
	return fmt.Sprintf("%.4f", p)
}

// spots is how many signs an interval is drawn with; the middle one stands for no change.
const spots = 21

// interval draws the confidence interval of a shift as a share of what was before, and the change as a dot.
func interval(f comparison.Finding) string {
	line := []rune(strings.Repeat("·", spots))
	line[spots/2] = '│'
	if f.Before != 0 && f.Low != f.High {
		for i := spot(f.Low / math.Abs(f.Before)); i <= spot(f.High/math.Abs(f.Before)); i++ {
			line[i] = '━'
		}
	}
	if f.Before != 0 {
		line[spot(f.Change)] = '●'
	}
	return string(line)
}

// spot is where a share from -50 % to +50 % is drawn; what is beyond stands at the end.
func spot(share float64) int {
	return min(max(int(math.Round((share+0.5)*(spots-1))), 0), spots-1)
}
