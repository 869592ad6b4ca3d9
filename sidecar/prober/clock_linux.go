package prober

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// clock answers other nodes that compare theirs with this one's.
type clock struct {
	inside func(func() error) error
	conn   *net.UDPConn
	at     netip.AddrPort
	done   sync.WaitGroup
	// ahead is by how much it is ahead of the machine's: tests have only one machine.
	ahead time.Duration
}

// Of a comparison so many questions are asked, one at a time; what took the least on its way says the most.
const (
	questions = 30
	askEvery  = 3 * time.Millisecond
	// question has its number and when it was sent, answer besides when it came and when the answer was sent.
	questionSize = 16
	answerSize   = questionSize + 16
)

// openClock opens one in a router, that much ahead of the machine's.
func openClock(inside func(func() error) error, at netip.Addr, ahead time.Duration) (*clock, error) {
	c := &clock{inside: inside, ahead: ahead}
	err := inside(func() (err error) {
		c.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
		return err
	})
	if err == nil {
		err = prepare(c.conn, false)
	}
	if err != nil {
		if c.conn != nil {
			c.conn.Close()
		}
		return nil, fmt.Errorf("opening the clock of this node at %s: %w", at, err)
	}
	c.at = c.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	c.done.Go(c.serve)
	return c, nil
}

func (c *clock) close() {
	c.conn.Close()
	c.done.Wait()
}

// serve answers until the clock is closed.
func (c *clock) serve() {
	packet, notes := make([]byte, 64), make([]byte, 256)
	for {
		n, m, _, from, err := c.conn.ReadMsgUDPAddrPort(packet, notes)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != questionSize {
			continue // an answer of ICMP to one who is gone, or noise
		}
		came, err := noted(packet[:n], notes[:m])
		if err != nil {
			continue
		}
		answer := binary.BigEndian.AppendUint64(packet[:n], uint64(came.at+int64(c.ahead)))
		answer = binary.BigEndian.AppendUint64(answer, uint64(time.Now().UnixNano()+int64(c.ahead)))
		_, _ = c.conn.WriteToUDPAddrPort(answer, from)
	}
}

// comparison is by how much another node's clock is ahead of this one's, and how far off that may be.
type comparison struct {
	ahead, within time.Duration
	err           error
}

// compare asks another node's clock for its time, from a socket of its own.
func (c *clock) compare(ctx context.Context, other netip.AddrPort) comparison {
	var conn *net.UDPConn
	err := c.inside(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.at.Addr(), 0)), net.UDPAddrFromAddrPort(other))
		return err
	})
	if err != nil {
		return comparison{err: err}
	}
	defer conn.Close()
	if err := prepare(conn, false); err != nil {
		return comparison{err: err}
	}
	best := comparison{err: errors.New("it doesn't answer")}
	for i := range uint64(questions) {
		if got, ok := c.ask(conn, i); ok && (best.err != nil || got.within < best.within) {
			best = got
		}
		if err := pause(ctx, askEvery); err != nil {
			return comparison{err: err}
		}
	}
	return best
}

// ask asks once. The kernel's notes say when packets came; when they were sent is only known to the programs.
func (c *clock) ask(conn *net.UDPConn, number uint64) (comparison, bool) {
	question := binary.BigEndian.AppendUint64(nil, number)
	sent := time.Now().UnixNano() + int64(c.ahead)
	if _, err := conn.Write(binary.BigEndian.AppendUint64(question, uint64(sent))); err != nil {
		return comparison{}, false
	}
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	packet, notes := make([]byte, 64), make([]byte, 256)
	for {
		n, m, _, _, err := conn.ReadMsgUDPAddrPort(packet, notes)
		if err != nil {
			return comparison{}, false
		}
		back, err := noted(packet[:n], notes[:m])
		if err != nil || n != answerSize || binary.BigEndian.Uint64(packet) != number {
			continue // a late one
		}
		there, left := int64(binary.BigEndian.Uint64(packet[16:])), int64(binary.BigEndian.Uint64(packet[24:]))
		came := back.at + int64(c.ahead)
		way := time.Duration((came - sent) - (left - there))
		return comparison{ahead: time.Duration(((there - sent) + (left - came)) / 2), within: max(way, 0) / 2}, true
	}
}

// compare compares the clocks of this node and of all that it sends series to.
func (p *party) compare(ctx context.Context, w *probing) map[int]comparison {
	all := map[int]comparison{}
	var mu sync.Mutex
	var work sync.WaitGroup
	for i := range w.pairs {
		to, cross := p.far[i]
		if !cross || !w.sends(i) || !w.pairs[i].measurable() || w.found[i].failure != nil {
			continue
		}
		mu.Lock()
		_, begun := all[to.node]
		all[to.node] = comparison{}
		mu.Unlock()
		if begun {
			continue
		}
		work.Go(func() {
			c := p.clock.compare(ctx, p.nodes[to.node].Clock)
			mu.Lock()
			defer mu.Unlock()
			all[to.node] = c
		})
	}
	work.Wait()
	return all
}

// bound works out what two comparisons say of the time between them, and notes it with the pairs it is about.
func (p *party) bound(w *probing, before, after map[int]comparison) {
	p.ahead = map[int]comparison{}
	for node, a := range before {
		b, ok := after[node]
		c := comparison{ahead: (a.ahead + b.ahead) / 2, within: max(a.within, b.within) + (b.ahead-a.ahead).Abs()/2, err: errors.Join(a.err, b.err)}
		if step := (b.ahead - a.ahead).Abs(); c.err == nil && ok && step > maxStep {
			c.err = fmt.Errorf("%w, by %v", ErrClock, step)
		}
		p.ahead[node] = c
	}
	for i := range w.pairs {
		to, cross := p.far[i]
		c, compared := p.ahead[to.node]
		found := &w.found[i]
		switch {
		case !cross || !compared || found.spaced == nil || found.failure != nil:
		case c.err != nil:
			found.failure = fmt.Errorf("comparing the clocks of the nodes %s and %s: %w", p.Node, p.nodes[to.node].Node, c.err)
		default:
			found.within = c.within
			found.notes = append(found.notes, fmt.Sprintf("from node %s to node %s, whose clocks are compared to within %v", p.Node, p.nodes[to.node].Node, c.within.Round(time.Microsecond)))
		}
	}
}

// offset is by how much the receiver's clock of a pair is ahead, in nanoseconds.
func (p *party) offset(i int) int64 { return int64(p.ahead[p.far[i].node].ahead) }
