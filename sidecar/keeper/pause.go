//go:build linux

package keeper

import "golang.org/x/sys/unix"

// freeze stops every process of members.
func (s *stage) freeze(members []*member) error { return s.pause(members, true, unix.SIGSTOP) }

// thaw lets go of every process of members.
func (s *stage) thaw(members []*member) error { return s.pause(members, false, unix.SIGCONT) }

func (s *stage) pause(members []*member, paused bool, what unix.Signal) error {
	s.signals.Lock()
	defer s.signals.Unlock()
	s.mu.Lock()
	for _, m := range members {
		m.paused = paused
	}
	s.mu.Unlock()
	return s.keeper.programs.SignalAll(slotsOf(members), what)
}
