package userspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// The ring takes 4,096 packets: 60 ms at the rate that one processor can shape at.
	ringFrame  = 2048
	ringBlock  = 64 << 10
	ringFrames = 4096
)

// link is the end of a link: a ring into which the kernel writes what arrives, and a socket to send by.
type link struct {
	fd   int
	ring []byte
	head int

	messages [batch]message
	vectors  [batch]unix.Iovec
}

// message is mmsghdr of sys/socket.h.
type message struct {
	header unix.Msghdr
	sent   uint32
	_      uint32
}

// openLink opens the link of that index in the network namespace of the calling thread.
func openLink(index int) (*link, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	l := &link{fd: fd}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{
			Block_size: ringBlock, Block_nr: ringFrames * ringFrame / ringBlock, Frame_size: ringFrame, Frame_nr: ringFrames,
		}),
	)
	if err != nil {
		l.close()
		return nil, fmt.Errorf("setting a packet socket up: %w", err)
	}
	if l.ring, err = unix.Mmap(fd, 0, ringFrames*ringFrame, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		l.close()
		return nil, fmt.Errorf("mapping the ring of a packet socket: %w", err)
	}
	// Nothing arrives before this.
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		l.close()
		return nil, fmt.Errorf("binding a packet socket to the link %d: %w", index, err)
	}
	for i := range l.messages {
		l.messages[i].header.Iov = &l.vectors[i]
		l.messages[i].header.SetIovlen(1)
	}
	return l, nil
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (l *link) close() {
	if l.ring != nil {
		_ = unix.Munmap(l.ring)
	}
	unix.Close(l.fd)
}

// arrived is the next frame in the ring and when the kernel received it, on the wall's clock; nil when there is none.
// It stays as it is until done is called.
func (l *link) arrived() (frame []byte, wall int64) {
	slot := l.ring[l.head*ringFrame : (l.head+1)*ringFrame]
	h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
	if atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0 {
		return nil, 0
	}
	return slot[h.Mac : uint32(h.Mac)+h.Snaplen], int64(h.Sec)*1e9 + int64(h.Nsec)
}

// done gives the frame that arrived returned back to the kernel.
func (l *link) done() {
	h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&l.ring[l.head*ringFrame]))
	atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL)
	l.head = (l.head + 1) % ringFrames
}

// send sends frames, at most batch of them, and returns how many the kernel wouldn't take, and why.
func (l *link) send(packets []*packet) (refused int, why error) {
	for i, p := range packets {
		l.vectors[i].Base = &p.frame[0]
		l.vectors[i].SetLen(len(p.frame))
	}
	for from := 0; from < len(packets); {
		// It never blocks, so the Go scheduler needn't know.
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(l.fd), uintptr(unsafe.Pointer(&l.messages[from])), uintptr(len(packets)-from), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0: // of the first of them
			refused, why = refused+1, errno
			from++
		default:
			from += int(n)
		}
	}
	return refused, why
}

// overflown is how many packets the ring had no room for since the last call.
func (l *link) overflown() (int64, error) {
	s, err := unix.GetsockoptTpacketStats(l.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("asking for lost packets: %w", err)
	}
	return int64(s.Drops), nil
}
