package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundplan/groundplan/cmd/groundplan/internal/progress"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/terminal"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Metrics is a table of a run's metrics, each with its groups and phases below it, and on a terminal with a picture of where
// its values lie; on a narrow one the picture stands in the place of most figures. parts takes their names apart.
func Metrics(t *terminal.Terminal, metrics map[string]pipelines.Summary, parts func(string) Part) string {
	rows := [][]terminal.Cell{head("METRIC", ">COUNT", ">MIN", ">MEAN", ">P50", ">P90", ">P95", ">P99", ">MAX", ">SUM")}
	names := slices.SortedFunc(maps.Keys(metrics), func(a, b string) int { return cmp.Or(parts(a).compare(parts(b)), cmp.Compare(a, b)) })
	for _, name := range names {
		m := metrics[name]
		row := []terminal.Cell{terminal.Text(terminal.Clean(name)), right(strconv.FormatInt(m.Count, 10))}
		for _, v := range []float64{m.Min, m.Mean, m.P50, m.P90, m.P95, m.P99, m.Max, m.Sum} {
			row = append(row, right(Number(v)))
		}
		rows = append(rows, row)
	}
	if !t.Live {
		return t.Table(rows)
	}
	pictured(rows, names, metrics, parts)
	if width, _ := t.Size(); !fits(rows, width) {
		for i, row := range rows {
			rows[i] = []terminal.Cell{row[0], row[4], row[7], row[len(row)-1]}
		}
	}
	return t.Table(rows)
}

// fits says whether a table's longest line fits into a width.
func fits(rows [][]terminal.Cell, width int) bool {
	plain := (&terminal.Terminal{}).Table(rows)
	for line := range strings.Lines(plain) {
		if terminal.Width(strings.TrimRight(line, "\n")) > width {
			return false
		}
	}
	return true
}

// Groups is a table of what is known of each group's instances.
func Groups(t *terminal.Terminal, groups map[string]runs.Group) string {
	if len(groups) == 0 {
		return ""
	}
	rows := [][]terminal.Cell{head("GROUP", ">INSTANCES", ">PEAK MEMORY", ">CPU", ">TIME", "OUTCOMES")}
	for _, name := range sorted(groups) {
		g := groups[name]
		rows = append(rows, []terminal.Cell{
			terminal.Text(name), right(strconv.Itoa(g.Instances)),
			right(Bytes(g.PeakMemory.Max)), right(duration(g.CPU.Max)), right(duration(g.Seconds.Max)),
			terminal.Text(Outcomes(map[string]pipelines.Outcomes{name: g.Outcomes})),
		})
	}
	return t.Table(rows)
}

// Runs is a table of runs, newest first as given. It has a column for suites where a run is one's.
func Runs(t *terminal.Terminal, records []runs.Record, now time.Time) string {
	suites := slices.ContainsFunc(records, func(r runs.Record) bool { return r.Suite != "" })
	titles := []string{"RUN", "VERDICT", "PIPELINE"}
	if suites {
		titles = append(titles, "SUITE")
	}
	rows := [][]terminal.Cell{head(append(titles, "STARTED", ">TIME", "NOTE")...)}
	for _, rec := range records {
		mark, style := progress.Glyph(rec.Verdict)
		word := string(rec.Verdict)
		ended := rec.Ended
		if word == "" {
			mark, style, word = "●", terminal.Cyan, rec.Status
		}
		if ended.IsZero() {
			ended = now
		}
		note := ""
		if rec.Verdict != "passed" {
			note = reason(rec)
		}
		row := []terminal.Cell{terminal.Text(rec.ID), {Text: mark + " " + word, Style: style}, terminal.Text(rec.Pipeline)}
		if suites {
			row = append(row, terminal.Text(rec.Suite))
		}
		rows = append(rows, append(row,
			terminal.Text(rec.Started.Local().Format("2006-01-02 15:04:05")),
			right(took(rec.Started, ended)), terminal.Cell{Text: note, Style: terminal.Dim},
		))
	}
	return t.Table(rows)
}

func right(text string) terminal.Cell { return terminal.Cell{Text: text, Right: true} }

// Number writes a value in about four digits.
func Number(v float64) string {
	size := math.Abs(v)
	switch {
	case v == math.Trunc(v) && size < 1e9:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case size >= 1e9 || size < 1e-4:
		return strconv.FormatFloat(v, 'e', 2, 64)
	case size >= 1000:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// Bytes writes a size with a binary unit.
func Bytes(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", n)
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

func duration(seconds float64) string {
	return terminal.Elapsed(time.Duration(seconds * float64(time.Second)))
}
