// Testsummary reads the output of one or more `go test -json` runs from standard input and prints what a person needs:
// a line per package, the whole output of what failed, every skipped test with its reason, and the counts.
//
// It exits with 1 when anything failed, when no test ran, and, with CI=true in the environment, when anything was
// skipped: what CI doesn't run nobody runs.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	summary := newSummary()
	if err := summary.read(bufio.NewReader(os.Stdin), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(1)
	}
	if !summary.print(os.Stdout, os.Getenv("CI") == "true") {
		os.Exit(1)
	}
}
