package prober

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

// Answer is what became of packets that were the first of their kind: let through, refused or lost.
type Answer struct {
	// UDP is about the way there only. TCP needs the way back too: where that is shut, a connection isn't made either.
	UDP, TCP links.Policy
	// UDPAfter and TCPAfter are how long it took to know; for what is lost, how long was waited.
	UDPAfter, TCPAfter time.Duration
}

// knocks is how many UDP packets are sent, over the first half of the patience: any one may get lost.
const knocks = 5

// Knock sends UDP packets and opens a TCP connection from new ports of one endpoint to the other, and says what comes of
// them within patience.
func Knock(ctx context.Context, from, to *Endpoint, patience time.Duration) (Answer, error) {
	to.receiving.Lock()
	defer to.receiving.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var a Answer
	var faults [2]error
	var both sync.WaitGroup
	began := time.Now()
	both.Go(func() {
		a.TCP, faults[0] = connect(ctx, from, to)
		a.TCPAfter = time.Since(began)
	})
	both.Go(func() {
		key := rand.Uint64()
		a.UDP, faults[1] = knock(ctx, from, to.port(), key, patience, func(ctx context.Context) error { return to.await(ctx, key) })
		a.UDPAfter = time.Since(began)
	})
	both.Wait()
	if err := errors.Join(faults[:]...); err != nil {
		return a, fmt.Errorf("knocking at %s from %s: %w", to.address, from.address, err)
	}
	return a, nil
}

// refusals are what a socket says when somebody has answered that packets don't get through. Which one depends on the
// answer and on the address family.
var refusals = []error{
	syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES, syscall.EPERM, syscall.ECONNRESET, syscall.ENOPROTOOPT,
}

// met says what an error of a socket means; ok is false when it means neither.
func met(err error) (policy links.Policy, ok bool) {
	for _, refusal := range refusals {
		if errors.Is(err, refusal) {
			return links.Reject, true
		}
	}
	lost := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)
	return links.Drop, lost
}

// call opens a TCP connection and closes it again. What it was reset by may be accepted yet, or not.
func call(ctx context.Context, from *Endpoint, to string) (links.Policy, error) {
	var made net.Conn
	local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.address, 0))
	err := from.inside(func() error {
		var err error
		made, err = (&net.Dialer{LocalAddr: local, KeepAlive: -1}).DialContext(ctx, "tcp", to)
		return err
	})
	if policy, ok := met(err); err != nil {
		if ok {
			err = nil
		}
		return policy, err
	}
	// Reset, so that nothing lingers on either side.
	return links.Accept, errors.Join(made.(*net.TCPConn).SetLinger(0), made.Close())
}

// connect calls, and takes what comes of it at the other end.
func connect(ctx context.Context, from, to *Endpoint) (links.Policy, error) {
	policy, err := call(ctx, from, to.stream.Addr().String())
	if policy != links.Accept || err != nil {
		return policy, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = to.stream.SetDeadline(deadline)
	}
	accepted, acceptErr := to.stream.Accept()
	if acceptErr == nil {
		acceptErr = accepted.Close()
	} else if _, ok := met(acceptErr); ok {
		acceptErr = nil // it was reset before it could be taken
	}
	return links.Accept, errors.Join(err, acceptErr)
}

// await waits until a packet comes with that key.
func (e *Endpoint) await(ctx context.Context, key uint64) error {
	came := false
	err := e.receive(ctx, nil, func(a arrival) bool {
		_, _, came = read(a.payload, key)
		return !came
	})
	if came {
		return nil
	}
	return err
}

// knock sends UDP packets until one of them is seen or refused. await returns without an error once one is seen.
func knock(ctx context.Context, from *Endpoint, to netip.AddrPort, key uint64, patience time.Duration, await func(context.Context) error) (links.Policy, error) {
	var socket *net.UDPConn
	err := from.inside(func() error {
		var err error
		local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.address, 0))
		socket, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	seen := make(chan error, 1)
	work.Go(func() { seen <- await(ctx) })
	refused := make(chan error, 2)
	go func() { refused <- awaitRefusal(socket) }()
	work.Go(func() {
		err := sendKnocks(ctx, socket, key, make([]byte, MinSize-headers6), patience/2/knocks)
		if err != nil {
			refused <- err
		}
	})
	var answer error
	select {
	case answer = <-seen:
	case answer = <-refused:
	}
	cancel()
	work.Wait()
	if answer == nil {
		return links.Accept, nil
	}
	if policy, ok := met(answer); ok {
		return policy, nil
	}
	return 0, answer
}

// awaitRefusal returns the error that a connected socket reports.
func awaitRefusal(socket *net.UDPConn) error {
	for {
		if _, err := socket.Read(make([]byte, 1)); err != nil {
			return err
		}
	}
}

// sendKnocks sends until ctx ends, or the socket says that it is of no use.
func sendKnocks(ctx context.Context, socket *net.UDPConn, key uint64, payload []byte, interval time.Duration) error {
	for i := range uint32(knocks) {
		fill(payload, key, i)
		if _, err := socket.Write(payload); err != nil {
			return err
		}
		if pause(ctx, interval) != nil {
			break
		}
	}
	return nil
}
