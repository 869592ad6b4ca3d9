//go:build linux

package keeper

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// mostHasty is of how many instances the memory is looked at right after the gate has opened, more than once: a program
	// that ends at once leaves no other trace of it. With more, the looks would be in the way of what is measured.
	mostHasty = 64
	// firstLook is when an instance's memory is looked at first otherwise; then each is looked at once per sweep, the looks
	// spread over the sweep so that no instance is disturbed by those at the others.
	firstLook = 100 * time.Millisecond
	sweep     = 5 * time.Second
	looks     = 20 // per sweep
	// maxrssSlack is by how much the kernel's own figure of a resident set may be off, in bytes.
	maxrssSlack = 1 << 20
)

// peakOf is the largest resident set that a process had so far, in bytes; 0 when that can't be seen.
func (p processes) peakOf(pid int) int64 {
	if p.column > 0 {
		return 0 // its name in this /proc isn't known
	}
	return highWater("/proc/" + strconv.Itoa(pid) + "/status")
}

// ownPeak is the same of this process.
func ownPeak() int64 { return highWater("/proc/self/status") }

func highWater(path string) int64 { return kibibytes(path, "VmHWM:") }

func kibibytes(path, key string) int64 {
	status, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	number, _, _ := strings.Cut(strings.TrimSpace(line(status, key)), " ")
	kib, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// peak is an instance's largest resident set, from the looks at it while it ran and from what the kernel says in the
// end. The kernel's figure begins with what the parent had when the child was started: it is worth something only
// where it is above that.
func peak(seen, maxrss, parent int64) int64 {
	if maxrss > parent+maxrssSlack {
		return max(seen, maxrss)
	}
	return seen
}

// hasty are the pauses before each of the looks right after the gate has opened.
var hasty = []time.Duration{time.Millisecond, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond, 16 * time.Millisecond, 32 * time.Millisecond}

// lookAround looks at the memory of everything that runs in the stage, until the stage is over.
func (s *stage) lookAround() {
	timer := time.NewTimer(firstLook)
	defer timer.Stop()
	if len(s.members) <= mostHasty && !s.lookHastily() {
		return
	}
	for at := 0; ; at++ {
		select {
		case <-s.over:
			return
		case <-timer.C:
		}
		if at == 0 {
			s.look(0, 1)
		} else {
			s.look(at%looks, looks)
		}
		timer.Reset(sweep / looks)
	}
}

// lookHastily looks at everybody several times within moments; false when the stage is over.
func (s *stage) lookHastily() bool {
	for _, pause := range hasty {
		select {
		case <-s.over:
			return false
		case <-time.After(pause):
		}
		s.look(0, 1)
	}
	return true
}

// look looks at every nth member.
func (s *stage) look(from, nth int) {
	for i := from; i < len(s.members); i += nth {
		s.members[i].look()
	}
}

// look has Programs look at the member's memory, where they can.
func (m *member) look() {
	if programs, can := m.stage.keeper.programs.(looker); can && m.up.Load() {
		programs.Look(m.place.slot)
	}
}

// memoryShare measures what an instance costs the sidecar itself.
type memoryShare struct {
	mu     sync.Mutex
	base   int64
	now    int64
	placed int64
}

func (m *memoryShare) before() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.base == 0 {
		m.base = kibibytes("/proc/self/status", "VmRSS:")
	}
}

func (m *memoryShare) after(added int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.placed += int64(added)
	m.now = kibibytes("/proc/self/status", "VmRSS:")
}

// perInstance is in bytes, 0 before the first placement.
func (m *memoryShare) perInstance() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.placed == 0 {
		return 0
	}
	return max(0, m.now-m.base) / m.placed
}
