package prober

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Endpoint is where probes of an instance are sent from and come to. It may be used from any goroutine; what comes in is
// for one probe at a time, others wait.
type Endpoint struct {
	inside  func(func() error) error
	address netip.Addr
	packets *net.UDPConn
	stream  *net.TCPListener

	// receiving is held by the probe that what comes in is for.
	receiving sync.Mutex
}

// Open opens the sockets of an endpoint at an address of an instance. inside does work on a thread in the instance's
// network namespace.
func Open(inside func(func() error) error, address netip.Addr) (*Endpoint, error) {
	e := &Endpoint{inside: inside, address: address.Unmap()}
	at := netip.AddrPortFrom(e.address, 0)
	err := inside(func() error {
		var err error
		if e.packets, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		e.stream, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	})
	if err == nil {
		err = prepare(e.packets, e.address.Is6())
	}
	if err != nil {
		err = fmt.Errorf("opening the sockets of a probe at %s: %w", address, err)
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Address is where it is.
func (e *Endpoint) Address() netip.Addr { return e.address }

// Close closes its sockets; probes that use them fail.
func (e *Endpoint) Close() error {
	var faults [2]error
	if e.packets != nil {
		faults[0] = e.packets.Close()
	}
	if e.stream != nil {
		faults[1] = e.stream.Close()
	}
	return errors.Join(faults[:]...)
}

// port is where its UDP socket listens.
func (e *Endpoint) port() netip.AddrPort {
	return netip.AddrPortFrom(e.address, uint16(e.packets.LocalAddr().(*net.UDPAddr).Port))
}

// headers is the size of IP and UDP headers.
func (e *Endpoint) headers() int {
	if e.address.Is6() {
		return headers6
	}
	return headers4
}

// buffer is how much a socket should hold, in bytes. Without privileges it is less.
const buffer = 8 << 20

// prepare asks for what probes need of a UDP socket.
func prepare(c *net.UDPConn, six bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	control := func(descriptor uintptr) {
		fd := int(descriptor)
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer) // what the limit allows has to do
		}
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, buffer)
		}
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1),
			withoutChecksum(fd, six))
	}
	return errors.Join(raw.Control(control), err)
}

// withoutChecksum sends packets without a checksum, and receives them, so that damaged ones are seen.
func withoutChecksum(fd int, six bool) error {
	if !six {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1))
}

// send sends one packet and says when, by the clock of the kernel's notes.
func (e *Endpoint) send(payload []byte, to netip.AddrPort) (int64, error) {
	now := time.Now().UnixNano()
	_, err := e.packets.WriteToUDPAddrPort(payload, to)
	return now, err
}

// arrival is a packet that came in.
type arrival struct {
	payload []byte // until the next one is read
	at      int64  // when, in nanoseconds of Unix time
	overrun uint32 // how many the socket has lost since it was opened
}

// receive hands over what comes in until the deadline, the end of ctx, or false from take.
func (e *Endpoint) receive(ctx context.Context, until <-chan time.Time, take func(arrival) bool) error {
	if err := e.packets.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	done := make(chan struct{})
	var waker sync.WaitGroup
	waker.Go(func() {
		select {
		case <-ctx.Done():
		case <-until:
		case <-done:
			return
		}
		_ = e.packets.SetReadDeadline(time.Unix(1, 0))
	})
	defer waker.Wait()
	defer close(done)
	payload, notes := make([]byte, MaxSize), make([]byte, 256)
	for {
		n, m, _, _, err := e.packets.ReadMsgUDPAddrPort(payload, notes)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			if netError, ok := errors.AsType[net.Error](err); ok && netError.Timeout() {
				return ctx.Err()
			}
			return err
		}
		a, err := noted(payload[:n], notes[:m])
		if err != nil {
			return err
		}
		if !take(a) {
			return ctx.Err()
		}
	}
}

// noted reads what the kernel noted about a packet.
func noted(payload, notes []byte) (arrival, error) {
	a := arrival{payload: payload}
	messages, err := unix.ParseSocketControlMessage(notes)
	if err != nil {
		return a, fmt.Errorf("reading when a packet came in: %w", err)
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16:
			a.at = int64(binary.NativeEndian.Uint64(m.Data))*int64(time.Second) + int64(binary.NativeEndian.Uint64(m.Data[8:]))
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_RXQ_OVFL && len(m.Data) >= 4:
			a.overrun = binary.NativeEndian.Uint32(m.Data)
		}
	}
	if a.at == 0 {
		return a, errors.New("the kernel didn't note when a packet came in")
	}
	return a, nil
}
