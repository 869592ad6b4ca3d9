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
	for _, line := range slices.Backward(strings.Split(string(tail[:n]), "\n")) {
		if last = appendLine(last, line); len(last) == lastLines {
			break
		}
	}
	slices.Reverse(last)
	return last, nil
}

// appendLine adds a line that isn't empty, cut.
func appendLine(lines []string, line string) []string {
	if line = strings.TrimRight(line, " \t\r"); line == "" {
		return lines
	}
	return append(lines, Cut(line, longestLast))
}

// PanicLines returns the first ten lines of a Go program's last words in its stderr: the message of its panic, or of its
// fatal error, and the top of the stack below it. The end of such a dump would be other goroutines. It returns none where
// there are no such words.
func PanicLines(stderr io.Reader) ([]string, error) {
	var found []string
	stack := false
	err := lines(stderr, func(line []byte) {
		text := string(line)
		switch {
		case stack && len(found) == lastLines:
		case !stack && (strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")):
			found = appendLine(nil, text)
		case len(found) > 0 && len(found) < lastLines:
			stack = stack || strings.HasPrefix(text, "goroutine ")
			found = appendLine(found, text)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the last words: %w", err)
	}
	if !stack {
		return nil, nil
	}
	return found, nil
}
