package userspace

import (
	"runtime"
	"time"

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
	var emptied int64 // when the ring was last seen empty
	out := make([]*packet, 0, batch)
	for {
		select {
		case c := <-s.asked:
			if c.state != nil {
				s.engine.replace(c.state, c.state.Seats().Subnet6, s.now())
			}
			close(c.done)
			if c.state == nil {
				return
			}
		default:
		}
		read := s.read(&emptied)
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

// read takes in what has arrived, and says whether it stopped before the ring was empty.
func (s *Shaper) read(emptied *int64) (more bool) {
	t := time.Now()
	now := int64(t.Sub(s.began))
	toOurs := now - t.UnixNano()
	for range turnFrames {
		frame, wall := s.link.arrived()
		if frame == nil {
			*emptied = now
			return false
		}
		at := wall + toOurs
		if at > now+int64(skew) {
			at = now
		}
		s.engine.arrive(frame, max(at, *emptied))
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

// wait sleeps until a packet arrives, one is due, or something is asked.
func (s *Shaper) wait() {
	var limit *unix.Timespec
	if at, ok := s.engine.queue.next(); ok {
		left := at - s.now()
		if left <= 0 {
			return
		}
		s.limit = unix.NsecToTimespec(left)
		limit = &s.limit
	}
	s.sources = [2]unix.PollFd{{Fd: int32(s.link.fd), Events: unix.POLLIN}, {Fd: int32(s.bell), Events: unix.POLLIN}}
	_, _ = unix.Ppoll(s.sources[:], limit, nil) // whatever ends it, the loop looks at everything
	if s.sources[1].Revents != 0 {
		_, _ = unix.Read(s.bell, s.rings[:])
	}
}
