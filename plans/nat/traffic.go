package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

const (
	// streamSize is how many bytes go out by TCP and come back.
	streamSize = 32 << 10
	// largeSize is the size of a message that takes several fragments.
	largeSize = 4000
	// closedPort is one that nobody listens on.
	closedPort = 9
)

// traffic takes through the NAT what is more than a small packet of UDP: a TCP connection, a packet in fragments, and the
// ICMP error about one to a closed port.
func (p *player) traffic(ctx context.Context) error {
	service := p.services[0]
	err := together(p.Go,
		naming("a connection", func() error { return p.stream(ctx, service.Stream) }),
		naming("a packet in fragments", func() error { return p.large(ctx, service.First) }),
		naming("a packet to a closed port", func() error {
			return p.refused(ctx, netip.AddrPortFrom(service.First.Addr(), closedPort))
		}),
	)
	p.rows = []row{{p.kind, "all kinds", count(err == nil), 1}}
	if err != nil {
		return fmt.Errorf("%s (%s): %w", p.name(), p.kind, err)
	}
	return p.Results.Point("traffic_passed", 1)
}

// stream sends over TCP what has to come back unchanged, behind a line with the address that the other side sees.
func (p *player) stream(ctx context.Context, to netip.AddrPort) error {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.own, 0)), Timeout: 10 * time.Second}
	c, err := dialer.DialContext(ctx, "tcp4", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	sent := bytes.Repeat([]byte("groundplan "), streamSize/11)
	p.Go(func() {
		_, _ = c.Write(sent) // what is missing is missed below
		_ = c.(*net.TCPConn).CloseWrite()
	})
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	seen, rest, _ := bytes.Cut(got, []byte("\n"))
	from, err := netip.ParseAddrPort(string(seen))
	if err != nil {
		return fmt.Errorf("the other side does not say whom it sees: %w", err)
	}
	if !bytes.Equal(rest, sent) {
		return fmt.Errorf("%d bytes came back as %d others", len(sent), len(rest))
	}
	if translated := from.Addr() != p.own; translated != expected[p.kind].translated {
		return fmt.Errorf("the other side sees %v, whose own address is %v", from, p.own)
	}
	return nil
}

// large has a message come back that is more than a link takes at once.
func (p *player) large(ctx context.Context, to netip.AddrPort) error {
	l, err := p.line()
	if err != nil {
		return err
	}
	defer l.Close()
	padding := strings.Repeat("x", largeSize)
	for range 10 {
		if err := l.say(to, message{Kind: where, Padding: padding}); err != nil {
			return err
		}
		m, _, ok, err := l.hear(time.Now().Add(p.patience))
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if ok {
			if m.Padding != padding {
				return fmt.Errorf("%d bytes of padding came back as %d others", len(padding), len(m.Padding))
			}
			return nil
		}
	}
	return fmt.Errorf("no answer from %v to messages of %d bytes", to, largeSize)
}

// refused sends to a port where nobody is, and is told so.
func (p *player) refused(ctx context.Context, to netip.AddrPort) error {
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.own, 0))}
	c, err := dialer.DialContext(ctx, "udp4", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	for range 10 {
		if err := c.SetDeadline(time.Now().Add(p.patience)); err != nil {
			return err
		}
		_, err := c.Write([]byte("anybody?"))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("nothing said that nobody is at %v", to)
}

// echo tells whoever connects how it sees him and sends back what comes, until the listener is closed.
func echo(start func(func()), l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		start(func() {
			defer c.Close()
			if _, err := fmt.Fprintf(c, "%s\n", c.RemoteAddr()); err == nil {
				_, _ = io.Copy(c, c) // ends when the other side does
			}
		})
	}
}
