// Package logs reads what the instances of a run wrote to stdout and stderr, once or as it comes.
package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundplan/groundplan/runs"
)

// Selection names instances: all, those of a group, or one.
type Selection struct {
	Group string // empty: all groups
	Index int    // -1: all of the group
}

// All selects every instance.
var All = Selection{Index: -1}

// Select reads `group` or `group/index`.
func Select(text string) (Selection, error) {
	group, index, one := strings.Cut(text, "/")
	if group == "" || strings.ContainsAny(group, `\.`) {
		return Selection{}, fmt.Errorf("%q names no instances: write GROUP or GROUP/INDEX, such as eu/3", text)
	}
	if !one {
		return Selection{Group: group, Index: -1}, nil
	}
	n, err := strconv.Atoi(index)
	if err != nil || n < 0 || strconv.Itoa(n) != index {
		return Selection{}, fmt.Errorf("%q names no instance: the index behind the slash is a number from 0", text)
	}
	return Selection{Group: group, Index: n}, nil
}

// Line is one line that an instance wrote.
type Line struct {
	Group  string `json:"group"`
	Index  int    `json:"index"`
	Stream string `json:"stream"`
	Text   string `json:"line"`
}

// Options say what is read and how.
type Options struct {
	Stderr bool
	// Ended, when not nil, says that the run has ended; until then what comes is read on, every Every.
	Ended func() bool
	Every time.Duration
}

// maxLine is where a line without an end is broken, in bytes.
const maxLine = 1 << 20

// NobodyError says which group or instance of a selection the run doesn't have.
type NobodyError struct{ text string }

func (e *NobodyError) Error() string { return e.text }

// Read hands every line of the selected instances of a run to take: instance by instance what is there, then as it
// comes. A selection that fits no instance is an error once it is clear that there won't be one.
func Read(ctx context.Context, folder runs.Folder, s Selection, o Options, take func(Line) error) error {
	r := &reader{folder: folder, selection: s, stderr: o.Stderr, take: take, tails: map[instance]*tail{}}
	for {
		// Asked before reading, so that what was written until the end is read.
		last := o.Ended == nil || o.Ended()
		if err := r.pass(); err != nil {
			return err
		}
		if last {
			return r.finish()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(o.Every):
		}
	}
}

type instance struct {
	group string
	index int
}

// tail is how far an instance's file has been read.
type tail struct {
	offset  int64
	partial []byte // a line whose end hasn't come
}

type reader struct {
	folder    runs.Folder
	selection Selection
	stderr    bool
	take      func(Line) error
	tails     map[instance]*tail
}

// pass reads what is new of each instance there is.
func (r *reader) pass() error {
	found, err := r.instances()
	if err != nil {
		return err
	}
	for _, i := range found {
		if r.tails[i] == nil {
			r.tails[i] = &tail{}
		}
		if err := r.read(i, r.tails[i]); err != nil {
			return err
		}
	}
	return nil
}

// finish gives out lines that never got their end, and says so where nothing fitted the selection.
func (r *reader) finish() error {
	if len(r.tails) == 0 {
		return r.nothing()
	}
	found, err := r.instances()
	if err != nil {
		return err
	}
	for _, i := range found {
		if t := r.tails[i]; t != nil && len(t.partial) > 0 {
			if err := r.give(i, t.partial); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) nothing() error {
	groups, err := names(r.root())
	switch {
	case err != nil:
		return err
	case len(groups) == 0:
		return fmt.Errorf("%s holds no outputs: no instance was placed, or they were removed", r.folder)
	case r.selection.Index >= 0 && slices.Contains(groups, r.selection.Group):
		return &NobodyError{fmt.Sprintf("group %s has no instance %d", r.selection.Group, r.selection.Index)}
	}
	return &NobodyError{fmt.Sprintf("the run has no group %q; it has %s", r.selection.Group, strings.Join(groups, ", "))}
}

func (r *reader) root() string { return filepath.Join(string(r.folder), "outputs") }

// instances lists those that fit the selection and have a folder, in order.
func (r *reader) instances() ([]instance, error) {
	groups, err := names(r.root())
	if err != nil {
		return nil, err
	}
	var found []instance
	for _, group := range groups {
		if r.selection.Group != "" && r.selection.Group != group {
			continue
		}
		folders, err := names(filepath.Join(r.root(), group))
		if err != nil {
			return nil, err
		}
		var indices []int
		for _, name := range folders {
			if n, err := strconv.Atoi(name); err == nil && (r.selection.Index < 0 || r.selection.Index == n) {
				indices = append(indices, n)
			}
		}
		slices.Sort(indices)
		for _, n := range indices {
			found = append(found, instance{group, n})
		}
	}
	return found, nil
}

// names are the folders in a folder, sorted; none when it doesn't exist.
func names(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing outputs: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

func (r *reader) read(i instance, t *tail) error {
	name := "stdout.log"
	if r.stderr {
		name = "stderr.log"
	}
	file, err := os.Open(filepath.Join(r.folder.Outputs(i.group, i.index), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not started yet
	}
	if err != nil {
		return fmt.Errorf("reading what %s/%d wrote: %w", i.group, i.index, err)
	}
	defer file.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := file.ReadAt(buf, t.offset)
		t.offset += int64(n)
		if fault := r.split(i, t, buf[:n]); fault != nil {
			return fault
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading what %s/%d wrote: %w", i.group, i.index, err)
		}
	}
}

func (r *reader) split(i instance, t *tail, data []byte) error {
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			t.partial = append(t.partial, data...)
			if len(t.partial) < maxLine {
				return nil
			}
			end, data = 0, []byte{'\n'}
		}
		text := append(t.partial, data[:end]...)
		t.partial, data = nil, data[end+1:]
		if err := r.give(i, text); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) give(i instance, text []byte) error {
	stream := "stdout"
	if r.stderr {
		stream = "stderr"
	}
	return r.take(Line{Group: i.group, Index: i.index, Stream: stream, Text: strings.TrimSuffix(string(text), "\r")})
}
