package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	numberSize = 8     // bytes of the number that tells one ball from another
	maxSize    = 65507 // bytes that fit into a UDP packet over IPv4
)

// game says how a ball is played.
type game struct {
	// rounds are measured, warmUp are played before them.
	rounds, warmUp int
	// size of a ball, in bytes.
	size int
	// patience is how long to wait for a ball to come back.
	patience time.Duration
}

func (g game) check() error {
	switch {
	case g.rounds < 1:
		return fmt.Errorf("parameter rounds is %d; it has to be 1 or more", g.rounds)
	case g.warmUp < 0:
		return fmt.Errorf("parameter warmup is %d; it has to be 0 or more", g.warmUp)
	case g.size < numberSize || g.size > maxSize:
		return fmt.Errorf("parameter size is %d; it has to be between %d and %d bytes", g.size, numberSize, maxSize)
	case g.patience <= 0:
		return fmt.Errorf("parameter patience is %s; it has to be longer than nothing", g.patience)
	}
	return nil
}

// stream plays over one TCP connection. A ball that doesn't come back ends the game.
func (g game) stream(ctx context.Context, to netip.AddrPort, record func(time.Duration) error) error {
	dialer := net.Dialer{Timeout: g.patience}
	c, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	ball := make([]byte, g.size)
	for i := range g.warmUp + g.rounds {
		started := time.Now()
		if err := c.SetDeadline(started.Add(g.patience)); err != nil {
			return err
		}
		if _, err := c.Write(numbered(ball, i)); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
		if _, err := io.ReadFull(c, ball); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
		took := time.Since(started)
		if got := number(ball); got != i {
			return fmt.Errorf("round %d: ball %d came back", i, got)
		}
		if i >= g.warmUp {
			if err := record(took); err != nil {
				return err
			}
		}
	}
	return nil
}

// packets plays over UDP. A ball that doesn't come back in time is lost, and the game goes on; lost counts those of the
// measured rounds.
func (g game) packets(ctx context.Context, to netip.AddrPort, record func(time.Duration) error) (lost int, err error) {
	c, err := net.Dial("udp", to.String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	ball := make([]byte, g.size)
	for i := range g.warmUp + g.rounds {
		took, err := g.packet(c, ball, i)
		switch {
		case i < g.warmUp && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)):
		case errors.Is(err, os.ErrDeadlineExceeded):
			lost++
		case err != nil:
			return lost, fmt.Errorf("round %d: %w", i, err)
		default:
			if err := record(took); err != nil {
				return lost, err
			}
		}
	}
	if lost == g.rounds {
		return lost, fmt.Errorf("not one of %d packets came back", lost)
	}
	return lost, nil
}

// packet plays one ball. One of an earlier round, which was given up, may come in between.
func (g game) packet(c net.Conn, ball []byte, i int) (time.Duration, error) {
	started := time.Now()
	if err := c.SetDeadline(started.Add(g.patience)); err != nil {
		return 0, err
	}
	if _, err := c.Write(numbered(ball, i)); err != nil {
		return 0, err
	}
	for {
		n, err := c.Read(ball)
		if err != nil {
			return 0, err
		}
		if n == g.size && number(ball) == i {
			return time.Since(started), nil
		}
	}
}

func numbered(ball []byte, i int) []byte {
	binary.BigEndian.PutUint64(ball, uint64(i))
	return ball
}

func number(ball []byte) int { return int(binary.BigEndian.Uint64(ball)) }

// answers send back what they get, until they are closed.
type answers struct {
	stream  net.Listener
	packets net.PacketConn
}

// answer begins to answer at an address. start is how goroutines are started.
func answer(ctx context.Context, start func(func()), at netip.Addr) (*answers, error) {
	var config net.ListenConfig
	anyPort := netip.AddrPortFrom(at, 0).String()
	stream, err := config.Listen(ctx, "tcp", anyPort)
	if err != nil {
		return nil, err
	}
	packets, err := config.ListenPacket(ctx, "udp", anyPort)
	if err != nil {
		stream.Close()
		return nil, err
	}
	a := &answers{stream: stream, packets: packets}
	start(func() { a.serveStream(start) })
	start(a.servePackets)
	return a, nil
}

func (a *answers) tcp() netip.AddrPort { return a.stream.Addr().(*net.TCPAddr).AddrPort() }
func (a *answers) udp() netip.AddrPort { return a.packets.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close stops answering.
func (a *answers) Close() error { return errors.Join(a.stream.Close(), a.packets.Close()) }

func (a *answers) serveStream(start func(func())) {
	for {
		c, err := a.stream.Accept()
		if err != nil {
			return
		}
		start(func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // ends when the other side does
		})
	}
}

func (a *answers) servePackets() {
	ball := make([]byte, maxSize)
	for {
		n, from, err := a.packets.ReadFrom(ball)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = a.packets.WriteTo(ball[:n], from) // what is lost is counted by who sent it
		}
	}
}
