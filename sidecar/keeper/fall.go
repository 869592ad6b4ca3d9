//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/events"
	"github.com/groundplan/groundplan/sidecar/keeper/outcome"
)

// fall is a member's being killed by an event.
type fall struct {
	event string
	// again says that it is to be started again. down is closed once what its process left has been looked at: either it
	// waits to be started, or it had reported how it ends and is over.
	again bool
	down  chan struct{}
}

func newFall(e pipelines.Event) *fall {
	return &fall{event: e.Name, again: e.Restart > 0, down: make(chan struct{})}
}

// fell kills every process of members.
func (s *stage) fell(e pipelines.Event, members []*member) error {
	s.mu.Lock()
	for _, m := range members {
		if m.standsLocked() {
			m.fall = newFall(e)
		}
	}
	s.mu.Unlock()
	for _, m := range members {
		m.signal(unix.SIGKILL)
	}
	if len(members) == 0 {
		return nil
	}
	left, err := s.keeper.clearAll(s.ctx, members)
	if err == nil && left > 0 {
		err = fmt.Errorf("%s can't be killed", plural(left, "process", "processes"))
	}
	return err
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// lies keeps a member that an event has killed from being over, since it will be started again. It returns false where
// that won't be: it has reported how it ends, or the stage is to end.
func (s *stage) lies(m *member, result *control.Instance, waits bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.fall == nil {
		return false
	}
	defer close(m.fall.down)
	if !m.fall.again || !waits {
		return false
	}
	if s.cause != causeNone {
		m.leaveLocked(result)
		return false
	}
	m.running, m.down = false, result
	s.count(m, func(c *control.Counts) { c.Running-- })
	s.changedLocked()
	return true
}

// leaveLocked says of a member that it will not be started again.
func (m *member) leaveLocked(result *control.Instance) {
	m.cut = "killed by " + events.Title(m.fall.event) + notAgain
	m.atEnd = true
	result.Outcome, result.Reason = control.OutcomeFailed, m.cut
}

// raise starts again what an event has killed, several at a time.
func (s *stage) raise(ctx context.Context, members []*member) error {
	around := s.surroundings()
	failed := make(chan error, len(members))
	next := make(chan *member)
	go func() {
		defer close(next)
		for _, m := range members {
			next <- m
		}
	}()
	for range min(starters, len(members)) {
		go func() {
			for m := range next {
				failed <- m.raise(ctx, around[m.group.Name])
			}
		}()
	}
	var all []error
	for range members {
		all = append(all, <-failed)
	}
	return errors.Join(all...)
}

// raise starts the member again in its place, on the network that it began with.
func (m *member) raise(ctx context.Context, around surroundings) error {
	s := m.stage
	s.mu.Lock()
	fall := m.fall
	s.mu.Unlock()
	if fall == nil {
		return nil
	}
	select {
	case <-fall.down:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !s.rises(m) {
		return nil
	}
	if err := m.restore(ctx); err != nil {
		m.unstarted(err)
		return fmt.Errorf("starting %s again: %w", m.place.name, err)
	}
	if err := m.start(around, false); err != nil {
		m.unstarted(err)
	}
	return nil
}

// rises says whether the member still waits to be started again, and makes it ready.
func (s *stage) rises(m *member) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.down == nil || s.cause != causeNone {
		return false
	}
	m.before = used{peak: m.down.PeakMemory, cpu: m.down.CPU}
	m.down, m.fall, m.report, m.paused = nil, nil, outcome.Report{}, false
	m.entered = make(chan struct{})
	return true
}

// leaveAll makes an end of the members that wait to be started again when the stage is to end.
func (s *stage) leaveAll() {
	for _, m := range s.members {
		s.mu.Lock()
		down := m.down
		if down != nil {
			m.down = nil
			m.leaveLocked(down)
		}
		s.mu.Unlock()
		if down != nil {
			s.conclude(m, *down, nil)
		}
	}
}
