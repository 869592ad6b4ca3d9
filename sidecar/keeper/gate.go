//go:build linux

package keeper

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// openers is how many instances are let go at a time where that can't be done to all at once.
const openers = 8

// openGate lets go of all that were started, unless the stage is to end already. Only then an instance has started.
func (s *stage) openGate() {
	if s.ctx.Err() != nil {
		return
	}
	if s.opened.IsZero() && s.openAtOnce() {
		s.note(step{Opened: s.opened})
		return
	}
	s.mu.Lock()
	again := !s.opened.IsZero() // by a keeper that may not have got to all
	if !again {
		s.opened = time.Now()
		s.note(step{Opened: s.opened})
	}
	s.mu.Unlock()
	inParallel(openers, s.members, func(m *member) {
		s.mu.Lock()
		if m.running && !again {
			m.started = time.Now()
		}
		paused := m.paused
		s.mu.Unlock()
		if !paused {
			m.signal(unix.SIGCONT)
		}
	})
}

// openAtOnce lets go of all by one signal, where that can be done, and reports whether it was. There may be no second
// stage whose instances are held just now, or stopped by an event.
func (s *stage) openAtOnce() bool {
	k := s.keeper
	programs, can := k.programs.(letsGo)
	if !can {
		return false
	}
	k.mu.RLock() // no other stage is opened meanwhile
	defer k.mu.RUnlock()
	if len(k.active) > 1 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	opened, done := programs.LetGo(slotsOf(s.members))
	if !done {
		return false
	}
	s.opened = opened
	for _, m := range s.members {
		if m.running {
			m.started = opened
		}
	}
	k.log.Info("the gate has opened", "stage", s.ask.Stage, "instances", len(s.members), "held", opened.Sub(s.now.Started))
	return true
}

// looksForSleepers is when it is looked, after the gate has opened, whether somebody has slept through it.
var looksForSleepers = []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, time.Second}

// rouseAll lets go of processes that are still stopped though the gate is open. An instance that is stopped while it
// starts others leaves, now and then, one of them stopped behind the signal that lets go of all: seen on Linux 6.18 with a
// shell that forks at once. Why the kernel leaves it is not known.
func (s *stage) rouseAll() {
	programs, can := s.keeper.programs.(rouser)
	if !can {
		return
	}
	for _, after := range looksForSleepers {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(after):
		}
		if err := s.rouse(programs); err != nil {
			s.keeper.log.Warn("it could not be seen whether all instances were let go", "stage", s.ask.Stage, "error", err)
		}
	}
}

func (s *stage) rouse(programs rouser) error {
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
	asleep, err := programs.Rouse(slotsOf(awake))
	if asleep > 0 {
		s.keeper.log.Info("processes have slept through the opening of the gate", "stage", s.ask.Stage, "processes", asleep)
	}
	return err
}

// inParallel does something with each member, with so many of them at a time, and returns when all is done.
func inParallel(most int, members []*member, do func(*member)) {
	var next atomic.Int64
	var work sync.WaitGroup
	for range min(most, len(members)) {
		work.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(members)); i = next.Add(1) - 1 {
				do(members[i])
			}
		})
	}
	work.Wait()
}

// slotsOf are the slots of members.
func slotsOf(members []*member) []int {
	slots := make([]int, len(members))
	for i, m := range members {
		slots[i] = m.place.slot
	}
	return slots
}
