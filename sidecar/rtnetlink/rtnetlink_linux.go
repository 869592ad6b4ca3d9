// Package rtnetlink speaks with one network namespace about its links, addresses, routes and queueing disciplines: it sends
// many requests at once and says which of them the kernel refused, and why.
package rtnetlink

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Socket speaks with one network namespace: the one its thread was in when it was opened. It is not safe for concurrent
// use.
type Socket struct {
	fd     int
	buffer []byte
}

// Open opens a socket to the network namespace of the calling thread.
func Open() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	s := &Socket{fd: fd, buffer: make([]byte, 64<<10)}
	timeout := unix.NsecToTimeval(int64(30 * time.Second))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1), // refusals don't quote the request
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1), // but say why in words
	)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("setting a netlink socket up: %w", err)
	}
	return s, nil
}

// Close closes the socket.
func (s *Socket) Close() { unix.Close(s.fd) }

// Namespace is a number that no other network namespace has had since the machine was started.
func (s *Socket) Namespace() (uint64, error) {
	cookie, err := unix.GetsockoptUint64(s.fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("asking for the cookie of a network namespace: %w (Linux has it since 5.14)", err)
	}
	return cookie, nil
}

// Batch is a series of requests that are carried out in order. They are sent at once, or in parts where that is more than
// its limits; the answers to more than about two hundred may not fit into the socket.
type Batch struct {
	// MaxRequests and MaxBytes limit what is sent at once; 0: no limit.
	MaxRequests, MaxBytes int

	parts []part
}

// part is what of a batch is sent at once.
type part struct {
	messages []byte
	steps    map[uint32]Step
}

// Step is what a request of a batch is for.
type Step struct {
	// What names it in an error.
	What string
	// Done is the error that means that there was nothing to do.
	Done unix.Errno
}

// Refused is the error of a batch of which the kernel refused something.
type Refused struct {
	// First is the first refusal.
	First error
	// More is how many came after it.
	More int
}

func (r *Refused) Error() string {
	if r.More == 0 {
		return r.First.Error()
	}
	return fmt.Sprintf("%v (and %d more refusals after it)", r.First, r.More)
}

func (r *Refused) Unwrap() error { return r.First }

// Add appends a request.
func (b *Batch) Add(s Step, request *nl.NetlinkRequest) {
	request.Flags |= unix.NLM_F_ACK
	message := request.Serialize()
	if last := len(b.parts) - 1; last < 0 || b.full(b.parts[last], message) {
		b.parts = append(b.parts, part{steps: make(map[uint32]Step)})
	}
	p := &b.parts[len(b.parts)-1]
	p.messages = append(p.messages, message...)
	p.steps[request.Seq] = s
}

// full says that a message has to go into another part.
func (b *Batch) full(p part, message []byte) bool {
	return b.MaxRequests > 0 && len(p.steps) >= b.MaxRequests || b.MaxBytes > 0 && len(p.messages)+len(message) > b.MaxBytes
}

// Do carries a batch out, until a part of it has something that the kernel refuses: then the error is a *Refused, and the
// rest of that part has been tried all the same.
func (s *Socket) Do(b *Batch) error {
	for _, p := range b.parts {
		if err := s.send(p.messages); err != nil {
			return err
		}
		if err := s.acknowledged(p.steps); err != nil {
			return err
		}
	}
	return nil
}

// acknowledged waits for the answers to a part.
func (s *Socket) acknowledged(steps map[uint32]Step) error {
	var first error
	refused := 0
	for open := len(steps); open > 0; {
		messages, err := s.receive()
		if err != nil {
			return errors.Join(first, err)
		}
		for _, m := range messages {
			step, ours := steps[m.Header.Seq]
			if !ours || m.Header.Type != unix.NLMSG_ERROR {
				continue
			}
			open--
			if err := refusal(m); err != nil && !errors.Is(err, step.Done) {
				first = cmp.Or(first, fmt.Errorf("%s: %w", step.What, err))
				refused++
			}
		}
	}
	if first != nil {
		return &Refused{First: first, More: refused - 1}
	}
	return nil
}

// Query calls each with every answer to a request that asks for a list (unix.NLM_F_DUMP) or to be told when it has been
// answered (unix.NLM_F_ACK).
func (s *Socket) Query(request *nl.NetlinkRequest, each func(payload []byte)) error {
	if err := s.send(request.Serialize()); err != nil {
		return err
	}
	for {
		messages, err := s.receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			switch {
			case m.Header.Seq != request.Seq:
			case m.Header.Type == unix.NLMSG_DONE:
				return nil
			case m.Header.Type == unix.NLMSG_ERROR:
				return refusal(m)
			default:
				each(m.Data)
			}
		}
	}
}

func (s *Socket) send(messages []byte) error {
	if err := unix.Sendto(s.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending to netlink: %w", err)
	}
	return nil
}

func (s *Socket) receive() ([]syscall.NetlinkMessage, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buffer, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, errors.New("receiving from netlink: the kernel gave no answer for 30 s")
		case err != nil:
			return nil, fmt.Errorf("receiving from netlink: %w", err)
		}
		return syscall.ParseNetlinkMessage(s.buffer[:n])
	}
}

// refusal is the error in an NLMSG_ERROR message, with the kernel's words where it has some; nil for success.
func refusal(m syscall.NetlinkMessage) error {
	code := int32(binary.NativeEndian.Uint32(m.Data))
	if code == 0 {
		return nil
	}
	err := unix.Errno(-code)
	// Behind the code stands the header of the request, then attributes.
	const attributes = 4 + unix.SizeofNlMsghdr
	if m.Header.Flags&unix.NLM_F_ACK_TLVS != 0 && len(m.Data) > attributes {
		parsed, _ := nl.ParseRouteAttr(m.Data[attributes:])
		for _, a := range parsed {
			if a.Attr.Type == unix.NLMSGERR_ATTR_MSG {
				return fmt.Errorf("%w (%s)", err, nl.BytesToString(a.Value))
			}
		}
	}
	return err
}
