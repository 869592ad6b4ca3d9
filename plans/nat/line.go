package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"
)

// message is one packet.
type message struct {
	Kind word
	// From is the sender's GlobalSeq. Token tells messages that belong together from others.
	From  int64
	Token uint64
	// At is an address that the message is about.
	At netip.AddrPort `json:",omitzero"`
	// Heard says that the sender has heard the receiver.
	Heard bool `json:",omitzero"`
	// Count and Every say how many ticks are asked for, and how far apart.
	Count int           `json:",omitzero"`
	Every time.Duration `json:",omitzero"`
	// Padding comes back with the answer.
	Padding string `json:",omitzero"`
}

// word says what a message is.
type word string

const (
	where        word = "where"         // asks a rendezvous for the address that it sees
	otherPort    word = "other-port"    // the same, to be answered from another port
	otherAddress word = "other-address" // the same, to be answered from another address
	pass         word = "pass"          // has the other rendezvous answer
	here         word = "here"          // the answer
	ticks        word = "ticks"         // asks for packets at intervals
	tick         word = "tick"
	knock        word = "knock"
	punch        word = "punch"
)

// socket is what is needed of a *net.UDPConn.
type socket interface {
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
	SetReadDeadline(time.Time) error
	LocalAddr() net.Addr
	Close() error
}

// interval is how long a message is waited for before another try.
const interval = 100 * time.Millisecond

// longest is more than any message takes.
const longest = 1 << 13

// line is a socket that speaks messages.
type line struct {
	socket
	seq int64 // of who speaks
}

func (l line) local() netip.AddrPort {
	at := l.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// say sends a message.
func (l line) say(to netip.AddrPort, m message) error {
	m.From = l.seq
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = l.WriteToUDPAddrPort(text, to)
	return err
}

// hear waits for a message, until a deadline: then ok is false. What is no message doesn't count.
func (l line) hear(until time.Time) (m message, from netip.AddrPort, ok bool, err error) {
	if err := l.SetReadDeadline(until); err != nil {
		return m, from, false, err
	}
	b := make([]byte, longest)
	for {
		n, from, err := l.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return message{}, from, false, nil
		case err != nil:
			return message{}, from, false, err
		}
		if json.Unmarshal(b[:n], &m) == nil {
			return m, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), true, nil
		}
		m = message{}
	}
}

// ask sends a question until it is answered or patience is over, which is no error: ok is then false. at is the address
// that the rendezvous sees, from where the answer came from.
func (l line) ask(ctx context.Context, to netip.AddrPort, question word, patience time.Duration) (at, from netip.AddrPort, ok bool, err error) {
	token := rand.Uint64()
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		if err := l.say(to, message{Kind: question, Token: token}); err != nil {
			return at, from, false, fmt.Errorf("asking %v: %w", to, err)
		}
		for again := time.Now().Add(interval); ; {
			m, from, ok, err := l.hear(again)
			if err != nil {
				return at, from, false, fmt.Errorf("asking %v: %w", to, err)
			}
			if !ok {
				break
			}
			if m.Kind == here && m.Token == token {
				return m.At, from, true, nil
			}
		}
	}
	return at, from, false, ctx.Err()
}

// outside is the address that a rendezvous sees. Without an answer there is nothing to go on with.
func (l line) outside(ctx context.Context, of netip.AddrPort) (netip.AddrPort, error) {
	at, _, ok, err := l.ask(ctx, of, where, 10*time.Second)
	if err == nil && !ok {
		err = fmt.Errorf("the rendezvous at %v does not answer", of)
	}
	return at, err
}
