package netem

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

// socket speaks rtnetlink with the network namespace of the thread that opened it.
type socket struct {
	fd     int
	buffer []byte
}

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(int64(30 * time.Second))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1), // refusals don't quote the request
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1), // but say why in words
	)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("setting a netlink socket up: %w", err)
	}
	return &socket{fd: fd, buffer: make([]byte, 32<<10)}, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// namespace is a number that no other network namespace has had since the machine was started.
func (s *socket) namespace() (uint64, error) {
	cookie, err := unix.GetsockoptUint64(s.fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("asking for the cookie of a network namespace: %w (Linux has it since 5.14)", err)
	}
	return cookie, nil
}

// batch is a series of requests that are carried out in order. They are sent many at once.
type batch struct {
	parts []part
}

// part is as much of a batch as is sent at once: the answers and the requests have to fit into the socket.
type part struct {
	messages []byte
	steps    map[uint32]step
}

const (
	partBytes    = 64 << 10
	partMessages = 128
)

type step struct {
	// what says in an error what it was for.
	what string
	// done is the error that means that there was nothing to do.
	done unix.Errno
}

func (b *batch) add(s step, request *nl.NetlinkRequest) {
	request.Flags |= unix.NLM_F_ACK
	message := request.Serialize()
	if last := len(b.parts) - 1; last < 0 || len(b.parts[last].messages)+len(message) > partBytes || len(b.parts[last].steps) == partMessages {
		b.parts = append(b.parts, part{steps: map[uint32]step{}})
	}
	p := &b.parts[len(b.parts)-1]
	p.messages = append(p.messages, message...)
	p.steps[request.Seq] = s
}

// do carries a batch out, until a part of it has something that the kernel refuses.
func (s *socket) do(b *batch) error {
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

func (s *socket) acknowledged(steps map[uint32]step) error {
	var first error
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
			if err := refusal(m); err != nil && !errors.Is(err, step.done) {
				first = cmp.Or(first, fmt.Errorf("%s: %w", step.what, err))
			}
		}
	}
	return first
}

// list calls each with every answer to a request for a list.
func (s *socket) list(request *nl.NetlinkRequest, each func(payload []byte)) error {
	request.Flags |= unix.NLM_F_DUMP
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

func (s *socket) send(messages []byte) error {
	if err := unix.Sendto(s.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending to netlink: %w", err)
	}
	return nil
}

func (s *socket) receive() ([]syscall.NetlinkMessage, error) {
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
