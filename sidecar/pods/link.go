//go:build linux

package pods

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

const (
	// greetsWithin is how long a supervisor may take to say hello, and to take a line.
	greetsWithin = 10 * time.Second
)

// errBroken says that a connection ended before there was an answer.
var errBroken = errors.New("the connection has ended")

// link is a connection with a supervisor.
type link struct {
	conn  *net.UnixConn
	in    *wire.Reader
	hello wire.Hello
	pid   int // on this node, of who listened
	pidfd *os.File

	writing sync.Mutex

	mu      sync.Mutex
	last    int64
	waiting map[int64]chan wire.Answer // nil once broken
}

// connect reaches the supervisor in a folder.
func connect(folder string) (*link, error) {
	c, err := connectIn(folder, wire.Socket, greetsWithin)
	if err != nil {
		return nil, err
	}
	l := &link{conn: c, in: wire.NewReader(c), waiting: make(map[int64]chan wire.Answer)}
	if err := l.greet(); err != nil {
		l.close()
		l.letGo()
		return nil, err
	}
	return l, nil
}

// greet finds out who listens, takes hold of that process, and hears its hello.
func (l *link) greet() error {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return err
	}
	var who *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("asking who listens: %w", err)
	}
	if int(who.Pid) == os.Getpid() {
		return errors.New("it is this sidecar's own socket that lies there")
	}
	fd, err := unix.PidfdOpen(int(who.Pid), 0)
	if err != nil {
		return fmt.Errorf("taking hold of process %d, which listens: %w", who.Pid, err)
	}
	l.pid, l.pidfd = int(who.Pid), os.NewFile(uintptr(fd), "pidfd")
	_ = l.conn.SetReadDeadline(time.Now().Add(greetsWithin))
	var a wire.Answer
	if err := l.in.Read(&a); err != nil {
		return fmt.Errorf("waiting for the supervisor's hello: %w", err)
	}
	if a.Hello == nil || a.Hello.Boot == "" {
		return errors.New("whoever listens is no supervisor")
	}
	l.hello = *a.Hello
	return l.conn.SetReadDeadline(time.Time{})
}

// close ends the connection and whatever waits for an answer.
func (l *link) close() {
	_ = l.conn.Close()
	l.mu.Lock()
	waiting := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for _, answer := range waiting {
		close(answer)
	}
}

// listen passes on what the supervisor says of itself, and its answers to whoever waits for them, until the connection
// ends.
func (l *link) listen(said func(*wire.Answer)) error {
	for {
		var a wire.Answer
		if err := l.in.Read(&a); err != nil {
			return err
		}
		if a.ID == 0 {
			said(&a)
			continue
		}
		l.mu.Lock()
		answer := l.waiting[a.ID]
		delete(l.waiting, a.ID)
		l.mu.Unlock()
		if answer != nil {
			answer <- a
		}
	}
}

// call asks and waits for the answer. It returns errBroken when the connection ends before.
func (l *link) call(ctx context.Context, ask wire.Request) (wire.Answer, error) {
	answer := make(chan wire.Answer, 1)
	l.mu.Lock()
	if l.waiting == nil {
		l.mu.Unlock()
		return wire.Answer{}, errBroken
	}
	l.last++
	ask.ID = l.last
	l.waiting[ask.ID] = answer
	l.mu.Unlock()
	line, err := wire.Line(ask)
	if err == nil {
		err = l.write(line)
	}
	if err != nil {
		l.forget(ask.ID)
		return wire.Answer{}, err
	}
	select {
	case a, answered := <-answer:
		if !answered {
			return a, errBroken
		}
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-ctx.Done():
		l.forget(ask.ID)
		return wire.Answer{}, fmt.Errorf("waiting for its answer: %w", ctx.Err())
	}
}

func (l *link) write(line []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(greetsWithin))
	if _, err := l.conn.Write(line); err != nil {
		_ = l.conn.Close() // half a line may be on its way
		return errBroken
	}
	return nil
}

func (l *link) forget(id int64) {
	l.mu.Lock()
	delete(l.waiting, id)
	l.mu.Unlock()
}

// alive says whether the process that listened has not ended.
func (l *link) alive() bool {
	polled := []unix.PollFd{{Fd: int32(l.pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(polled, 0)
	return n == 0 || errors.Is(err, unix.EINTR)
}

// letGo lets go of the process.
func (l *link) letGo() {
	if l.pidfd != nil {
		_ = l.pidfd.Close()
	}
}

// process is where /proc shows something of the process that listened.
func (l *link) process(what string) string { return "/proc/" + strconv.Itoa(l.pid) + "/" + what }
