package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

// expire has a rendezvous send to two sockets for several times as long as a mapping stays. One keeps its mapping by
// sending from time to time, the other doesn't: what comes in alone must not keep it.
func (p *player) expire(ctx context.Context) error {
	timeout, err := sdk.Param[time.Duration](p.Run, "timeout")
	if err != nil {
		return err
	}
	silent, kept := listener{timeout: timeout}, listener{timeout: timeout, keep: true}
	var all []func() error
	for _, w := range []*listener{&silent, &kept} {
		if w.line, err = p.line(); err != nil {
			return err
		}
		defer w.Close()
		all = append(all, func() error { return w.listen(ctx, p.services[0].First) })
	}
	if err := together(p.Go, all...); err != nil {
		return err
	}
	lost := silent.last < tickCount
	p.rows = []row{
		{From: p.kind, To: "silent", Done: count(!lost), Of: 1}, {From: p.kind, To: "refreshed", Done: count(kept.last == tickCount), Of: 1},
	}
	switch {
	case kept.last < tickCount:
		return fmt.Errorf("%s: a mapping that was refreshed every %v ended: of %d packets the last to come was %d", p.name(), timeout/refreshes, tickCount, kept.last)
	case expected[p.kind].translated && !lost:
		return fmt.Errorf("%s: a mapping that was not refreshed was still there after %v; its time-out is %v", p.name(), timeout*lifetimes, timeout)
	case !expected[p.kind].translated && lost:
		return fmt.Errorf("%s: no NAT is there and yet of %d packets the last to come was %d", p.name(), tickCount, silent.last)
	}
	return p.Results.Point("mapping_seconds", silent.until.Seconds())
}

// How often a rendezvous sends and a mapping is refreshed.
const (
	lifetimes = 2  // for so many time-outs packets are sent
	tickCount = 20 // so many of them
	refreshes = 4  // so often within a time-out
)

// listener counts what a rendezvous sends.
type listener struct {
	line
	timeout time.Duration
	// keep says that it refreshes the mapping.
	keep bool
	// last is the number of the last packet that came, until is when.
	last  int
	until time.Duration
}

func (l *listener) listen(ctx context.Context, of netip.AddrPort) error {
	if _, err := l.outside(ctx, of); err != nil {
		return err
	}
	every := l.timeout * lifetimes / tickCount
	ask := message{Kind: ticks, Token: uint64(l.local().Port()), Count: tickCount, Every: every}
	if err := l.say(of, ask); err != nil {
		return err
	}
	began := time.Now()
	// Some may come late.
	for end := began.Add(l.timeout*lifetimes + l.timeout/2); time.Now().Before(end) && ctx.Err() == nil && l.last < tickCount; {
		pause := end
		if l.keep {
			if err := l.say(of, message{Kind: knock}); err != nil {
				return err
			}
			pause = time.Now().Add(l.timeout / refreshes)
		}
		if err := l.count(pause, began, ask.Token); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// count takes what comes until a time or the last packet.
func (l *listener) count(until, began time.Time, token uint64) error {
	for l.last < tickCount {
		m, _, ok, err := l.hear(until)
		if err != nil || !ok {
			return err
		}
		if m.Kind == tick && m.Token == token {
			l.last, l.until = max(l.last, m.Count), time.Since(began)
		}
	}
	return nil
}
