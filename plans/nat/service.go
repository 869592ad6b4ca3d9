package main

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// service is where a rendezvous answers.
type service struct {
	Seq           int64
	First, Second netip.AddrPort
	// Stream is where it answers by TCP.
	Stream netip.AddrPort
}

// server is a rendezvous: it tells whoever asks how it sees him.
type server struct {
	first, second line
	// other is the other rendezvous.
	other netip.AddrPort
	start func(func()) // starts a goroutine
}

// mostTicks bounds what one question sends.
const mostTicks = 1000

// serve answers until the sockets are closed.
func (s server) serve() {
	s.start(func() { s.answer(s.first) })
	s.start(func() { s.answer(s.second) })
}

func (s server) answer(on line) {
	for {
		m, from, ok, err := on.hear(time.Time{})
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || !ok {
			continue // an ICMP error for an earlier answer
		}
		reply := message{Kind: here, Token: m.Token, At: from, Padding: m.Padding}
		// What can't be sent is as good as lost: who asked asks again.
		switch m.Kind {
		case where:
			_ = on.say(from, reply)
		case otherPort:
			_ = s.second.say(from, reply)
		case otherAddress:
			_ = on.say(s.other, message{Kind: pass, Token: m.Token, At: from})
		case pass:
			reply.At = m.At
			_ = on.say(m.At, reply)
		case ticks:
			s.start(func() { tickTo(on, from, m) })
		}
	}
}

func tickTo(on line, to netip.AddrPort, m message) {
	for i := range min(m.Count, mostTicks) {
		if err := on.say(to, message{Kind: tick, Token: m.Token, Count: i + 1}); errors.Is(err, net.ErrClosed) {
			return
		}
		time.Sleep(m.Every)
	}
}
