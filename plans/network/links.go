package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

// Link is what a client should find on its way to a group.
type Link struct {
	// Policy is what the first packets meet: accept (also when empty), reject or drop.
	Policy string
	// RTT of a small packet, as `40ms`.
	RTT string
	// Loss is the share of packets lost on the way there, Mbit its bandwidth; 0: not limited, and not measured.
	Loss, Mbit float64
	// Back says that the group reaches the client, even where the client doesn't reach the group.
	Back bool
}

// links measures the links that the parameter `links` names, group by group, and holds them against what it says.
func links(ctx context.Context, s *session) error {
	wanted, err := sdk.ParamJSON[map[string]Link](s.run, "links")
	if err != nil {
		return err
	}
	var faults []error
	measured := 0
	for _, to := range s.servers {
		want, named := wanted[to.Group]
		if !named {
			continue
		}
		measured++
		if err := s.link(ctx, to, want); err != nil {
			faults = append(faults, fmt.Errorf("%s → %s: %w", s.self, to, err))
		}
	}
	if measured < len(wanted) {
		faults = append(faults, fmt.Errorf("%d of %d groups were there to be measured", measured, len(wanted)))
	}
	return errors.Join(append(faults, s.run.Results.Point("links_measured", float64(measured)))...)
}

// link measures one.
func (s *session) link(ctx context.Context, to member, want Link) error {
	var rtt time.Duration
	if want.RTT != "" {
		var err error
		if rtt, err = time.ParseDuration(want.RTT); err != nil {
			return fmt.Errorf("parameter links: %w", err)
		}
	}
	var faults []error
	for _, address := range []endpoint{to.at(to.Address), to.at(to.Address6)} {
		if !address.Address.IsValid() {
			continue
		}
		if err := s.over(ctx, to, address, want, rtt); err != nil {
			faults = append(faults, fmt.Errorf("at %s: %w", address.Address, err))
		}
	}
	return errors.Join(faults...)
}

// over measures a link over one of the address families.
func (s *session) over(ctx context.Context, to member, at endpoint, want Link, rtt time.Duration) error {
	if want.Policy != "" && want.Policy != accepted {
		err := fares(ctx, at, want.Policy, rtt)
		if want.Back {
			err = errors.Join(err, s.back(ctx, to, at))
		}
		return err
	}
	// The very first exchange of the two.
	late := patience
	if want.Loss > 0 {
		late = rtt + settle // some never come
	}
	first, err := echo(ctx, at, 1, 0, late)
	if err != nil {
		return err
	}
	trips, err := echo(ctx, at, 40, 5*time.Millisecond, late)
	if err != nil {
		return err
	}
	faults := []error{nearTime("RTT", trips.median(), rtt), s.run.Results.Histogram(to.Group+"_rtt_seconds", trips.median().Seconds())}
	faults = append(faults, s.first(to, first, trips, rtt, want.Loss > 0))
	if want.Loss == 0 {
		faults = append(faults, allBack(trips))
	}
	if at.Address.Is6() {
		return errors.Join(faults...) // that both families are shaped alike has been seen by now
	}
	const packets = 400
	r, err := s.sent(ctx, to, at, packets, smallest, 2*time.Millisecond, rtt)
	if err != nil {
		return err
	}
	lost := float64(packets-r.Received) / packets
	faults = append(faults, nearShare("loss", packets-r.Received, packets, want.Loss), s.run.Results.Histogram(to.Group+"_loss", lost))
	if want.Mbit > 0 {
		bandwidth := sdk.Bandwidth(want.Mbit * 1e6)
		rate, err := s.rate(ctx, to, at, bandwidth, rtt)
		faults = append(faults, err, nearRate(rate, bandwidth), s.run.Results.Histogram(to.Group+"_bandwidth_bits", rate))
	}
	return errors.Join(faults...)
}

// first holds the first exchange against later ones. It must not take twice as long, as it does where the search for the
// receiver's hardware address is delayed too. How long it took exactly is a metric: a single packet says little.
func (s *session) first(to member, first, later Trips, rtt time.Duration, lossy bool) error {
	if len(first.Times) == 0 || len(later.Times) == 0 {
		if !lossy {
			return errors.New("the first packet got lost")
		}
		return nil
	}
	const measurable = 20 * time.Millisecond // below, machines are what makes the difference
	if rtt < measurable {
		return nil
	}
	ratio := float64(first.Times[0]) / float64(later.median())
	err := s.run.Results.Histogram(to.Group+"_first_over_later", ratio)
	if ratio > 1.75 {
		err = errors.Join(err, fmt.Errorf("the first RTT is %v, later ones are %v", first.Times[0], later.median()))
	}
	return err
}

// back has the server reach this instance, with answers passing.
func (s *session) back(ctx context.Context, from member, at endpoint) error {
	own := s.self.at(s.self.Address)
	if at.Address.Is6() {
		own.Address = s.self.Address6
	}
	answer, err := s.ask(ctx, from, Ask{Echo: 1, To: own, Packets: 20, Interval: 5 * time.Millisecond})
	if err != nil {
		return err
	}
	if err := allBack(answer.Trips); err != nil {
		return fmt.Errorf("the way back: %w", err)
	}
	return nil
}
