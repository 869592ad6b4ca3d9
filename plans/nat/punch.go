package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

// invitation is where one of a pair can be met.
type invitation struct {
	From, To int64
	At       netip.AddrPort
}

const invitations sdk.Topic[invitation] = "invitations"

// punch has every two instances meet by hole punching: both learn from a rendezvous how they are seen, tell each other,
// and send at the same time. Every pair has sockets of its own, so that none meets through the hole of another.
func (p *player) punch(ctx context.Context) error {
	all, err := p.meet(ctx, netip.AddrPort{})
	if err != nil {
		return err
	}
	holes := make(map[int64]*hole, len(all))
	for _, other := range all {
		l, err := p.line()
		if err != nil {
			return err
		}
		defer l.Close()
		at, err := l.outside(ctx, p.services[0].First)
		if err != nil {
			return err
		}
		holes[other.Seq] = &hole{line: l, token: pair(p.GlobalSeq, other.Seq)}
		if _, err := invitations.Publish(ctx, p.Run, invitation{p.GlobalSeq, other.Seq, at}); err != nil {
			return err
		}
	}
	everyone := len(all) + 1
	invited, err := invitations.Collect(ctx, p.Run, everyone*len(all))
	if err != nil {
		return err
	}
	for _, i := range invited {
		if h := holes[i.From]; h != nil && i.To == p.GlobalSeq {
			h.peer = i.At
		}
	}
	if _, err := p.SignalAndWait(ctx, "invited", everyone); err != nil {
		return err
	}
	if err := p.dig(ctx, holes); err != nil {
		return err
	}
	return p.judge(all, func(other peer) verdict {
		return verdict{
			what: "hole punching", from: peer{p.GlobalSeq, p.name(), p.kind, netip.AddrPort{}}, to: other,
			done: holes[other.Seq].met, want: punchable(p.kind, other.Kind),
		}
	})
}

// dig works on all holes at the same time, and records how long those took that came to something.
func (p *player) dig(ctx context.Context, holes map[int64]*hole) error {
	var all []func() error
	for _, h := range holes {
		all = append(all, func() error {
			if err := h.dig(ctx, p.patience); err != nil || !h.met {
				return err
			}
			return p.Results.Histogram("punch_seconds", h.took.Seconds())
		})
	}
	return together(p.Go, all...)
}

// pair is a number that two instances have in common with each other only.
func pair(a, b int64) uint64 { return uint64(min(a, b))<<32 | uint64(max(a, b)) }

// hole is one side of a pair.
type hole struct {
	line
	token uint64
	// peer is where the other is said to be, and then where it was heard from.
	peer netip.AddrPort
	// met says that both have heard each other; took is how long that took.
	met  bool
	took time.Duration
}

// parting is how many more messages one sends who has met the other, for the other to know as well.
const parting = 3

// dig sends until both have heard each other, or patience is over.
func (h *hole) dig(ctx context.Context, patience time.Duration) error {
	began := time.Now()
	heard, left := false, parting
	for time.Since(began) < patience && left > 0 && ctx.Err() == nil {
		if err := h.say(h.peer, message{Kind: punch, Token: h.token, Heard: heard}); err != nil {
			return fmt.Errorf("sending to %v: %w", h.peer, err)
		}
		if h.met {
			left--
		}
		for again := time.Now().Add(interval); ; {
			m, from, ok, err := h.hear(again)
			if err != nil {
				return fmt.Errorf("waiting for %v: %w", h.peer, err)
			}
			if !ok {
				break
			}
			if m.Kind != punch || m.Token != h.token {
				continue
			}
			first := !heard
			heard, h.peer = true, from
			if m.Heard && !h.met {
				h.met, h.took = true, time.Since(began)
			}
			if first {
				break // tell the other at once
			}
		}
	}
	return ctx.Err()
}
