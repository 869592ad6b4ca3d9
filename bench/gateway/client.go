package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// swarm is many clients of gateways that cost next to nothing, so that what is measured is the gateways: raw frames
// over unix sockets, made beforehand and read by one thread with epoll. A client of the SDK costs some 50 µs for a
// barrier; one of these about 5.
type swarm struct {
	clients []*client
	poll    int
	wake    int // an eventfd that ends the reading thread
	work    sync.WaitGroup
	// heard is called by the reading thread for every reply, with when it was read.
	heard  atomic.Pointer[func(c *client, id int, reply []byte, at time.Time)]
	failed chan error // the first thing that went wrong
}

// client is one connection. Only the reading thread uses rest.
type client struct {
	number int
	fd     int
	rest   []byte // the beginning of a frame whose end hasn't come
}

// connect opens n clients, dealt out over the sockets in turn: client i is at socket i modulo their number.
func connect(n int, sockets []string) (*swarm, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	s := &swarm{poll: poll, wake: wake, failed: make(chan error, 1)}
	s.hear(func(*client, int, []byte, time.Time) {})
	for i := range n {
		fd, err := dial(sockets[i%len(sockets)])
		if err != nil {
			s.close()
			return nil, fmt.Errorf("connecting client %d: %w", i, err)
		}
		s.clients = append(s.clients, &client{number: i, fd: fd})
		if err := s.follow(fd, int32(i)); err != nil {
			s.close()
			return nil, err
		}
	}
	if err := s.follow(wake, -1); err != nil {
		s.close()
		return nil, err
	}
	s.work.Go(s.read)
	return s, nil
}

func (s *swarm) follow(fd int, number int32) error {
	if err := unix.EpollCtl(s.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: number}); err != nil {
		return fmt.Errorf("adding a client to the epoll: %w", err)
	}
	return nil
}

// dial connects and upgrades to a WebSocket; from then on the socket doesn't block.
func dial(socket string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening a socket: %w", err)
	}
	if err := upgrade(fd, socket); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func upgrade(fd int, socket string) error {
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return fmt.Errorf("connecting to %s: %w", socket, err)
	}
	const request = "GET / HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := unix.Write(fd, []byte(request)); err != nil {
		return fmt.Errorf("asking %s for an upgrade: %w", socket, err)
	}
	// The server says nothing by itself, so that no frame can follow in the same read.
	var answer []byte
	buf := make([]byte, 1024)
	for !bytes.HasSuffix(answer, []byte("\r\n\r\n")) {
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			return fmt.Errorf("reading the upgrade of %s after %q: %w", socket, answer, errors.Join(err, errGone))
		}
		answer = append(answer, buf[:n]...)
	}
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 101")) {
		return fmt.Errorf("%s refused to upgrade: %s", socket, strings.SplitN(string(answer), "\r\n", 2)[0])
	}
	return unix.SetNonblock(fd, true)
}

var errGone = errors.New("the gateway has closed the connection")

// hear sets what is called for replies.
func (s *swarm) hear(f func(c *client, id int, reply []byte, at time.Time)) { s.heard.Store(&f) }

// close ends all connections.
func (s *swarm) close() {
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // room for 2⁶⁴ of them: it can't fail
	s.work.Wait()
	for _, c := range s.clients {
		_ = unix.Close(c.fd)
	}
	_ = unix.Close(s.poll)
	_ = unix.Close(s.wake)
}

func (s *swarm) fail(err error) {
	select {
	case s.failed <- err:
	default: // the first one tells
	}
}

// read takes in replies until the swarm is closed.
func (s *swarm) read() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events := make([]unix.EpollEvent, 512)
	buf := make([]byte, 256<<10)
	for {
		n, err := unix.EpollWait(s.poll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			s.fail(fmt.Errorf("waiting for replies: %w", err))
			return
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd < 0 {
				return
			}
			if err := s.receive(s.clients[e.Fd], buf); err != nil {
				s.fail(fmt.Errorf("client %d: %w", e.Fd, err))
				return
			}
		}
	}
}

// receive reads what is there for a client, once: epoll says so again when there is more.
func (s *swarm) receive(c *client, buf []byte) error {
	n, err := unix.Read(c.fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("reading replies: %w", err)
	case n == 0:
		return errGone
	}
	at := time.Now()
	in := buf[:n]
	if len(c.rest) > 0 {
		c.rest = append(c.rest, in...)
		in = c.rest
	}
	heard := *s.heard.Load()
	for {
		reply, after, err := frame(in)
		if err != nil {
			return err
		}
		if reply == nil {
			break
		}
		id, err := identify(reply)
		if err != nil {
			return err
		}
		heard(c, id, reply, at)
		in = after
	}
	c.rest = append(c.rest[:0], in...)
	return nil
}

// frame cuts the first frame off; nil when it isn't whole yet.
func frame(in []byte) (payload, after []byte, err error) {
	if len(in) < 2 {
		return nil, in, nil
	}
	if in[0] != 0x81 {
		return nil, nil, fmt.Errorf("a frame of kind %#x instead of a text: %q", in[0], in[2:min(len(in), 200)])
	}
	start, size := 2, int(in[1])
	if size == 126 {
		if len(in) < 4 {
			return nil, in, nil
		}
		start, size = 4, int(binary.BigEndian.Uint16(in[2:]))
	} else if size > 126 {
		return nil, nil, errors.New("a frame larger than any reply")
	}
	if len(in) < start+size {
		return nil, in, nil
	}
	return in[start : start+size], in[start+size:], nil
}

// identify gives a reply's id, and refuses one that says an error.
func identify(reply []byte) (int, error) {
	rest, found := bytes.CutPrefix(reply, []byte(`{"id":"`))
	number, rest, ended := bytes.Cut(rest, []byte(`","error":"`))
	if !found || !ended || len(rest) == 0 || rest[0] != '"' {
		return 0, fmt.Errorf("a reply that is an error or no reply: %s", reply)
	}
	id, err := strconv.Atoi(string(number))
	if err != nil {
		return 0, fmt.Errorf("a reply whose id is no number: %s", reply)
	}
	return id, nil
}

// request is a whole frame, masked with zeros.
func request(id int, body string) []byte {
	return masked(`{"id":"` + strconv.Itoa(id) + `","is_cancel":false,` + body + `}`)
}

// cancelRequest ends a subscription.
func cancelRequest(id int) []byte {
	return masked(`{"id":"` + strconv.Itoa(id) + `","is_cancel":true}`)
}

func masked(text string) []byte {
	if len(text) < 126 {
		return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
	}
	head := []byte{0x81, 0xfe, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(head[2:], uint16(len(text)))
	return append(head, text...)
}

// send writes a request. A gateway that doesn't read for long makes it wait.
func (s *swarm) send(c *client, frame []byte) {
	for len(frame) > 0 {
		n, err := unix.Write(c.fd, frame)
		switch {
		case errors.Is(err, unix.EAGAIN):
			fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
			_, _ = unix.Poll(fds, 1000) // the next write says what is wrong
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			s.fail(fmt.Errorf("client %d: writing a request: %w", c.number, err))
			return
		}
		frame = frame[n:]
	}
}
