// Command nat is a plan that holds NATs against RFC 4787: what instances find out about the one that they are behind, who
// reaches whom unasked, who meets by hole punching over UDP, what else passes, and when a mapping ends. Two instances in the open, the
// rendezvous, tell the others how they are seen from outside.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

func main() {
	sdk.Main(map[string]sdk.Case{
		"discover": play((*player).discover),
		"reach":    play((*player).reach),
		"punch":    play((*player).punch),
		"expire":   play((*player).expire),
		"traffic":  play((*player).traffic),
	})
}

// rendezvousCount is how many rendezvous there are: one needs a second to answer from another address.
const rendezvousCount = 2

const (
	services sdk.Topic[service] = "services"
	reports  sdk.Topic[[]row]   = "reports"
)

// player is an instance that is no rendezvous.
type player struct {
	*sdk.Run
	kind kind
	own  netip.Addr
	open func() (socket, error)
	// services are those of the two rendezvous.
	services []service
	// patience is how long something is waited for that may not come.
	patience time.Duration
	// rows are what the table of the case is made of.
	rows []row
}

// name is how others call the instance.
func (p *player) name() string { return fmt.Sprintf("%s/%d", p.Group, p.Index) }

// line opens a socket of the player's.
func (p *player) line() (line, error) {
	s, err := p.open()
	return line{s, p.GlobalSeq}, err
}

// play makes a case: of a rendezvous it has it serve until all others have reported, of all others work.
func play(work func(*player, context.Context) error) sdk.Case {
	return func(ctx context.Context, run *sdk.Run) error {
		text, err := sdk.Param[string](run, "nat")
		if err != nil {
			return err
		}
		k, err := readKind(text)
		if err != nil {
			return err
		}
		if run.Instances <= rendezvousCount {
			return fmt.Errorf("%d instances take part; it needs %d rendezvous and others", run.Instances, rendezvousCount)
		}
		own, err := run.DataAddress()
		if err != nil {
			return err
		}
		listen := func() (socket, error) {
			return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, 0)))
		}
		if k == rendezvous {
			return host(ctx, run, own, listen)
		}
		p := &player{Run: run, kind: k, own: own, open: listen}
		if p.patience, err = sdk.ParamOr(run, "patience", time.Second); err != nil {
			return err
		}
		if p.services, err = services.Collect(ctx, run, rendezvousCount); err != nil {
			return err
		}
		slices.SortFunc(p.services, func(a, b service) int { return int(a.Seq - b.Seq) })
		err = work(p, ctx)
		// The rendezvous wait for every report, also of one that failed.
		_, reported := reports.Publish(ctx, run, p.rows)
		return errors.Join(err, reported)
	}
}

// host is what a rendezvous does. The first of them writes the table.
func host(ctx context.Context, run *sdk.Run, at netip.Addr, open func() (socket, error)) error {
	var sockets [2]socket
	for i := range sockets {
		s, err := open()
		if err != nil {
			return err
		}
		defer s.Close()
		sockets[i] = s
	}
	var config net.ListenConfig
	stream, err := config.Listen(ctx, "tcp4", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return err
	}
	defer stream.Close()
	run.Go(func() { echo(run.Go, stream) })
	s := server{first: line{sockets[0], run.GlobalSeq}, second: line{sockets[1], run.GlobalSeq}, start: run.Go}
	own := service{Seq: run.GlobalSeq, First: s.first.local(), Second: s.second.local(), Stream: stream.Addr().(*net.TCPAddr).AddrPort()}
	if _, err := services.Publish(ctx, run, own); err != nil {
		return err
	}
	all, err := services.Collect(ctx, run, rendezvousCount)
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Seq != run.GlobalSeq {
			s.other = other.First
		}
	}
	s.serve()
	said, err := reports.Collect(ctx, run, run.Instances-rendezvousCount)
	if err != nil || run.GroupSeq != 1 {
		return err
	}
	return writeTable(run, slices.Concat(said...))
}
