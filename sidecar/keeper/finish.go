//go:build linux

package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/events"
	"github.com/groundplan/groundplan/sidecar/keeper/outcome"
	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
)

const (
	// finishers is how many outcomes of a stage are worked out at a time: their output is read for that.
	finishers = 4
	// clearing is how long what is left of a stage may take to die.
	clearing = 10 * time.Second
)

// finish works out what became of a member whose process has ended.
func (m *member) finish(exit reaper.Exit, ended time.Time) {
	m.stage.closing <- struct{}{}
	defer func() { <-m.stage.closing }()
	s := m.stage
	s.mu.Lock()
	report, end := m.report, endOf(exit.Status, m.cut, m.fall)
	started := m.started
	s.mu.Unlock()

	said, err := m.reported()
	report.Add(said)
	if err == nil && !report.Failure && !report.Crash && end.Exit == 2 {
		end.Panic, err = m.panicked()
	}
	result := m.result(started, ended)
	result.Exit, result.Signal = end.Exit, end.Signal
	result.Outcome, result.Reason = outcome.Judge(m.group.Outcome, report, end)
	result.PeakMemory = max(m.before.peak, peak(m.seen.Load(), exit.Usage.Maxrss<<10, m.parent))
	result.CPU = m.before.cpu + seconds(exit.Usage.Utime) + seconds(exit.Usage.Stime)
	if s.lies(m, &result, end.Event != "" && !outcome.Decided(m.group.Outcome, report)) {
		return
	}
	if err == nil && result.Outcome != control.OutcomeSucceeded {
		result.LastLines, err = m.lastLines()
	}
	err = errors.Join(err, m.copyLogs())
	s.conclude(m, result, err)
}

// unstarted works out what became of a member that never ran.
func (m *member) unstarted(why error) {
	now := time.Now()
	result := m.result(now, now)
	result.Outcome, result.Exit = control.OutcomeFailed, -1
	result.Reason = "could not be started: " + why.Error()
	if m.startsNow() > 1 {
		result.Reason = "could not be started again: " + why.Error()
	}
	if errors.Is(why, errStopped) {
		result.Reason = "not started yet when the stage was ended"
		m.stage.mu.Lock()
		m.cut, m.atEnd = result.Reason, true
		m.stage.mu.Unlock()
	}
	m.stage.conclude(m, result, nil)
}

func (m *member) result(started, ended time.Time) control.Instance {
	p := m.place
	m.stage.mu.Lock()
	starts := m.starts
	m.stage.mu.Unlock()
	if starts == 1 {
		starts = 0 // nothing to tell of
	}
	return control.Instance{
		Starts: starts,
		Group:  m.group.Name, Index: p.index, Stage: m.stage.ask.Stage, Attempt: m.stage.key,
		Host: p.host, Control: p.control.String(), Data: p.data.String(), Started: started, Ended: ended,
	}
}

// endOf translates how a process ended. Being killed for a reason, or by an event, counts only where that kill is what
// ended it, and the first of the two counts.
func endOf(status unix.WaitStatus, cut string, fall *fall) outcome.End {
	if !status.Signaled() {
		return outcome.End{Exit: status.ExitStatus()}
	}
	end := outcome.End{Exit: -1, Signal: unix.SignalName(status.Signal())}
	if end.Signal == "" {
		end.Signal = fmt.Sprintf("signal %d", int(status.Signal()))
	}
	switch {
	case status.Signal() != unix.SIGKILL:
	case fall != nil:
		end.Event = events.Title(fall.event)
	default:
		end.Cut = cut
	}
	return end
}

func seconds(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// part opens this stage's part of a log.
func part(path string, from int64) (*os.File, *io.SectionReader, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading its output: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("reading its output: %w", err), file.Close())
	}
	return file, io.NewSectionReader(file, from, max(0, info.Size()-from)), nil
}

// reported reads what the member said about its outcome on stdout.
func (m *member) reported() (outcome.Report, error) {
	file, stdout, err := part(m.output("stdout.log"), m.logs.stdout)
	if errors.Is(err, os.ErrNotExist) {
		return outcome.Report{}, nil // the plan has removed it
	}
	if err != nil {
		return outcome.Report{}, err
	}
	defer file.Close()
	return outcome.Scan(stdout)
}

// panicked reads what a Go program said on stderr before it gave up.
func (m *member) panicked() (string, error) {
	file, stderr, err := part(m.output("stderr.log"), m.logs.stderr)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer file.Close()
	return outcome.Panic(stderr)
}

// lastLines are those of stderr, or of stdout where stderr is empty.
func (m *member) lastLines() ([]string, error) {
	for _, log := range []struct {
		name string
		from int64
	}{{"stderr.log", m.logs.stderr}, {"stdout.log", m.logs.stdout}} {
		file, written, err := part(m.output(log.name), log.from)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lines, err := outcome.LastLines(written, 0, written.Size())
		if err := errors.Join(err, file.Close()); err != nil || len(lines) > 0 {
			return lines, err
		}
	}
	return nil, nil
}

// copyLogs gives the logs the names of the contract where the plan wrote none of its own.
func (m *member) copyLogs() error {
	for log, name := range map[string]string{"stdout.log": "run.out", "stderr.log": "run.err"} {
		err := os.Link(m.output(log), m.output(name))
		if err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("naming its %s %s: %w", log, name, err)
		}
	}
	return nil
}

// conclude counts a member's outcome and keeps it. failed is what of working it out did not succeed.
func (s *stage) conclude(m *member, result control.Instance, failed error) {
	if err := errors.Join(failed, s.results.write(result)); err != nil {
		s.fault(fmt.Errorf("keeping what became of %s: %w", m.place.name, err))
	}
	s.mu.Lock()
	tell := s.concludeLocked(m, result)
	last := s.left == 0
	s.mu.Unlock()
	if tell {
		s.keeper.tell("instance-failed", s.ask.Stage, m.place.name+": "+result.Reason)
	}
	if last {
		close(s.finished)
	}
}

// concludeLocked returns whether the event log is to tell of the outcome.
func (s *stage) concludeLocked(m *member, result control.Instance) bool {
	if m.grace != nil {
		m.grace.Stop()
	}
	s.count(m, func(c *control.Counts) {
		if m.running {
			c.Running--
		}
		switch result.Outcome {
		case control.OutcomeSucceeded:
			c.Succeeded++
		case control.OutcomeFailed:
			c.Failed++
		case control.OutcomeCrashed:
			c.Crashed++
		case control.OutcomeSilent:
			c.Silent++
		case control.OutcomeKilled:
			c.Killed++
		}
	})
	m.running, m.ended, m.outcome = false, true, result.Outcome
	s.left--
	defer s.changedLocked()
	if result.Outcome == control.OutcomeSucceeded || result.Outcome == control.OutcomeKilled {
		return false
	}
	if m.atEnd && result.Reason == m.cut {
		s.now.Unfinished++
	}
	return s.failedLocked(m, result)
}

// failedLocked notes a member that did not succeed.
func (s *stage) failedLocked(m *member, result control.Instance) bool {
	if s.now.FirstFailure == nil {
		s.now.FirstFailure = &result
	}
	if len(s.now.Failing) < mostFailing {
		s.now.Failing = append(s.now.Failing, m.place.name)
	}
	failures := 0
	for _, c := range s.now.Groups {
		failures += c.Failed + c.Crashed + c.Silent
	}
	if s.ask.FailFast && failures > s.ask.MaxFailures {
		s.stopLocked(causeFailedFast)
	}
	s.told++
	return s.told <= mostTold
}

// clear sees to it that nothing of the stage runs any more, whatever its processes have become, and that every member
// has an outcome.
func (s *stage) clear() error {
	left, err := s.keeper.procs.clear(s.keeper.namespaces(s.members), clearing)
	if err == nil && left > 0 {
		err = fmt.Errorf("%d processes of stage %s can't be killed", left, s.ask.Stage)
	}
	if err != nil {
		return err
	}
	select {
	case <-s.finished:
		return nil
	case <-time.After(clearing):
		return fmt.Errorf("stage %s has no processes left but some of its instances have no outcome", s.ask.Stage)
	}
}
