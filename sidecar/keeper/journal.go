//go:build linux

package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// journal is a file of JSON documents, one per line, that only grows.
type journal struct {
	mu   sync.Mutex
	file *os.File
}

// openJournal opens a journal. A line that a killed writer left half done is ended, so that the next one stands alone.
func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening a journal: %w", err)
	}
	if err := endLine(file); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the journal %s: %w", path, err), file.Close())
	}
	return &journal{file: file}, nil
}

func endLine(file *os.File) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := file.ReadAt(last, size-1); err != nil {
		return err
	}
	if last[0] != '\n' {
		_, err = file.Write([]byte{'\n'})
	}
	return err
}

// write appends one document.
func (j *journal) write(document any) error {
	line, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encoding a line of %s: %w", j.file.Name(), err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing a line of %s: %w", j.file.Name(), err)
	}
	return nil
}

func (j *journal) close() error { return j.file.Close() }
