package main

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

// fakeNet is a network of sockets in memory, some behind NATs that do what kinds.go says of them.
type fakeNet struct {
	mu      sync.Mutex
	sockets map[netip.AddrPort]*fakeSocket
	natted  map[netip.AddrPort]*fakeSocket // by outside
	port    uint16
	host    byte
	timeout time.Duration // of mappings
}

func newNet() *fakeNet {
	return &fakeNet{
		sockets: map[netip.AddrPort]*fakeSocket{}, natted: map[netip.AddrPort]*fakeSocket{}, port: 1000, timeout: time.Hour,
	}
}

// fakeHost is an instance with a router of its own.
type fakeHost struct {
	net     *fakeNet
	own     netip.Addr
	outside netip.Addr // not valid in the open
	kind    kind
}

func (n *fakeNet) add(k kind) *fakeHost {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.host++
	h := &fakeHost{net: n, own: netip.AddrFrom4([4]byte{10, 0, 0, n.host}), kind: k}
	if expected[k].translated {
		h.outside = netip.AddrFrom4([4]byte{10, 0, 255, n.host})
	}
	return h
}

// player is one on the host.
func (h *fakeHost) player(at ...service) *player {
	return &player{Run: &sdk.Run{}, kind: h.kind, open: h.open, services: at, patience: 300 * time.Millisecond}
}

func (n *fakeNet) next(a netip.Addr) netip.AddrPort {
	n.port++
	return netip.AddrPortFrom(a, n.port)
}

func (h *fakeHost) open() (socket, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	s := &fakeSocket{
		host: h, local: h.net.next(h.own), in: make(chan packet, 100), closed: make(chan struct{}),
		outsides: map[netip.AddrPort]netip.AddrPort{}, sent: map[netip.AddrPort]time.Time{},
	}
	h.net.sockets[s.local] = s
	return s, nil
}

type packet struct {
	from netip.AddrPort
	data []byte
}

type fakeSocket struct {
	host     *fakeHost
	local    netip.AddrPort
	in       chan packet
	closed   chan struct{}
	deadline time.Time
	outsides map[netip.AddrPort]netip.AddrPort // by whom it sends to; only one where the mapping is constant
	sent     map[netip.AddrPort]time.Time      // when to whom
}

// outside is the address that somebody sees.
func (s *fakeSocket) outside(to netip.AddrPort) netip.AddrPort {
	h := s.host
	if !h.outside.IsValid() {
		return s.local
	}
	if expected[h.kind].constant {
		to = netip.AddrPort{}
	}
	if _, ok := s.outsides[to]; !ok {
		s.outsides[to] = h.net.next(h.outside)
		h.net.natted[s.outsides[to]] = s
	}
	return s.outsides[to]
}

// admits says whether a packet comes in by an outside.
func (s *fakeSocket) admits(by, from netip.AddrPort) bool {
	if to, ok := func() (netip.AddrPort, bool) {
		for to, outside := range s.outsides {
			if outside == by {
				return to, true
			}
		}
		return by, false
	}(); !ok || to.IsValid() && to != from {
		return false
	}
	for to, at := range s.sent {
		if time.Since(at) > s.host.net.timeout {
			continue
		}
		switch expected[s.host.kind].filter {
		case fromAnywhere:
			return true
		case fromAddress:
			if to.Addr() == from.Addr() {
				return true
			}
		case fromEndpoint:
			if to == from {
				return true
			}
		}
	}
	return false
}

func (s *fakeSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	n := s.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	from := s.outside(to)
	s.sent[to] = time.Now()
	target := n.sockets[to]
	if target != nil && target.host.outside.IsValid() {
		target = nil
	}
	if behind := n.natted[to]; behind != nil && behind.admits(to, from) {
		target = behind
	}
	if target != nil {
		select {
		case target.in <- packet{from, append([]byte(nil), b...)}:
		default:
		}
	}
	return len(b), nil
}

func (s *fakeSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	var end <-chan time.Time
	if !s.deadline.IsZero() {
		end = time.After(time.Until(s.deadline))
	}
	select {
	case p := <-s.in:
		return copy(b, p.data), p.from, nil
	case <-end:
		return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
	case <-s.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (s *fakeSocket) SetReadDeadline(t time.Time) error {
	s.deadline = t
	return nil
}

func (s *fakeSocket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.local) }

func (s *fakeSocket) Close() error {
	close(s.closed)
	return nil
}

// withServices starts two rendezvous.
func withServices(t *testing.T, n *fakeNet) []service {
	t.Helper()
	var servers [rendezvousCount]server
	var all []service
	var work sync.WaitGroup
	t.Cleanup(work.Wait)
	for i := range servers {
		h := n.add(rendezvous)
		var lines [2]line
		for j := range lines {
			s, err := h.open()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			lines[j] = line{s, int64(i)}
		}
		servers[i] = server{first: lines[0], second: lines[1], start: work.Go}
		all = append(all, service{Seq: int64(i), First: lines[0].local(), Second: lines[1].local()})
	}
	for i := range servers {
		servers[i].other = all[1-i].First
		servers[i].serve()
	}
	return all
}
