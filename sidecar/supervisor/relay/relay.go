// Package relay carries the connections of a program with the sync service to the gateway of its node: from a TCP address
// inside the pod to a Unix socket in the pod's folder. A gateway that goes away, since its sidecar is restarted, costs the
// program nothing: its WebSocket stays open, and once a gateway is there again it is asked anew for what was not answered
// yet.
//
// The relay doesn't look into what it carries. It numbers the requests of a client from 1 on and speaks with the gateway
// in its own words, on a WebSocket that it opens with /?relay=SESSION besides what the client asked for. Each message
// begins with a head, which ends at the first space:
//
//	→ 17 {request}            request 17
//	→ 17@42 {request}         the same asked again: 42 items of that subscription were delivered already
//	→ 17-14-16 {request}      and the answers to 14 and 16 have arrived: the gateway may forget them
//	→ -14-16                  (followed by a space) only that
//	← 17+ {reply}             an item of a subscription; more may come
//	← 17= {reply}             the answer to request 17, which the gateway remembers until it hears that it has arrived
//	← 17. {reply}             the last answer to request 17; without a reply nothing is to be said to the client
//
// The gateway remembers what became of the requests that change something, in Redis, by client, session and number:
// asked again, it gives the answer that it gave before. A session is the connection of one client, and ends with it.
package relay

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// refusedFor is how long a client waits for a gateway that doesn't know it: one that was just started may have to find
	// its instances first.
	refusedFor = 30 * time.Second
	// firstPause and longestPause are between two tries to reach the gateway.
	firstPause   = 5 * time.Millisecond
	longestPause = 250 * time.Millisecond
	// answersWithin is how long a gateway may take to answer a handshake.
	answersWithin = 10 * time.Second
)

// Relay relays.
type Relay struct {
	// Socket is the path of the gateway's socket.
	Socket string
	Log    func(format string, args ...any)
	// Busy is called whenever something is carried; it returns at once. May be nil.
	Busy func()
}

// Serve takes connections until the listener is closed, and ends those that there are then.
func (r *Relay) Serve(l net.Listener) error {
	if r.Busy == nil {
		r.Busy = func() {}
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	conns := make(map[net.Conn]struct{})
	defer work.Wait()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for c := range conns {
			_ = c.Close()
		}
	}()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("waiting for the program's sync client: %w", err)
		}
		mu.Lock()
		conns[c] = struct{}{}
		mu.Unlock()
		work.Go(func() {
			defer func() {
				_ = c.Close()
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			}()
			if err := r.carry(c); err != nil {
				r.Log("a connection to the sync service has ended: %v", err)
			}
		})
	}
}

// carry carries one connection.
func (r *Relay) carry(c net.Conn) error {
	in := bufio.NewReaderSize(c, 4096)
	asked, err := readHead(in)
	if err != nil {
		return nil // nobody who speaks HTTP
	}
	if !asked.upgrades() {
		return r.pass(c, in, &asked)
	}
	s := newSession(r, c, in, &asked, rand.Text())
	first, err := s.reach(s.patience)
	var no *refusal
	if errors.As(err, &no) {
		_, err = c.Write(no.bytes())
		return err
	}
	if err != nil {
		return nil // the client is gone
	}
	if _, err := c.Write(asked.acceptance()); err != nil {
		_ = first.Close()
		return nil
	}
	return s.run(first)
}

// pass carries what is no WebSocket byte by byte.
func (r *Relay) pass(c net.Conn, in *bufio.Reader, asked *head) error {
	gateway, err := net.DialTimeout("unix", r.Socket, answersWithin)
	if err != nil {
		_, err = c.Write((&refusal{"503", []byte("the sync service is away\n")}).bytes())
		return err
	}
	defer gateway.Close()
	if _, err := gateway.Write(asked.raw); err != nil {
		return nil
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(gateway, in)
		_ = gateway.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(c, gateway)
	_ = c.Close()
	<-ended
	return nil
}

// link is a connection with a gateway.
type link struct {
	net.Conn
	in *bufio.Reader
}

// dial opens a WebSocket with the gateway.
func (s *session) dial() (*link, error) {
	c, err := net.DialTimeout("unix", s.relay.Socket, answersWithin)
	if err != nil {
		return nil, err
	}
	l := &link{Conn: c, in: bufio.NewReaderSize(c, 4096)}
	_ = c.SetDeadline(time.Now().Add(answersWithin))
	if _, err = c.Write(s.asked.handshake(s.id)); err == nil {
		err = readAnswer(l.in)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return l, c.SetDeadline(time.Time{})
}

// reach opens a WebSocket with the gateway, however long that takes. pause waits between two tries, and says whether the
// client is still there. A gateway that refuses the client for long, or for what can't change, is an error.
func (s *session) reach(pause func(time.Duration) bool) (*link, error) {
	var refused time.Time
	for wait := firstPause; ; wait = min(2*wait, longestPause) {
		l, err := s.dial()
		if err == nil {
			return l, nil
		}
		var no *refusal
		if !errors.As(err, &no) {
			refused = time.Time{}
		} else if refused.IsZero() {
			refused = time.Now()
		}
		if no != nil && (!no.passing() || time.Since(refused) > refusedFor) {
			return nil, no
		}
		if !pause(wait) {
			return nil, net.ErrClosed
		}
	}
}

// patience waits before the client has been answered at all: it is listened to, to hear if it leaves. A client that goes
// on without an answer is none.
func (s *session) patience(d time.Duration) bool {
	_ = s.client.SetReadDeadline(time.Now().Add(d))
	_, err := s.in.Peek(1)
	_ = s.client.SetReadDeadline(time.Time{})
	return errors.Is(err, os.ErrDeadlineExceeded)
}
