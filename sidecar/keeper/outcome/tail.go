package outcome

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	lastLines   = 10
	longestLast = 500 // bytes of one line
	tailSize    = 64 << 10
)

// LastLines returns the last ten lines that aren't empty of what stands between from and size in a file, each cut at
// 500 bytes.
func LastLines(file io.ReaderAt, from, size int64) ([]string, error) {
	begin := max(from, size-tailSize)
	if begin >= size {
		return nil, nil
	}
	tail := make([]byte, size-begin)
	n, err := file.ReadAt(tail, begin)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the last lines: %w", err)
	}
	var last []string
	all := strings.Split(string(tail[:n]), "\n")
	for i := len(all) - 1; i >= 0 && len(last) < lastLines; i-- {
		if line := strings.TrimRight(all[i], " \t\r"); line != "" {
			last = append(last, Cut(line, longestLast))
		}
	}
	slices.Reverse(last)
	return last, nil
}
