//go:build linux

package keeper

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// freeze stops every process of members. One that is just being stopped may have started another: it looks until it
// finds none that it hasn't stopped.
func (s *stage) freeze(members []*member) error {
	s.pausing(members, true)
	for _, m := range members {
		m.signal(unix.SIGSTOP)
	}
	return s.signalAll(members, unix.SIGSTOP)
}

// thaw lets go of every process of members.
func (s *stage) thaw(members []*member) error {
	s.pausing(members, false)
	for _, m := range members {
		m.signal(unix.SIGCONT)
	}
	return s.signalAll(members, unix.SIGCONT)
}

func (s *stage) pausing(members []*member, paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range members {
		m.paused = paused
	}
}

// signalAll sends a signal to every process in the members' namespaces, each once, until it finds no more.
func (s *stage) signalAll(members []*member, what unix.Signal) error {
	if len(members) == 0 {
		return nil
	}
	inside := s.keeper.namespaces(members)
	sent := make(map[int]bool)
	for again := true; again; {
		again = false
		found, err := s.keeper.procs.inside(inside)
		if err != nil {
			return err
		}
		for _, pid := range found {
			if sent[pid] {
				continue
			}
			again, sent[pid] = true, true
			if err := unix.Kill(pid, what); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("signalling process %d: %w", pid, err)
			}
		}
	}
	return nil
}
