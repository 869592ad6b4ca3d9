package fabric

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

// socket speaks rtnetlink with one network namespace: the one its thread was in when it was opened. It is not safe for
// concurrent use.
type socket struct {
	fd     int
	buffer []byte
}

// openSocket opens a socket to the network namespace of the calling thread.
func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	s := &socket{fd: fd, buffer: make([]byte, 64<<10)}
	timeout := unix.NsecToTimeval(int64(30 * time.Second))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1), // refusals don't quote the request
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1), // but say why in words
	)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("setting a netlink socket up: %w", err)
	}
	return s, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// batch is a series of requests that are sent at once and carried out in order; one that fails doesn't keep the later
// ones from being tried. The answers to more than batchLimit may not fit into the socket.
type batch struct {
	messages []byte
	steps    map[uint32]step
}

const batchLimit = 200

// step is a request of a batch.
type step struct {
	// what says in an error what it was for.
	what string
	// done is the error that means that there was nothing to do.
	done unix.Errno
}

// add appends a request.
func (b *batch) add(s step, request *nl.NetlinkRequest) {
	if b.steps == nil {
		b.steps = make(map[uint32]step)
	}
	request.Flags |= unix.NLM_F_ACK
	b.steps[request.Seq] = s
	b.messages = append(b.messages, request.Serialize()...)
}

// do carries a batch out and returns what the kernel refused of it.
func (s *socket) do(b *batch) error {
	if len(b.steps) == 0 {
		return nil
	}
	if err := s.send(b.messages); err != nil {
		return err
	}
	var first error
	refused := 0
	for open := len(b.steps); open > 0; {
		messages, err := s.receive()
		if err != nil {
			return errors.Join(first, err)
		}
		for _, m := range messages {
			step, ours := b.steps[m.Header.Seq]
			if !ours || m.Header.Type != unix.NLMSG_ERROR {
				continue
			}
			open--
			if err := refusal(m); err != nil && !errors.Is(err, step.done) {
				first = cmp.Or(first, fmt.Errorf("%s: %w", step.what, err))
				refused++
			}
		}
	}
	if refused > 1 {
		return fmt.Errorf("%w (and %d more refusals after it)", first, refused-1)
	}
	return first
}

// query calls each with every answer to a request for a list.
func (s *socket) query(request *nl.NetlinkRequest, each func(payload []byte)) error {
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
