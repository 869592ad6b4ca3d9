//go:build linux

package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

const (
	// mostBehind is how many lines may wait for one who doesn't read.
	mostBehind = 10_000
	// restAfter is how long there is nothing to do until memory is given back.
	restAfter = time.Second
	// goodbyes is how long a last word may take.
	goodbyes = 100 * time.Millisecond
)

// server answers whoever connects.
type server struct {
	hello    wire.Hello
	programs *programs
	log      func(format string, args ...any)
	work     sync.WaitGroup
	rest     *time.Timer // gives memory back

	mu    sync.Mutex
	conns map[*conn]struct{}
	over  bool
}

// conn is one connection. One goroutine reads it and one writes to it.
type conn struct {
	*net.UnixConn
	mu      sync.Mutex
	lines   [][]byte
	wake    chan struct{}
	closing bool
}

// serve takes connections until the listener is closed.
func (s *server) serve(l *net.UnixListener) error {
	for {
		accepted, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("waiting for the sidecar: %w", err)
		}
		if err := admissible(accepted); err != nil {
			s.log("a connection is refused: %v", err)
			_ = accepted.Close()
			continue
		}
		c := &conn{UnixConn: accepted, wake: make(chan struct{}, 1)}
		s.mu.Lock()
		if s.over {
			s.mu.Unlock()
			_ = accepted.Close()
			return nil
		}
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		c.say(wire.Answer{Hello: &s.hello})
		s.work.Go(c.write)
		s.work.Go(func() { s.read(c) })
	}
}

// admissible says who may connect: the node's root, and whoever runs the instance. The socket is closed to all others
// by its mode already; this is the second lock. The node's root has no number of its own where the pod has a user
// namespace, and comes as the overflow user then. The instance itself runs as the supervisor does and could connect: all
// that it could ask for it can do without, to its own pod and to no other.
func admissible(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var who *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	const overflow = 65534
	if who.Uid == 0 || who.Uid == overflow || int(who.Uid) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("user %d is neither root nor this one", who.Uid)
}

// read answers requests until the connection ends.
func (s *server) read(c *conn) {
	defer s.leave(c)
	in := wire.NewReader(c)
	for {
		var ask wire.Request
		if err := in.Read(&ask); err != nil {
			return
		}
		s.busy()
		if ask.Clear != nil { // takes its time
			s.work.Go(func() { c.say(s.answer(&ask)) })
			continue
		}
		c.say(s.answer(&ask))
	}
}

func (s *server) leave(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	c.end()
}

// busy says that there is something to do.
func (s *server) busy() { s.rest.Reset(restAfter) }

// answer does what is asked.
func (s *server) answer(ask *wire.Request) wire.Answer {
	a := wire.Answer{ID: ask.ID}
	var err error
	switch {
	case ask.Start != nil:
		var state wire.State
		if state, err = s.programs.start(ask.Start); err == nil {
			a.State = &state
		}
	case ask.Attach != nil:
		var state wire.State
		if state, err = s.programs.state(*ask.Attach); err == nil {
			a.State = &state
		}
	case ask.Signal != nil:
		if what := unix.Signal(ask.Signal.Number); ask.Signal.All {
			_, err = signalOthers(what)
		} else {
			err = s.programs.signal(what)
		}
	case ask.Clear != nil:
		a.Cleared = &wire.Cleared{}
		a.Cleared.Left, err = s.programs.clear(time.Duration(ask.Clear.Within) * time.Millisecond)
	default:
		err = errors.New("nothing that this supervisor knows is asked")
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// ended tells everybody who is connected of an end, but not of what this process itself does when the pod is to end: that
// says nothing about the program.
func (s *server) ended(state wire.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	for c := range s.conns {
		c.say(wire.Answer{Ended: &state})
	}
}

// goodbye says why this ends, as the last that anybody hears.
func (s *server) goodbye(why string) {
	s.mu.Lock()
	s.over = true
	for c := range s.conns {
		c.say(wire.Answer{Bye: &wire.Bye{Why: why}})
		_ = c.SetWriteDeadline(time.Now().Add(goodbyes))
		_ = c.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()
}

// wait returns once everybody has heard that, or doesn't listen.
func (s *server) wait() {
	said := make(chan struct{})
	go func() {
		defer close(said)
		s.work.Wait()
	}()
	select {
	case <-said:
	case <-time.After(2 * goodbyes): // somebody clears what can't be killed
	}
}

// say queues a line. Whoever lets too many wait is hung up on: it hears everything anew when it connects again.
func (c *conn) say(a wire.Answer) {
	line, err := wire.Line(a)
	if err != nil { // an environment of more than 8 MB
		line, err = wire.Line(wire.Answer{ID: a.ID, Error: err.Error()})
	}
	c.mu.Lock()
	if err != nil || len(c.lines) >= mostBehind {
		_ = c.Close()
	} else if !c.closing {
		c.lines = append(c.lines, line)
	}
	c.mu.Unlock()
	c.rouse()
}

// end has the connection closed once all is written.
func (c *conn) end() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.rouse()
}

func (c *conn) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write writes what is queued, until the connection is to end.
func (c *conn) write() {
	defer c.Close()
	for range c.wake {
		c.mu.Lock()
		lines, closing := c.lines, c.closing
		c.lines = nil
		c.mu.Unlock()
		for _, line := range lines {
			if _, err := c.Write(line); err != nil {
				return
			}
		}
		if closing {
			return
		}
	}
}
