// Command ping-pong is a plan that measures round trips over the data network. Its instances stand in a ring: each sends
// to the next, by TCP and by UDP, and answers the one before.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

func main() { sdk.Main(map[string]sdk.Case{"ping-pong": pingPong}) }

// peer is where an instance answers.
type peer struct {
	Seq      int64
	TCP, UDP netip.AddrPort
}

const peers sdk.Topic[peer] = "peers"

// pingPong meets the others, measures, and stays until all have measured.
func pingPong(ctx context.Context, run *sdk.Run) error {
	if run.Instances < 2 {
		return errors.New("it takes two to play: set instances to 2 or more")
	}
	g, err := readGame(run)
	if err != nil {
		return err
	}
	own, err := run.DataAddress()
	if err != nil {
		return err
	}
	answers, err := answer(ctx, run.Go, own)
	if err != nil {
		return err
	}
	defer answers.Close()
	if _, err := peers.Publish(ctx, run, peer{run.GlobalSeq, answers.tcp(), answers.udp()}); err != nil {
		return err
	}
	all, err := peers.Collect(ctx, run, run.Instances)
	if err != nil {
		return err
	}
	next, err := nextOf(all, run.GlobalSeq)
	if err != nil {
		return err
	}
	if _, err := run.SignalAndWait(ctx, "ready", run.Instances); err != nil {
		return err
	}
	if err := measure(ctx, run, g, next); err != nil {
		return err
	}
	_, err = run.SignalAndWait(ctx, "measured", run.Instances)
	return err
}

// measure plays both games with one peer and records what came of them.
func measure(ctx context.Context, run *sdk.Run, g game, with peer) error {
	record := func(name string) func(time.Duration) error {
		return func(rtt time.Duration) error { return run.Results.Histogram(name, rtt.Seconds()) }
	}
	if err := g.stream(ctx, with.TCP, record("tcp_rtt_seconds")); err != nil {
		return fmt.Errorf("playing with instance %d over TCP: %w", with.Seq, err)
	}
	lost, err := g.packets(ctx, with.UDP, record("udp_rtt_seconds"))
	if err != nil {
		return fmt.Errorf("playing with instance %d over UDP: %w", with.Seq, err)
	}
	return run.Results.Point("udp_lost", float64(lost))
}

// readGame reads the parameters.
func readGame(run *sdk.Run) (game, error) {
	var faults [4]error
	var size sdk.Size
	var g game
	g.rounds, faults[0] = sdk.ParamOr(run, "rounds", 100)
	g.warmUp, faults[1] = sdk.ParamOr(run, "warmup", 10)
	size, faults[2] = sdk.ParamOr(run, "size", sdk.Size(64))
	g.patience, faults[3] = sdk.ParamOr(run, "patience", 5*time.Second)
	g.size = int(size)
	if err := errors.Join(faults[:]...); err != nil {
		return game{}, err
	}
	return g, g.check()
}

// nextOf is the peer that comes after seq in the ring.
func nextOf(all []peer, seq int64) (peer, error) {
	slices.SortFunc(all, func(a, b peer) int { return int(a.Seq - b.Seq) })
	at := slices.IndexFunc(all, func(p peer) bool { return p.Seq == seq })
	if at < 0 {
		return peer{}, fmt.Errorf("instance %d is not among the %d that are here", seq, len(all))
	}
	return all[(at+1)%len(all)], nil
}
