package elasticsearch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// mostLine is how much of a line is sent, in bytes; the rest of it is counted only.
	mostLine = 256 << 10
	// sniffed is how much of a file is looked at to tell text from what isn't.
	sniffed = 8 << 10
)

// position is a place in the outputs: all files before File, in the order of a walk, and File up to Offset are done.
type position struct {
	File   string    `json:"file,omitempty"`
	Offset int64     `json:"offset,omitempty"`
	Line   int64     `json:"line,omitempty"`
	Last   time.Time `json:"last,omitzero"`
}

// inOrder compares paths as a walk meets them: folder by folder.
func inOrder(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}

// isLog says whether a file's name is that of a log: those are sent.
func isLog(name string) bool {
	switch path.Ext(name) {
	case ".out", ".err", ".log":
		return true
	}
	return false
}

// outputs reads the logs in a run's outputs.
type outputs struct {
	root *os.Root
	// binary are the first files that were left out because they aren't text, and binaries counts them all; unreadable is why
	// the first of those that can't be read can't.
	binary     []string
	binaries   int
	unreadable string
	lost       int
}

// walk calls each for the path of every log, in order. Links aren't followed, and what vanishes meanwhile isn't there.
func (o *outputs) walk(each func(name string, size int64) error) error {
	if o.root == nil {
		return nil
	}
	return fs.WalkDir(o.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			o.cannot(name, err)
			if entry != nil && entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || !isLog(name) || strings.Count(name, "/") < 2 {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		return each(name, info.Size())
	})
}

// cannot notes that something can't be read.
func (o *outputs) cannot(name string, err error) {
	if o.lost++; o.lost == 1 {
		o.unreadable = fmt.Sprintf("%s: %v", name, err)
	}
}

// read calls each for every line of every log behind from, and with the position behind the line. What each gets holds
// until it returns.
func (o *outputs) read(ctx context.Context, w *writer, from position, each func(document, position) error) error {
	reader := bufio.NewReaderSize(nil, 256<<10)
	text := make([]byte, 0, 64<<10)
	return o.walk(func(name string, _ int64) error {
		start := position{File: name}
		switch order := inOrder(name, from.File); {
		case order < 0:
			return nil
		case order == 0:
			start = from
		}
		parts := strings.SplitN(name, "/", 3)
		instance, err := strconv.Atoi(parts[1])
		if err != nil {
			return nil // nobody's outputs
		}
		file, size, err := o.open(name)
		if err != nil || file == nil {
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				o.cannot(name, err)
			}
			return nil
		}
		defer file.Close()
		if _, err := file.Seek(start.Offset, io.SeekStart); err != nil {
			o.cannot(name, err)
			return nil
		}
		// What is written behind the end while it is read belongs to nobody's stage.
		reader.Reset(io.LimitReader(file, size-start.Offset))
		from := w.origin(parts[0], instance, parts[2])
		from.last = start.Last
		at := start
		for {
			l := line{offset: at.Offset, number: at.Line + 1}
			var ended bool
			l.text, l.length, ended, err = readLine(reader, text[:0])
			text = l.text
			if err != nil {
				o.cannot(name, err)
				return nil
			}
			if l.length == 0 && !ended {
				return nil
			}
			at.Offset, at.Line = at.Offset+l.length, l.number
			if ended {
				at.Offset++
			}
			l.text, l.length = withoutReturn(l.text, l.length)
			d := w.log(from, l)
			at.Last = from.last
			if err := each(d, at); err != nil {
				return err
			}
			if l.number%1024 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	})
}

// open opens a log; nil for one that isn't text.
func (o *outputs) open(name string) (*os.File, int64, error) {
	file, err := o.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no file any more")
	}
	head := make([]byte, min(sniffed, info.Size()))
	if err == nil {
		_, err = io.ReadFull(io.NewSectionReader(file, 0, int64(len(head))), head)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	if !isText(head) {
		if o.binaries++; len(o.binary) < 3 {
			o.binary = append(o.binary, name)
		}
		return nil, 0, file.Close()
	}
	return file, info.Size(), nil
}

// isText says whether a file that begins so is text: at most a tenth of it is what text doesn't hold. A log that was cut by
// a crash may have a few such bytes.
func isText(head []byte) bool {
	strange := 0
	for rest := head; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1 && len(rest) >= utf8.UTFMax:
			strange++
		case r < ' ' && !slices.Contains([]rune("\t\n\r\f\b\x1b"), r):
			strange++
		}
		rest = rest[size:]
	}
	return strange*10 <= len(head)
}

// readLine reads to the next line's end, which isn't part of what it returns; ended says whether there was one. It keeps
// mostLine bytes in text, and counts all.
func readLine(reader *bufio.Reader, text []byte) (kept []byte, length int64, ended bool, err error) {
	for {
		part, err := reader.ReadSlice('\n')
		if n := len(part); n > 0 && part[n-1] == '\n' {
			part, ended = part[:n-1], true
		}
		length += int64(len(part))
		text = append(text, part[:min(len(part), mostLine-len(text))]...)
		switch {
		case ended || errors.Is(err, io.EOF):
			return text, length, ended, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return text, length, false, err
		}
	}
}

// withoutReturn takes the carriage return from the end of a line.
func withoutReturn(text []byte, length int64) ([]byte, int64) {
	if n := len(text); n > 0 && int64(n) == length && text[n-1] == '\r' {
		return text[:n-1], length - 1
	}
	return text, length
}
