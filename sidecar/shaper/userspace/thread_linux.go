package userspace

import (
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// turnFrames is how many packets are read before it is looked for those that are due.
	turnFrames = 256
	// skew bounds by how much the wall's clock may have been set between a packet's arrival and its being read.
	skew = time.Millisecond
)

// run is the thread that shapes. It ends when it is asked to.
func (s *Shaper) run(started chan<- struct{}) {
	// It is never unlocked, so that the thread, with its priority, ends with this.
	runtime.LockOSThread()
	defer close(s.ended)
	s.tid = unix.Gettid()
	s.hurry()
	close(started)
	var earliest int64 // what is read next arrived no earlier
	out := make([]*packet, 0, batch)
	for {
		select {
		case c := <-s.asked:
			if c.state != nil {
				s.engine.replace(c.state, c.state.Seats().Subnet6, s.now())
				s.patience = int64(c.patience)
			}
			close(c.done)
			if c.state == nil {
				return
			}
		default:
		}
		read := s.read(&earliest)
		sent := s.send(out)
		if !read && !sent {
			s.wait()
		}
	}
}

func (s *Shaper) now() int64 { return int64(time.Since(s.began)) }

// hurry gives the calling thread what precedence it may have.
func (s *Shaper) hurry() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	fifo := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: 1}
	if err := unix.SchedSetAttr(0, &fifo, 0); err == nil {
		return
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, s.tid, -20); err != nil {
		s.log.Debug("shaping without precedence over other threads", "error", err)
	}
}

// read takes in what has arrived, in that order, and says whether it stopped before the ring was empty.
func (s *Shaper) read(earliest *int64) (more bool) {
	t := time.Now()
	now := int64(t.Sub(s.began))
	toOurs := now - t.UnixNano()
	for range turnFrames {
		frame, wall := s.link.arrived()
		if frame == nil {
			*earliest = max(*earliest, now)
			return false
		}
		at := wall + toOurs
		if at > now+int64(skew) { // it came while this thread was kept from its work, or the clock was set
			at = min(at, s.now())
		}
		// Both clocks can't be read at the same moment: without this packets might change places.
		*earliest = max(*earliest, at)
		s.engine.arrive(frame, *earliest)
		s.link.done()
	}
	return true
}

// send sends what is due, and says whether it stopped before all of it was.
func (s *Shaper) send(out []*packet) (more bool) {
	for range turnFrames / batch {
		due := s.engine.due(s.now(), out[:0])
		if len(due) > 0 {
			if refused, why := s.link.send(due); refused > 0 {
				if s.refused.Add(int64(refused)) == int64(refused) {
					s.log.Warn("the kernel refuses packets to be sent; more of that is only counted", "packets", refused, "error", why)
				}
			}
			for _, p := range due {
				s.engine.pool.give(p)
			}
		}
		if len(due) < batch {
			return false
		}
	}
	return true
}

// keepProcessor is how long a sleep may be during which the thread keeps what the Go scheduler needs to run it. If it gave
// that up at every sleep, each packet would have to wait for the other goroutines of a busy process (measured: of packets
// at 10 ms the last percent 2 ms late instead of 0.3). In longer sleeps the scheduler would interrupt it anyway.
const keepProcessor = 10 * time.Millisecond

// poll is unix.Ppoll with s.limit, without telling the Go scheduler. Should that need the thread, its signal ends the call.
func (s *Shaper) poll(sources []unix.PollFd) {
	_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&sources[0])), uintptr(len(sources)), uintptr(unsafe.Pointer(&s.limit)), 0, 0, 0)
}

// processors is held while their number changes.
var processors sync.Mutex

// lend has the Go scheduler run so many more goroutines at once: as many as shapers keep it from using, so that the other
// goroutines still have as many processors as there are.
func lend(n int) {
	processors.Lock()
	defer processors.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}

// wait sleeps until a packet arrives, one is due, or something is asked. An arrival doesn't wake it when it is going to
// wake soon enough anyway.
func (s *Shaper) wait() {
	s.sources = [2]unix.PollFd{{Fd: int32(s.bell), Events: unix.POLLIN}, {Fd: int32(s.link.fd), Events: unix.POLLIN}}
	sources := s.sources[:]
	var limit *unix.Timespec
	if at, ok := s.engine.queue.next(); ok {
		left := at - s.now()
		if left <= 0 {
			return
		}
		s.limit = unix.NsecToTimespec(left)
		limit = &s.limit
		if left <= s.patience {
			sources = s.sources[:1]
		}
	}
	if limit != nil && limit.Nano() < int64(keepProcessor) {
		s.poll(sources)
	} else {
		_, _ = unix.Ppoll(sources, limit, nil)
	}
	// Whatever ended it, the loop looks at everything.
	if s.sources[0].Revents != 0 {
		_, _ = unix.Read(s.bell, s.rings[:])
	}
}
