package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Trips are round trips, in the order of sending; a packet that didn't come back has none.
type Trips struct {
	Sent  int
	Times []time.Duration
}

func (t Trips) median() time.Duration {
	if len(t.Times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t.Times))
	return sorted[len(sorted)/2]
}

// echo sends packets that are sent back, and times them. It waits for the last one for patience.
func echo(ctx context.Context, to endpoint, packets int, interval, patience time.Duration) (Trips, error) {
	c, err := net.DialUDP("udp", nil, to.udp())
	if err != nil {
		return Trips{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	t := &trips{key: rand.Uint64() | echoed, sent: make([]time.Time, packets), took: make([]time.Duration, packets)}
	received := make(chan struct{})
	go func() {
		defer close(received)
		t.receive(c)
	}()
	packet := make([]byte, smallest)
	for i := range packets {
		fill(packet, t.key, i)
		t.send(i)
		if _, err = c.Write(packet); err != nil && refusal(err) == nil {
			break
		}
		if err = sleep(ctx, interval); err != nil {
			break
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(patience)) // an error is that it is closed
	<-received
	times := slices.DeleteFunc(t.took, func(d time.Duration) bool { return d == 0 })
	return Trips{Sent: packets, Times: times}, cmp.Or(err, ctx.Err())
}

// trips are round trips under way.
type trips struct {
	key  uint64
	mu   sync.Mutex
	sent []time.Time
	took []time.Duration
	back int
}

func (t *trips) send(number int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent[number] = time.Now()
}

// receive takes what comes back, until all has, or the socket's deadline or end.
func (t *trips) receive(c *net.UDPConn) {
	packet := make([]byte, largest)
	for {
		n, err := c.Read(packet)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err == nil && t.take(packet[:n]) {
			return
		}
	}
}

// take notes a packet that came back, and says whether it was the last one.
func (t *trips) take(packet []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, number, _, ok := read(packet)
	if ok && key == t.key && number < len(t.sent) && t.took[number] == 0 {
		t.took[number] = time.Since(t.sent[number])
		t.back++
	}
	return t.back == len(t.sent)
}

// series sends packets one way; what becomes of them its receiver knows by the key.
func series(ctx context.Context, to endpoint, key uint64, packets, size int, interval time.Duration) error {
	c, err := net.DialUDP("udp", nil, to.udp())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := withoutChecksum(c, to.Address.Is6()); err != nil {
		return err
	}
	packet := make([]byte, size)
	began := time.Now()
	for i := range packets {
		if wait := time.Duration(i)*interval - time.Since(began); wait > 0 {
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
		fill(packet, key, i)
		if _, err := c.Write(packet); err != nil && refusal(err) == nil {
			return fmt.Errorf("sending packet %d: %w", i, err)
		}
	}
	return nil
}

// oneWay is the key of a series that isn't sent back.
func oneWay() uint64 { return rand.Uint64() &^ echoed }

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// What becomes of the first packets.
const (
	accepted = "accept"
	rejected = "reject"
	dropped  = "drop"
)

// refusal is err when it means that somebody has answered that packets don't get through.
func refusal(err error) error {
	for _, known := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES, syscall.ECONNRESET} {
		if errors.Is(err, known) {
			return err
		}
	}
	return nil
}

// knock opens a TCP connection and sends UDP packets, and says what comes of both within patience, and how long it took
// to know about TCP.
func knock(ctx context.Context, to endpoint, patience time.Duration) (udp, tcp string, took time.Duration, err error) {
	var late net.Error
	began := time.Now()
	c, dialErr := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", to.tcp())
	took = time.Since(began)
	switch {
	case dialErr == nil:
		tcp = accepted
		err = c.Close()
	case refusal(dialErr) != nil:
		tcp = rejected
	case errors.As(dialErr, &late) && late.Timeout():
		tcp = dropped
	default:
		err = dialErr
	}
	if err != nil {
		return udp, tcp, took, err
	}
	udp, err = knockUDP(ctx, to, patience)
	return udp, tcp, took, err
}

func knockUDP(ctx context.Context, to endpoint, patience time.Duration) (string, error) {
	c, err := net.DialUDP("udp", nil, to.udp())
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	packet := make([]byte, smallest)
	fill(packet, oneWay()|echoed, 0)
	until := time.Now().Add(patience)
	for time.Now().Before(until) {
		err := exchange(c, packet, 50*time.Millisecond)
		switch {
		case err == nil:
			return accepted, nil
		case refusal(err) != nil:
			return rejected, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return "", errors.Join(err, ctx.Err())
		}
	}
	return dropped, nil
}

// exchange sends bytes and waits until as many come back.
func exchange(c net.Conn, bytes []byte, patience time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write(bytes); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, len(bytes)))
	return err
}
