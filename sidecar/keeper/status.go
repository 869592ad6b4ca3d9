//go:build linux

package keeper

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/groundplan/groundplan/sidecar/control"
)

// count changes the counts of a member's group. The caller holds mu, or nobody else knows the stage yet.
func (s *stage) count(m *member, change func(*control.Counts)) {
	counts := s.now.Groups[m.group.Name]
	change(&counts)
	s.now.Groups[m.group.Name] = counts
}

// count adds what the instance does now to the counts of its group.
func (m *member) count(counts *control.Counts) {
	if m == nil {
		return
	}
	m.stage.mu.Lock()
	defer m.stage.mu.Unlock()
	if m.running {
		counts.Running++
	}
}

// changedLocked wakes whoever waits for a change.
func (s *stage) changedLocked() {
	s.now.Version++
	close(s.changed)
	s.changed = make(chan struct{})
}

// status is how the stage stands.
func (s *stage) status() control.RunStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statusLocked()
}

func (s *stage) statusLocked() control.RunStatus {
	now := s.now
	now.Groups = maps.Clone(s.now.Groups)
	now.Failing, now.Missed = slices.Clone(s.now.Failing), slices.Clone(s.now.Missed)
	return now
}

// wait returns the status once it is newer than since, the stage is over, or so much time has passed.
func (s *stage) wait(ctx context.Context, since int64, atMost time.Duration) (control.RunStatus, error) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	for {
		s.mu.Lock()
		status, changed := s.statusLocked(), s.changed
		s.mu.Unlock()
		switch {
		case status.Done || atMost <= 0 || status.Version > since && since <= 0:
			return status, nil
		case status.Version > since:
			s.settle(ctx)
			return s.status(), nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return s.status(), nil
		case <-ctx.Done():
			return status, ctx.Err()
		}
	}
}

// settle waits for changes to gather, or for the end.
func (s *stage) settle(ctx context.Context) {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.over:
	case <-ctx.Done():
	}
}

// summary says in one sentence how the stage ended.
func (s *stage) summary() string {
	var all control.Counts
	for _, c := range s.now.Groups {
		all.Succeeded += c.Succeeded
		all.Failed += c.Failed + c.Crashed + c.Silent
		all.Killed += c.Killed
	}
	where := ""
	if s.spread() {
		where = " on node " + s.node.Name
	}
	text := fmt.Sprintf("the gate of stage %s has closed%s: %d succeeded, %d did not", s.ask.Stage, where, all.Succeeded, all.Failed)
	if all.Killed > 0 {
		text += fmt.Sprintf(", %d were killed by events", all.Killed)
	}
	if s.now.Unfinished > 0 {
		text += fmt.Sprintf("; %d were %s", s.now.Unfinished, s.cause.reason())
	}
	return text
}
