//go:build linux

package keeper

import (
	"fmt"
	"strings"

	"github.com/groundplan/groundplan/sidecar/control"
)

// lose counts a member of whose end nobody knows. The stage can't come to a result without it, so it ends; and the
// instance has to be placed anew.
func (s *stage) lose(m *member, why string) {
	k := s.keeper
	k.mu.Lock()
	m.place.placed = false
	k.mu.Unlock()
	s.mu.Lock()
	s.stopLocked(causeFault)
	last := s.loseLocked(m, why)
	if s.now.Lost <= mostTold { // told before anybody knows that the stage is over
		k.tell("instance-lost", s.ask.Stage, m.place.name+" is lost: "+why)
	}
	s.mu.Unlock()
	k.log.Error("an instance is lost", "stage", s.ask.Stage, "instance", m.place.name, "why", why)
	if last {
		close(s.finished)
	}
}

// loseLocked returns whether that was the last member.
func (s *stage) loseLocked(m *member, why string) bool {
	if m.grace != nil {
		m.grace.Stop()
	}
	if m.running {
		s.count(m, func(c *control.Counts) { c.Running-- })
	}
	if m.fall != nil {
		close(m.fall.down)
		m.fall = nil
	}
	m.running, m.ended, m.lost = false, true, true
	s.left--
	if s.now.Lost++; len(s.lost) < mostNamed {
		s.lost = append(s.lost, m.place.name+" ("+strings.TrimSuffix(why, ".")+")")
	}
	if s.now.Fault == "" || s.now.Lost > 1 && s.now.Fault == s.lossTold {
		s.lossTold = s.loss()
		s.now.Fault = s.lossTold
	}
	s.changedLocked()
	return s.left == 0
}

// loss says which members are lost, and why.
func (s *stage) loss() string {
	text := plural(s.now.Lost, "instance is lost: ", "instances are lost: ") + strings.Join(s.lost, ", ")
	if more := s.now.Lost - len(s.lost); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
