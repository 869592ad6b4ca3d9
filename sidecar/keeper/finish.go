//go:build linux

package keeper

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/events"
	"github.com/groundplan/groundplan/sidecar/keeper/outcome"
)

const (
	// finishers is how many outcomes of a stage are worked out at a time: their output is read for that.
	finishers = 4
	// clearing is how long what is left of a stage may take to die.
	clearing = 10 * time.Second
	// What is said of members whose stage is ended before they were started, or started again.
	notStarted = "not started yet when the stage was ended"
	notAgain   = ", and not started again yet when the stage ended"
)

// finish works out what became of a member whose process has ended.
func (m *member) finish(exit Exit) {
	m.stage.closing <- struct{}{}
	defer func() { <-m.stage.closing }()
	s := m.stage
	if exit.Lost != "" {
		s.lose(m, exit.Lost)
		return
	}
	s.mu.Lock()
	report, end := m.report, endOf(exit.Status, m.cut, m.fall)
	started := m.started
	s.mu.Unlock()

	result := m.result(started, exit.At)
	result.Exit, result.Signal = end.Exit, end.Signal
	result.PeakMemory, result.CPU = max(m.before.peak, exit.PeakMemory), m.before.cpu+exit.CPU
	written, err := m.openLogs()
	if err != nil {
		result.Outcome, result.Reason = outcome.Judge(m.group.Outcome, report, end)
		s.conclude(m, result, err)
		return
	}
	defer written.close()
	said, err := written.report()
	report.Add(said)
	if err == nil && !report.Failure && !report.Crash && (end.Exit == 2 || end.Signal == "SIGABRT") {
		end.Panic, err = written.panicked()
	}
	result.Outcome, result.Reason = outcome.Judge(m.group.Outcome, report, end)
	if s.lies(m, &result, end.Event != "" && !outcome.Decided(m.group.Outcome, report)) {
		return
	}
	if err == nil && result.Outcome != control.OutcomeSucceeded {
		result.LastLines, err = written.lastLines(end.Panic != "" || report.Crash)
	}
	s.conclude(m, result, errors.Join(err, written.link()))
}

// unstarted works out what became of a member that never ran.
func (m *member) unstarted(why error) {
	if lost := new(Lost); errors.As(why, &lost) {
		m.stage.lose(m, lost.Why)
		return
	}
	now := time.Now()
	result := m.result(now, now)
	result.Outcome, result.Exit = control.OutcomeFailed, -1
	result.Reason = "could not be started: " + why.Error()
	if starts, _ := m.next(); starts > 1 {
		result.Reason = "could not be started again: " + why.Error()
	}
	if errors.Is(why, errStopped) {
		result.Reason = notStarted
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

// conclude counts a member's outcome and keeps it. failed is what of working it out did not succeed.
func (s *stage) conclude(m *member, result control.Instance, failed error) {
	if err := errors.Join(failed, s.results.write(result)); err != nil {
		s.fault(fmt.Errorf("keeping what became of %s: %w", m.place.name, err))
	}
	s.mu.Lock()
	if s.concludeLocked(m, result) { // told before anybody knows that the stage is over
		s.keeper.tell("instance-failed", s.ask.Stage, m.place.name+": "+result.Reason)
	}
	last := s.left == 0
	s.mu.Unlock()
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

// there are the members that are not lost.
func (s *stage) there() []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.members), func(m *member) bool { return m.lost })
}

// clear sees to it that nothing of the stage runs any more, whatever its processes have become, and that every member
// has an outcome.
func (s *stage) clear() error {
	left, err := s.keeper.clearAll(s.ctx, s.there())
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
