package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// discover finds out what the instance is behind, as RFC 5780 does, and holds it against what it should be.
func (p *player) discover(ctx context.Context) error {
	found, err := p.explore(ctx)
	if err != nil {
		return err
	}
	p.Message("%s: %v", p.kind, found)
	for what, yes := range map[string]bool{
		"one mapping": found.constant, "from any port": found.filter != fromEndpoint, "from anywhere": found.filter == fromAnywhere,
		"hair-pinning": found.hairpin,
	} {
		p.rows = append(p.rows, row{p.kind, what, count(yes), 1})
	}
	if found != expected[p.kind] {
		return fmt.Errorf("%s is behind %s, which is %v; what it found is %v", p.name(), p.kind, expected[p.kind], found)
	}
	return p.Results.Point("discovered,kind="+string(p.kind), 1)
}

func (p *player) explore(ctx context.Context) (traits, error) {
	found := traits{filter: fromEndpoint}
	var port, anywhere bool
	err := together(p.Go,
		naming("finding out the mapping", func() error { return p.exploreMapping(ctx, &found) }),
		naming("finding out about hair-pinning", func() error { return p.exploreHairpin(ctx, &found.hairpin) }),
		naming("asking for an answer from another port", func() error { return p.exploreFilter(ctx, otherPort, &port) }),
		naming("asking for an answer from another address", func() error { return p.exploreFilter(ctx, otherAddress, &anywhere) }),
	)
	switch {
	case anywhere:
		found.filter = fromAnywhere
	case port:
		found.filter = fromAddress
	}
	return found, err
}

// together does all at the same time.
func together(start func(func()), all ...func() error) error {
	faults := make([]error, len(all))
	var work sync.WaitGroup
	for i, f := range all {
		work.Add(1)
		start(func() {
			defer work.Done()
			faults[i] = f()
		})
	}
	work.Wait()
	return errors.Join(faults...)
}

// naming says in a function's error what it was about.
func naming(what string, f func() error) func() error {
	return func() error {
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
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

// exploreFilter asks one endpoint and has another answer.
func (p *player) exploreFilter(ctx context.Context, question word, passes *bool) error {
	l, err := p.line()
	if err != nil {
		return err
	}
	defer l.Close()
	asked := p.services[0].First
	if _, err := l.outside(ctx, asked); err != nil {
		return err
	}
	_, from, ok, err := l.ask(ctx, asked, question, p.patience)
	if ok && from == asked {
		return fmt.Errorf("%v, where it was asked, has answered", from)
	}
	*passes = ok
	return err
}

// exploreHairpin has two sockets send to each other's outside until one hears the other from there.
func (p *player) exploreHairpin(ctx context.Context, passes *bool) error {
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
			*passes = true
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
