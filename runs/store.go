package runs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/groundplan/groundplan/pipelines"
)

// ErrNoRecord says that a run has no record: it never was, or its folder is gone.
var ErrNoRecord = errors.New("no record of this run")

var validID = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,63}$`)

// CheckID says why id can't name a run; nil when it can. An id is the name of a folder, so `.` and `..` are refused.
func CheckID(id string) error {
	if !validID.MatchString(id) || id == "." || id == ".." {
		return fmt.Errorf("%q can't name a run: use 1 to 63 of the characters a-z A-Z 0-9 . _ -", id)
	}
	return nil
}

// WriteRecord replaces the run's record. A reader sees the old one or the new one, never a part.
func (f Folder) WriteRecord(r Record) error {
	return WriteJSON(f.Record(), r)
}

// ReadRecord reads the run's record; errors.Is(err, ErrNoRecord) when there is none.
func (f Folder) ReadRecord() (Record, error) {
	var r Record
	err := ReadJSON(f.Record(), &r)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%w: %s", ErrNoRecord, filepath.Base(string(f)))
	}
	return r, err
}

// WritePipeline writes the resolved pipeline of the run.
func (f Folder) WritePipeline(p pipelines.Resolved) error {
	return WriteJSON(f.Pipeline(), p)
}

// ReadPipeline reads the resolved pipeline of the run.
func (f Folder) ReadPipeline() (pipelines.Resolved, error) {
	var p pipelines.Resolved
	return p, ReadJSON(f.Pipeline(), &p)
}

// AppendEvent adds one line to the run's event log. Several processes may do so at once: a line is one write to a file
// opened for appending, so that lines never mix.
func (f Folder) AppendEvent(e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	if err := os.MkdirAll(string(f), 0o755); err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	file, err := os.OpenFile(f.Events(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	_, err = file.Write(append(line, '\n'))
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	return nil
}

// ReadEvents reads the run's event log in order; none when nothing has happened yet. A line that was cut by a crash is
// left out.
func (f Folder) ReadEvents() ([]Event, error) {
	file, err := os.Open(f.Events())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the events: %w", err)
	}
	defer file.Close()
	var events []Event
	for reader := bufio.NewReader(file); ; {
		line, err := reader.ReadBytes('\n')
		var e Event
		if len(line) > 0 && json.Unmarshal(line, &e) == nil {
			events = append(events, e)
		}
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return events, fmt.Errorf("reading the events: %w", err)
		}
	}
}

// List reads the records of all runs, the newest first. A run whose record can't be read is left out of the list, and
// named in the error beside it; one that has none, because it is just being started, is only left out.
func (h Home) List() ([]Record, error) {
	entries, err := os.ReadDir(filepath.Join(string(h), "runs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the runs: %w", err)
	}
	var records []Record
	var faults []error
	for _, entry := range entries {
		if !entry.IsDir() || CheckID(entry.Name()) != nil {
			continue
		}
		r, err := h.Run(entry.Name()).ReadRecord()
		if errors.Is(err, ErrNoRecord) {
			continue
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		records = append(records, r)
	}
	slices.SortStableFunc(records, func(a, b Record) int { return b.Started.Compare(a.Started) })
	return records, errors.Join(faults...)
}

// OpenRegular opens a regular file; one that is none is fs.ErrNotExist. An instance may have put anything in its place: a pipe would be waited for forever.
func OpenRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file: %w", path, fs.ErrNotExist)
	}
	return os.Open(path)
}

// WriteJSON writes v, indented, to path: complete or not at all, whatever happens to the process or the machine.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := WriteWhole(path, append(data, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// WriteWhole writes a file complete or not at all: it writes beside path and renames. The name beside it is always another one, so that two writers don't share
// it; what a killed writer left there is hidden and small.
func WriteWhole(path string, data []byte) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(folder, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close())
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
