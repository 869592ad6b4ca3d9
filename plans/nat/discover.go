package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// discover finds out what the instance is behind, as RFC 5780 does, and holds it against what it should be.
func (p *player) discover(ctx context.Context) error {
	found, err := p.explore(ctx)
	if err != nil {
		return err
	}
	p.Message("%s: %v", p.kind, found)
	right := found == expected[p.kind]
	p.rows = []row{{From: p.kind, To: kind(found.String()), Done: count(right), Of: 1}}
	if !right {
		return fmt.Errorf("%s is behind %s, which is %v; what it found is %v", p.name(), p.kind, expected[p.kind], found)
	}
	return p.Results.Point("discovered,kind="+string(p.kind), 1)
}

func (p *player) explore(ctx context.Context) (traits, error) {
	var found traits
	if err := p.exploreMapping(ctx, &found); err != nil {
		return found, fmt.Errorf("finding out the mapping: %w", err)
	}
	if err := p.exploreFilter(ctx, &found); err != nil {
		return found, fmt.Errorf("finding out the filter: %w", err)
	}
	if err := p.exploreHairpin(ctx, &found); err != nil {
		return found, fmt.Errorf("finding out about hair-pinning: %w", err)
	}
	return found, nil
}

// exploreMapping asks three endpoints how they see one socket.
func (p *player) exploreMapping(ctx context.Context, found *traits) error {
	l, err := p.line()
	if err != nil {
		return err
	}
	defer l.Close()
	seen := map[netip.AddrPort]bool{}
	for _, of := range []netip.AddrPort{p.services[0].First, p.services[0].Second, p.services[1].First} {
		at, err := l.outside(ctx, of)
		if err != nil {
			return err
		}
		seen[at] = true
		if at.Addr() != l.local().Addr() {
			found.translated = true
		}
	}
	found.constant = len(seen) == 1
	return nil
}

// exploreFilter has one endpoint asked and others answer.
func (p *player) exploreFilter(ctx context.Context, found *traits) error {
	found.filter = fromEndpoint
	for _, try := range []struct {
		question word
		shows    reach
	}{{otherPort, fromAddress}, {otherAddress, fromAnywhere}} {
		l, err := p.line()
		if err != nil {
			return err
		}
		defer l.Close()
		asked := p.services[0].First
		if _, err := l.outside(ctx, asked); err != nil {
			return err
		}
		_, from, ok, err := l.ask(ctx, asked, try.question, p.patience)
		if err != nil {
			return err
		}
		if ok && from == asked {
			return fmt.Errorf("the question %q was answered from %v, where it was asked", try.question, from)
		}
		if ok {
			found.filter = try.shows
		}
	}
	return nil
}

// exploreHairpin has two sockets send to each other's outside until one hears the other from there.
func (p *player) exploreHairpin(ctx context.Context, found *traits) error {
	var ends [2]line
	var outsides [2]netip.AddrPort
	for i := range ends {
		l, err := p.line()
		if err != nil {
			return err
		}
		defer l.Close()
		ends[i] = l
		if outsides[i], err = l.outside(ctx, p.services[0].First); err != nil {
			return err
		}
	}
	for end := time.Now().Add(p.patience); time.Now().Before(end) && ctx.Err() == nil; {
		for i := range ends {
			if err := ends[i].say(outsides[1-i], message{Kind: knock}); err != nil {
				return err
			}
		}
		_, from, ok, err := ends[0].hear(time.Now().Add(interval))
		if err != nil {
			return err
		}
		if ok && from == outsides[1] {
			found.hairpin = true
			return nil
		}
	}
	return ctx.Err()
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
