package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

// peer is an instance as others know it.
type peer struct {
	Seq     int64
	Name    string
	Kind    kind
	Outside netip.AddrPort
}

const peers sdk.Topic[peer] = "peers"

// knocks is how often each is tried: what is lost by chance isn't lost every time.
const knocks = 3

// reach has every instance knock at every other unasked: at the address that a rendezvous sees, from a socket of its own
// which the other has never sent to.
func (p *player) reach(ctx context.Context) error {
	door, err := p.line()
	if err != nil {
		return err
	}
	defer door.Close()
	outside, err := door.outside(ctx, p.services[0].First)
	if err != nil {
		return err
	}
	all, err := p.meet(ctx, outside)
	if err != nil {
		return err
	}
	hand, err := p.line()
	if err != nil {
		return err
	}
	defer hand.Close()
	for range knocks {
		for _, other := range all {
			if err := hand.say(other.Outside, message{Kind: knock}); err != nil {
				return fmt.Errorf("knocking at %s (%v): %w", other.Name, other.Outside, err)
			}
		}
		time.Sleep(interval / 2)
	}
	if _, err := p.SignalAndWait(ctx, "knocked", p.Instances-rendezvousCount); err != nil {
		return err
	}
	heard, err := visitors(door, p.patience)
	if err != nil {
		return err
	}
	return p.judge(all, func(other peer) verdict {
		return verdict{
			what: "reach", from: other, to: peer{p.GlobalSeq, p.name(), p.kind, outside},
			done: heard[other.Seq], want: reachable(p.kind),
		}
	})
}

// meet makes the instance known and returns all others.
func (p *player) meet(ctx context.Context, outside netip.AddrPort) ([]peer, error) {
	if _, err := peers.Publish(ctx, p.Run, peer{p.GlobalSeq, p.name(), p.kind, outside}); err != nil {
		return nil, err
	}
	all, err := peers.Collect(ctx, p.Run, p.Instances-rendezvousCount)
	if err != nil {
		return nil, err
	}
	others := all[:0]
	for _, other := range all {
		if other.Seq != p.GlobalSeq {
			others = append(others, other)
		}
	}
	return others, nil
}

// visitors are those who have knocked, or do so while patience lasts.
func visitors(door line, patience time.Duration) (map[int64]bool, error) {
	heard := map[int64]bool{}
	for end := time.Now().Add(patience); ; {
		m, _, ok, err := door.hear(end)
		if err != nil || !ok {
			return heard, err
		}
		if m.Kind == knock {
			heard[m.From] = true
		}
	}
}

// verdict is what came of one pair.
type verdict struct {
	what       string
	from, to   peer
	done, want bool
}

func (v verdict) err() error {
	if v.done == v.want {
		return nil
	}
	does := map[bool]string{true: "does", false: "doesn't"}
	return fmt.Errorf("%s: from %s (%s) to %s (%s) it %s work; by RFC 4787 it %s",
		v.what, v.from.Name, v.from.Kind, v.to.Name, v.to.Kind, does[v.done], does[v.want])
}

// judge holds what came of every pair against what should have, and records it.
func (p *player) judge(all []peer, of func(peer) verdict) error {
	sums := map[kind]row{} // by the other's
	var faults []error
	for _, other := range all {
		v := of(other)
		faults = append(faults, v.err())
		sum := sums[other.Kind]
		sums[other.Kind] = row{From: v.from.Kind, To: string(v.to.Kind), Done: sum.Done + count(v.done), Of: sum.Of + 1}
		p.Results.Counter("pairs").Add(1)
		p.Results.Counter("pairs_wrong").Add(int64(count(v.done != v.want)))
		p.Results.Counter(fmt.Sprintf("pairs_met,from=%s,to=%s", v.from.Kind, v.to.Kind)).Add(int64(count(v.done)))
	}
	for _, sum := range sums {
		p.rows = append(p.rows, sum)
	}
	return errors.Join(faults...)
}
