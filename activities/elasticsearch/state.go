package elasticsearch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/groundplan/groundplan/runs"
)

// state is what is known of a push, in the run's folder: how far it has come, so that the next try goes on there.
type state struct {
	// Server and Index are where it goes; Identity tells whether the index is still the one that was filled (see target).
	Server   string `json:"server"`
	Index    string `json:"index"`
	Identity string `json:"identity"`
	// Of tells which state of the outputs it is about: the run stages' newest attempts.
	Of string `json:"of"`
	// At is how far the logs have been taken, and Logs says that all of them have.
	At   position `json:"at"`
	Logs bool     `json:"logs"`
	// Done says that everything has been taken or refused.
	Done bool `json:"done"`
	// Documents and Bytes count what was taken of the logs, refused ones counted in.
	Documents int64 `json:"documents"`
	Bytes     int64 `json:"bytes"`
	// Refused counts the documents in the file of refused ones, whose first RefusedBytes bytes are right: what stands behind
	// them is of a try that did not come to noting it. Below 0: all of it is right.
	Refused      int64  `json:"refused"`
	RefusedBytes int64  `json:"refusedBytes"`
	FirstRefusal string `json:"firstRefusal,omitempty"`
}

// readState is the state of a push to this place, of these outputs; otherwise a new one, and the documents that another
// place refused are forgotten.
func readState(folder runs.Folder, server, index, of string) (state, error) {
	fresh := state{Server: server, Index: index, Of: of}
	var s state
	err := runs.ReadJSON(folder.Push(index), &s)
	if err != nil || s.Server != server {
		// A file that can't be read is as good as none: ids make the push right.
		if err := os.Remove(folder.Refused(index)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fresh, fmt.Errorf("removing what another server refused: %w", err)
		}
		return fresh, nil
	}
	if s.Of != of {
		s.rewind()
		s.Of = of
	}
	return s, nil
}

// rewind goes back to the first line. What was refused stays: it is tried again anyway.
func (s *state) rewind() { s.At, s.Logs, s.Done, s.Documents, s.Bytes = position{}, false, false, 0, 0 }

// refusals is the file of refused documents.
type refusals struct {
	path string
	file *os.File
}

// refusedDocument is one line of it.
type refusedDocument struct {
	ID     string `json:"id"`
	Op     string `json:"op"`
	Status int    `json:"status"`
	Reason string `json:"reason"`
	// Document is what was sent.
	Document rawText `json:"document"`
}

// rawText is JSON that stands in JSON as it is.
type rawText []byte

// MarshalJSON returns it.
func (r rawText) MarshalJSON() ([]byte, error) { return r, nil }

// UnmarshalJSON keeps it.
func (r *rawText) UnmarshalJSON(data []byte) error {
	*r = append((*r)[:0], data...)
	return nil
}

// open opens the file to write behind its first size bytes; all of it where size is below 0.
func (r *refusals) open(size int64) error {
	if err := os.MkdirAll(filepath.Dir(r.path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	r.file = file
	if size >= 0 {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if info.Size() > size {
			if err := file.Truncate(size); err != nil {
				return err
			}
		}
	}
	_, err = file.Seek(0, 2)
	return err
}

// add appends lines.
func (r *refusals) add(lines []byte) error {
	_, err := r.file.Write(lines)
	return err
}

// close closes the file, and removes it where nothing stands in it.
func (r *refusals) close() error {
	if r.file == nil {
		return nil
	}
	info, err := r.file.Stat()
	err = errors.Join(err, r.file.Close())
	r.file = nil
	if err == nil && info.Size() == 0 {
		return os.Remove(r.path)
	}
	return err
}
