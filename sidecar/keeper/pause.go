//go:build linux

package keeper

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// freeze stops every process of members. One that is just being stopped may have started another: it looks until it
// finds none that it hasn't stopped.
func (s *stage) freeze(members []*member) error {
	s.signals.Lock()
	defer s.signals.Unlock()
	s.pausing(members, true)
	for _, m := range members {
		m.signal(unix.SIGSTOP)
	}
	return s.signalAll(members, unix.SIGSTOP)
}

// thaw lets go of every process of members.
func (s *stage) thaw(members []*member) error {
	s.signals.Lock()
	defer s.signals.Unlock()
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
			if err := send(pid, what); err != nil {
				return fmt.Errorf("signalling process %d: %w", pid, err)
			}
		}
	}
	return nil
}

// rouses is when it is looked, after the gate has opened, whether somebody has slept through it.
var rouses = []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, time.Second}

// rouseAll lets go of processes that are still stopped though the gate is open. An instance that is stopped while it
// starts others leaves, now and then, one of them stopped behind the signal that lets go of all: seen on Linux 6.18 with a
// shell that forks at once. Why the kernel leaves it is not known.
func (s *stage) rouseAll() {
	for _, after := range rouses {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(after):
		}
		if err := s.rouse(); err != nil {
			s.keeper.log.Warn("it could not be seen whether all instances were let go", "stage", s.ask.Stage, "error", err)
		}
	}
}

func (s *stage) rouse() error {
	s.signals.Lock()
	defer s.signals.Unlock()
	s.mu.Lock()
	var awake []*member
	for _, m := range s.members {
		if m.running && !m.paused {
			awake = append(awake, m)
		}
	}
	s.mu.Unlock()
	asleep, err := s.keeper.procs.stopped(s.keeper.namespaces(awake))
	if err != nil {
		return err
	}
	for _, pid := range asleep {
		s.keeper.log.Info("a process has slept through the opening of the gate", "stage", s.ask.Stage)
		if err := send(pid, unix.SIGCONT); err != nil {
			return fmt.Errorf("letting go of process %d: %w", pid, err)
		}
	}
	return nil
}
