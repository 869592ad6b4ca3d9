package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/sdk"
)

// row is how many came to something, out of how many.
type row struct {
	From     kind
	To       string // another kind, or what was tried
	Done, Of int
}

// writeTable writes the sums of all rows into the outputs, and into the log.
func writeTable(run *sdk.Run, rows []row) error {
	text := table(rows)
	run.Message("%s\n%s", run.Case, text)
	return os.WriteFile(filepath.Join(run.Outputs, run.Case+".txt"), []byte(text), 0o644)
}

// table is a line per kind, with a column for each that it met or that it tried.
func table(rows []row) string {
	type cell struct {
		from kind
		to   string
	}
	sums := map[cell]row{}
	var from []kind
	var to []string
	for _, r := range rows {
		key := cell{r.From, r.To}
		sums[key] = row{r.From, r.To, sums[key].Done + r.Done, sums[key].Of + r.Of}
		from, to = append(from, r.From), append(to, r.To)
	}
	slices.Sort(from)
	slices.Sort(to)
	from, to = slices.Compact(from), slices.Compact(to)
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s", "from \\ to")
	for _, t := range to {
		fmt.Fprintf(&b, " %-16s", t)
	}
	for _, f := range from {
		fmt.Fprintf(&b, "\n%-16s", f)
		for _, t := range to {
			text := "-"
			if sum, ok := sums[cell{f, t}]; ok {
				text = fmt.Sprintf("%d of %d", sum.Done, sum.Of)
			}
			fmt.Fprintf(&b, " %-16s", text)
		}
	}
	return b.String() + "\n"
}
