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
		a.UDP, faults[1] = knock(ctx, from, to, patience)
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

// connect opens a TCP connection and closes it again.
func connect(ctx context.Context, from, to *Endpoint) (links.Policy, error) {
	var made net.Conn
	local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.address, 0))
	err := from.inside(func() error {
		var err error
		made, err = (&net.Dialer{LocalAddr: local, KeepAlive: -1}).DialContext(ctx, "tcp", to.stream.Addr().String())
		return err
	})
	if policy, ok := met(err); err != nil {
		if ok {
			err = nil
		}
		return policy, err
	}
	// Reset, so that nothing lingers on either side.
	err = errors.Join(made.(*net.TCPConn).SetLinger(0), made.Close())
	if deadline, ok := ctx.Deadline(); ok {
		err = errors.Join(err, to.stream.SetDeadline(deadline))
	}
	accepted, acceptErr := to.stream.Accept()
	if acceptErr == nil {
		acceptErr = accepted.Close()
	} else if _, ok := met(acceptErr); ok {
		acceptErr = nil // it was reset before it could be taken
	}
	return links.Accept, errors.Join(err, acceptErr)
}

// knock sends UDP packets until one of them is seen or refused.
func knock(ctx context.Context, from, to *Endpoint, patience time.Duration) (links.Policy, error) {
	var socket *net.UDPConn
	err := from.inside(func() error {
		var err error
		local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.address, 0))
		socket, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to.port()))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := rand.Uint64()
	var work sync.WaitGroup
	seen := make(chan error, 1)
	work.Go(func() {
		came := false
		err := to.receive(ctx, nil, func(a arrival) bool {
			_, _, came = read(a.payload, key)
			return !came
		})
		if came {
			err = nil
		}
		seen <- err
	})
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
