package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// socket speaks nftables in the network namespace that it was opened in.
type socket struct {
	fd int
	// most is how many bytes the kernel takes at once.
	most int
}

const (
	wantedBuffer = 64 << 20
	// slack is what of the buffer isn't for messages.
	slack = 4 << 10
)

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a socket to nftables: %w", err)
	}
	s := &socket{fd: fd}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, wantedBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, wantedBuffer) // as much as the host lets users have
	}
	have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("opening a socket to nftables: %w", err)
	}
	s.most = have - slack
	return s, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// part is what of a batch may be sent by itself.
type part struct{ from, to int } // batch.bytes[from:to]

// send has the kernel carry a batch out: in one transaction when it takes that much at once, else in several, none of
// which divides what the batch has as one step.
func (s *socket) send(b *batch) error {
	steps := b.steps()
	for len(steps) > 0 {
		n, size := 1, steps[0].to-steps[0].from
		for n < len(steps) && size+steps[n].to-steps[n].from <= s.most {
			size += steps[n].to - steps[n].from
			n++
		}
		if err := s.transact(b, part{steps[0].from, steps[n-1].to}); err != nil {
			return err
		}
		steps = steps[n:]
	}
	return nil
}

// transact sends a part of a batch. The kernel has done all of it when sending returns, and its answers are there.
func (s *socket) transact(b *batch, p part) error {
	last := 0
	messages := batch{what: []string{""}}
	messages.begin(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, "")
	messages.end()
	start := len(messages.bytes)
	messages.bytes = append(messages.bytes, b.bytes[p.from:p.to]...)
	for at := start; at < len(messages.bytes); at += int(binary.NativeEndian.Uint32(messages.bytes[at:])) {
		last = at
	}
	flags := messages.bytes[last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	messages.begin(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, "")
	messages.end()
	if err := unix.Sendto(s.fd, messages.bytes, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending %d bytes to nftables: %w", len(messages.bytes), err)
	}
	return s.answers(b, binary.NativeEndian.Uint32(messages.bytes[last+8:]))
}

// answers reads what the kernel says to a transaction: errors, and that it has done the last message.
func (s *socket) answers(b *batch, last uint32) error {
	var refused error
	done := false
	buffer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, buffer, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && refused == nil && !done:
			return errors.New("nftables gave no answer")
		case errors.Is(err, unix.EAGAIN):
			return refused
		case err != nil:
			return errors.Join(refused, fmt.Errorf("reading the answer of nftables: %w", err))
		}
		for rest := buffer[:n]; len(rest) >= unix.SizeofNlMsghdr+4+unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < unix.SizeofNlMsghdr+4+unix.SizeofNlMsghdr || size > len(rest) {
				break
			}
			code := int32(binary.NativeEndian.Uint32(rest[unix.SizeofNlMsghdr:]))
			sequence := binary.NativeEndian.Uint32(rest[unix.SizeofNlMsghdr+4+8:])
			done = done || code == 0 && sequence == last
			if code != 0 && refused == nil {
				refused = b.refusal(sequence, code)
			}
			rest = rest[min(len(rest), (size+3)&^3):]
		}
	}
}

// refusal says what the kernel refused.
func (b *batch) refusal(sequence uint32, code int32) error {
	what := "the transaction"
	if int64(sequence) < int64(len(b.what)) {
		what = b.what[sequence]
	}
	if code == math.MinInt32 {
		return fmt.Errorf("nftables, %s: refused", what)
	}
	return fmt.Errorf("nftables, %s: %w", what, unix.Errno(-code))
}
