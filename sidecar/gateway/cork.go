package gateway

import (
	"bufio"
	"net"
	"net/http"
	"sync"
)

// cork gathers what is written to a connection while it is held, so that many small frames cost one write. Frames of
// the WebSocket library that aren't ours (pongs) go the same way.
type cork struct {
	net.Conn
	mu   sync.Mutex
	held bool
	buf  []byte
	err  error // of the first write that failed
}

func (k *cork) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return 0, k.err
	}
	if k.held && len(k.buf)+len(p) <= round {
		k.buf = append(k.buf, p...)
		return len(p), nil
	}
	if k.flush(); k.err != nil {
		return 0, k.err
	}
	n, err := k.Conn.Write(p)
	k.err = err
	return n, err
}

func (k *cork) hold() {
	k.mu.Lock()
	k.held = true
	k.mu.Unlock()
}

// release writes what was gathered.
func (k *cork) release() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held = false
	k.flush()
	return k.err
}

func (k *cork) flush() {
	if len(k.buf) > 0 && k.err == nil {
		_, k.err = k.Conn.Write(k.buf)
	}
	if k.buf = k.buf[:0]; cap(k.buf) > 8<<10 {
		k.buf = nil // ten thousand clients don't each keep a large one
	}
}

// corking is a ResponseWriter whose connection, once hijacked, has a cork.
type corking struct {
	http.ResponseWriter
	cork *cork
}

// Hijack implements http.Hijacker.
func (c *corking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	c.cork = &cork{Conn: nc}
	return c.cork, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(c.cork, 4096)), nil
}
