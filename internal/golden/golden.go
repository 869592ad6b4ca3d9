// Package golden compares what a test got with a file that keeps what it should get. `go test ./<package> -update` writes
// the files anew: look at the difference before it is committed.
package golden

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Compare fails the test when got isn't what the file at path holds. With -update it writes the file, and its folder.
func Compare(t testing.TB, path, got string) {
	t.Helper()
	if *update {
		if err := write(path, got); err != nil {
			t.Fatalf("writing a golden file: %v", err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run the test with -update to write it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs from what it should be: run the test with -update and look at the difference\n%s", path, difference(string(want), got))
	}
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// shown is how many lines of each side are shown from the first that differs on.
const shown = 8

// difference shows both texts from the first line on that differs.
func difference(want, got string) string {
	a, b := strings.SplitAfter(want, "\n"), strings.SplitAfter(got, "\n")
	at := 0
	for at < len(a) && at < len(b) && a[at] == b[at] {
		at++
	}
	return fmt.Sprintf("from line %d\nwant\n%sgot\n%s", at+1, excerpt(a, at), excerpt(b, at))
}

func excerpt(lines []string, at int) string {
	var b strings.Builder
	for _, line := range lines[min(at, len(lines)):min(at+shown, len(lines))] {
		if text, ended := strings.CutSuffix(line, "\n"); ended || text != "" {
			fmt.Fprintf(&b, "\t%s\n", text)
		}
	}
	if b.Len() == 0 {
		return "\t(the text has ended)\n"
	}
	return b.String()
}
