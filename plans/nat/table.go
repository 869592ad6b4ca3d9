package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/groundplan/groundplan/sdk"
)

// row is how many pairs of two kinds came to something.
type row struct {
	From, To kind
	Done, Of int
}

// writeTable writes the sums of all rows into the outputs, and into the log.
func writeTable(run *sdk.Run, rows []row) error {
	text := table(rows)
	run.Message("%s\n%s", run.Case, text)
	return os.WriteFile(filepath.Join(run.Outputs, run.Case+".txt"), []byte(text), 0o644)
}

// table is a line per kind, with a column for each that it met.
func table(rows []row) string {
	sums := map[[2]kind]row{}
	var from, to []kind
	for _, r := range rows {
		key := [2]kind{r.From, r.To}
		sums[key] = row{r.From, r.To, sums[key].Done + r.Done, sums[key].Of + r.Of}
		from, to = append(from, r.From), append(to, r.To)
	}
	slices.Sort(from)
	slices.Sort(to)
	from, to = slices.Compact(from), slices.Compact(to)
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s", "from \\ to")
	for _, t := range to {
		fmt.Fprintf(&b, " %-*s", max(16, len(t)), t)
	}
	for _, f := range from {
		fmt.Fprintf(&b, "\n%-16s", f)
		for _, t := range to {
			cell := "-"
			if sum, ok := sums[[2]kind{f, t}]; ok {
				cell = fmt.Sprintf("%d of %d", sum.Done, sum.Of)
			}
			fmt.Fprintf(&b, " %-*s", max(16, len(t)), cell)
		}
	}
	return b.String() + "\n"
}
