package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/groundplan/groundplan/runs/said"
)

const (
	// mostJSON bounds a file that is read as a whole, and longestLine a line of one that isn't; in bytes.
	mostJSON    = 256 << 20
	longestLine = 1 << 20
	// mostLines bounds how many lines of a file are looked at.
	mostLines = 5_000_000
	// tailBytes is how much of an output's end is read, tailLines how many lines of it are shown, and shownRunes how much of
	// a line.
	tailBytes  = 64 << 10
	tailLines  = 12
	shownRunes = 600
)

// tree is a run's folder. Instances write into it: what is no regular file, and what leads out of it, isn't opened.
type tree struct{ root *os.Root }

func openTree(path string) (*tree, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &tree{root}, nil
}

func (t *tree) Close() error { return t.root.Close() }

// open opens a regular file, by its path in the folder. A pipe would be waited for forever, and a link may lead anywhere.
func (t *tree) open(path string) (*os.File, int64, error) {
	info, err := t.root.Lstat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is no regular file", path)
	}
	file, err := t.root.Open(path)
	return file, info.Size(), err
}

// json reads a whole document; found is false, without an error, where there is none.
func (t *tree) json(path string, into any) (found bool, err error) {
	file, size, err := t.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s can't be read: %w", path, err)
	}
	defer file.Close()
	if size > mostJSON {
		return false, fmt.Errorf("%s is larger than %d MiB: it was not read", path, mostJSON>>20)
	}
	data, err := io.ReadAll(io.LimitReader(file, mostJSON))
	if err != nil {
		return false, fmt.Errorf("%s can't be read: %w", path, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return false, fmt.Errorf("%s can't be read: %w", path, err)
	}
	return true, nil
}

// lines calls each with every line that is JSON of the type T, and counts those that are not. A last line without an end
// is still being written, or was cut: if it can't be read, it doesn't count.
func lines[T any](t *tree, path string, each func(T)) (bad int, err error) {
	file, _, err := t.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("%s can't be read: %w", path, err)
	}
	defer file.Close()
	reader := bufio.NewReaderSize(file, 64<<10)
	for range mostLines {
		line, whole, err := nextLine(reader)
		if len(bytes.TrimSpace(line)) > 0 || whole && line == nil {
			var row T
			switch {
			case line != nil && json.Unmarshal(line, &row) == nil:
				each(row)
			case whole:
				bad++
			}
		}
		if errors.Is(err, io.EOF) {
			return bad, nil
		}
		if err != nil {
			return bad, fmt.Errorf("%s can't be read to its end: %w", path, err)
		}
	}
	return bad, fmt.Errorf("%s has more than %d lines: the rest was not read", path, mostLines)
}

// nextLine reads one line; nil for one that is too long. whole says that it has an end.
func nextLine(r *bufio.Reader) (line []byte, whole bool, err error) {
	line = []byte{}
	for {
		part, err := r.ReadSlice('\n')
		switch {
		case line == nil:
		case len(line)+len(part) > longestLine:
			line = nil
		default:
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return line, err == nil, err
	}
}

// tail is the end of a text file, in lines that can be shown; nil where there is nothing.
func (t *tree) tail(path string) []string {
	file, size, err := t.open(path)
	if err != nil || size == 0 {
		return nil
	}
	defer file.Close()
	from := max(size-tailBytes, 0)
	data, err := io.ReadAll(io.NewSectionReader(file, from, tailBytes))
	if err != nil {
		return nil
	}
	if from > 0 { // the first line is cut, unless it is the only one
		if _, rest, found := bytes.Cut(data, []byte{'\n'}); found && len(rest) > 0 {
			data = rest
		}
	}
	text := strings.Split(strings.TrimRight(string(data), "\r\n\x00 "), "\n")
	return shown(text[max(len(text)-tailLines, 0):])
}

// shown makes lines fit to be read: without control characters, with an end, and no more of them than can be taken in.
func shown(text []string) []string {
	var list []string
	for _, line := range text {
		if _, text, ok := said.Line(line); ok {
			line = text
		}
		for part := range strings.SplitSeq(line, "\n") {
			if len(list) < 2*tailLines {
				list = append(list, clean(part, shownRunes))
			}
		}
	}
	return list
}

// clean is a text without control characters and colours of a terminal, cut at a number of characters.
func clean(text string, most int) string {
	var b strings.Builder
	n := 0
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == 0x1b {
			i += escape(text[i:])
			continue
		}
		i += size
		switch {
		case r == '\t':
			r = ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			continue
		}
		if n++; n > most {
			b.WriteString("…")
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// escape is the length of a terminal's escape sequence.
func escape(text string) int {
	if len(text) < 2 || text[1] != '[' {
		return min(2, len(text))
	}
	for i := 2; i < len(text); i++ {
		if text[i] >= 0x40 && text[i] <= 0x7e {
			return i + 1
		}
	}
	return len(text)
}
