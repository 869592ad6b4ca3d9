//go:build linux

package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/keeper/outcome"
)

// logs is what a member wrote in its last start. It is the plan's own: whatever stands there instead of a plain file is
// not looked at.
type logs struct {
	root    *os.Root
	started Started
}

// logs opens what the member wrote. Whoever asks closes it.
func (m *member) openLogs() (logs, error) {
	m.stage.mu.Lock()
	started := m.logs
	m.stage.mu.Unlock()
	root, err := m.stage.keeper.programs.Outputs(m.place.slot)
	if err != nil {
		return logs{}, fmt.Errorf("reading its output: %w", err)
	}
	return logs{root, started}, nil
}

func (l logs) close() error { return l.root.Close() }

// part opens the last start's part of a log. It is nil where the plan has removed the log, or put something else there.
func (l logs) part(name string, from int64) (*os.File, *io.SectionReader, error) {
	file, err := l.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // else a pipe would hold up whoever opens it
	if err != nil && l.replaced(name) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading its output: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		return nil, nil, file.Close()
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("reading its output: %w", err), file.Close())
	}
	return file, io.NewSectionReader(file, from, max(0, info.Size()-from)), nil
}

// replaced says whether a log isn't there, or is something else than a plain file.
func (l logs) replaced(name string) bool {
	info, err := l.root.Lstat(name)
	return errors.Is(err, os.ErrNotExist) || err == nil && !info.Mode().IsRegular()
}

// report reads what the member said about its outcome on stdout.
func (l logs) report() (outcome.Report, error) {
	file, stdout, err := l.part("stdout.log", l.started.Stdout)
	if file == nil {
		return outcome.Report{}, err
	}
	defer file.Close()
	return outcome.Scan(stdout)
}

// panicked reads what a Go program said on stderr before it gave up.
func (l logs) panicked() (string, error) {
	file, stderr, err := l.part("stderr.log", l.started.Stderr)
	if file == nil {
		return "", err
	}
	defer file.Close()
	return outcome.Panic(stderr)
}

// lastLines are those of stderr, or of stdout where stderr is empty; of a panic, its first ones.
func (l logs) lastLines(panicked bool) ([]string, error) {
	for _, log := range []struct {
		name string
		from int64
	}{{"stderr.log", l.started.Stderr}, {"stdout.log", l.started.Stdout}} {
		file, written, err := l.part(log.name, log.from)
		if err != nil {
			return nil, err
		}
		if file == nil {
			continue
		}
		var lines []string
		if panicked && log.name == "stderr.log" {
			lines, err = outcome.PanicLines(io.NewSectionReader(written, 0, written.Size()))
		}
		if err == nil && len(lines) == 0 {
			lines, err = outcome.LastLines(written, 0, written.Size())
		}
		if err := errors.Join(err, file.Close()); err != nil || len(lines) > 0 {
			return lines, err
		}
	}
	return nil, nil
}

// link gives the logs the names of the contract where the plan wrote none of its own.
func (l logs) link() error {
	for log, name := range map[string]string{"stdout.log": "run.out", "stderr.log": "run.err"} {
		err := l.root.Link(log, name)
		if err != nil && !errors.Is(err, os.ErrExist) && !l.replaced(log) {
			return fmt.Errorf("naming its %s %s: %w", log, name, err)
		}
	}
	return nil
}
