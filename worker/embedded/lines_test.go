package embedded

import (
	"bytes"
	"iter"
	"strings"
)

// bytesLines gives the fields of each line.
func bytesLines(content []byte) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for line := range bytes.Lines(content) {
			if !yield(strings.Fields(string(line))) {
				return
			}
		}
	}
}
