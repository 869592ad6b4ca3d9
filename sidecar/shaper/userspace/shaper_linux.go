package userspace

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/shaper"
)

// Shaper shapes what comes by at the end of one link.
type Shaper struct {
	log      *slog.Logger
	link     *link
	engine   *engine
	began    time.Time
	counters [2]counter

	// bell wakes the thread, which then looks at asked.
	bell  int
	asked chan change
	ended chan struct{}
	tid   int
	// What the thread passes to the kernel stands here, so that nothing is allocated for it.
	patience int64
	limit    unix.Timespec
	sources  [2]unix.PollFd
	rings    [8]byte

	applying sync.Mutex // held by Apply and Close
	state    *links.State
	closed   bool

	health   sync.Mutex // held by Health
	overflow int64
	final    *shaper.Health // set by Close
	refused  atomic.Int64
}

var _ shaper.Shaper = (*Shaper)(nil)

// change is what the thread is asked to do.
type change struct {
	state *links.State // nil: to end
	// patience is how long an arrival may lie in the ring.
	patience time.Duration
	done     chan struct{}
}

// counter counts what the kernel drops of what is sent out of one end, when the processor that is to receive it has a
// backlog.
type counter struct {
	netlink *netlink.Handle
	index   int
	before  uint64
}

// New begins to shape; until a state is applied packets pass as they are, or are withheld.
func New(o Options) (*Shaper, error) {
	s := &Shaper{log: o.Log, bell: -1, asked: make(chan change, 1), ended: make(chan struct{}), began: time.Now()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.engine = newEngine(o.Seed, s.began, o.Translator)
	s.engine.withhold = o.Withhold
	if err := s.open(o); err != nil {
		s.release()
		return nil, fmt.Errorf("opening the link to the shaper: %w", err)
	}
	lend(1)
	started := make(chan struct{})
	go s.run(started)
	<-started
	return s, nil
}

func (s *Shaper) open(o Options) error {
	err := o.Shaper(func() (err error) {
		if s.link, err = openLink(o.ShaperEnd); err != nil {
			return err
		}
		return s.counters[0].open(o.ShaperEnd)
	})
	if err != nil {
		return err
	}
	if err := o.Router(func() error { return s.counters[1].open(o.RouterEnd) }); err != nil {
		return err
	}
	s.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

// release gives back what open took.
func (s *Shaper) release() {
	for _, c := range s.counters {
		if c.netlink != nil {
			c.netlink.Close()
		}
	}
	if s.link != nil {
		s.link.close()
	}
	if s.bell >= 0 {
		unix.Close(s.bell)
	}
}

func (c *counter) open(index int) (err error) {
	c.index = index
	if c.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	c.before, err = c.read()
	return err
}

func (c *counter) read() (uint64, error) {
	l, err := c.netlink.LinkByIndex(c.index)
	if err != nil {
		return 0, fmt.Errorf("asking for the counters of link %d: %w", c.index, err)
	}
	if l.Attrs().Statistics == nil {
		return 0, nil
	}
	return l.Attrs().Statistics.TxDropped, nil
}

// Name is "user space".
func (s *Shaper) Name() string { return "user space" }

// Apply puts a state in force between two packets, and returns once it is.
func (s *Shaper) Apply(ctx context.Context, state *links.State) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.closed {
		return fmt.Errorf("shaping in user space: %w", net.ErrClosed)
	}
	if state == s.state {
		return nil
	}
	// What has been asked for is carried out, also when nobody waits for it any more.
	s.state = state
	done := s.ask(change{state: state, patience: patience(state), done: make(chan struct{})})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shaping in user space: %w", ctx.Err())
	}
}

// ask has the thread make a change, and returns what is closed then.
func (s *Shaper) ask(c change) <-chan struct{} {
	select {
	case s.asked <- c:
	case old := <-s.asked: // nobody waits for that one any more
		close(old.done)
		s.asked <- c
	}
	var one = [8]byte{1}
	_, _ = unix.Write(s.bell, one[:]) // fails when it rings already
	return c.done
}

// Health is what has happened since New; after Close, until then.
func (s *Shaper) Health() shaper.Health {
	s.health.Lock()
	defer s.health.Unlock()
	if s.final == nil {
		return s.examine()
	}
	return *s.final
}

// examine adds up what this process has lost and what the kernel has. The caller holds health.
func (s *Shaper) examine() shaper.Health {
	if n, err := s.link.overflown(); err != nil {
		s.log.Warn("a shaper's losses are not known", "error", err)
	} else {
		s.overflow += n // the kernel counts from the last call on
	}
	h := shaper.Health{
		Packets: s.engine.packets.Load(),
		Late:    s.engine.late.Load(),
		Lost:    s.engine.lost.Load() + s.refused.Load() + s.overflow,
		CPU:     cpuTime(s.tid),
	}
	for i := range s.counters {
		c := &s.counters[i]
		if now, err := c.read(); err != nil {
			s.log.Warn("a shaper's losses are not known", "error", err)
		} else {
			h.Lost += int64(now - c.before)
		}
	}
	return h
}

// Close ends the shaping. Packets under way are gone, and later ones go nowhere.
func (s *Shaper) Close() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.health.Lock()
	defer s.health.Unlock()
	final := s.examine()
	s.final = &final
	<-s.ask(change{done: make(chan struct{})})
	<-s.ended
	lend(-1)
	s.release()
	return nil
}

// cpuTime is what a thread of this process has taken.
func cpuTime(tid int) time.Duration {
	// CPUCLOCK_PERTHREAD|CPUCLOCK_SCHED of the kernel's posix-timers.h, as pthread_getcpuclockid puts it together.
	clock := int32(^tid<<3 | 4 | 2)
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
