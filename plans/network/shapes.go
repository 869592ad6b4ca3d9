package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

// step asks for something of the own network, and measures it towards one server. other is a second one.
type step struct {
	name    string
	measure func(ctx context.Context, s *session, to, other member) error
}

// Steps don't clean up: every one replaces what was before.
var steps = []step{
	{"latency", latency}, {"jitter", jitter}, {"loss", loss}, {"duplicate", duplicate}, {"reorder", reorder}, {"corrupt", corrupt},
	{"bandwidth", bandwidth}, {"reject", reject}, {"drop", drop}, {"one way", asymmetric}, {"rules", rules}, {"replaced", replaced},
	{"disconnect", disconnect}, {"address", address}, {"ipv6", ipv6},
}

// shapes goes through the steps; the clients share them out.
func shapes(ctx context.Context, s *session) error {
	if len(s.servers) < 2 {
		return errors.New("there have to be two servers: one that is asked for, and another")
	}
	slices.SortFunc(s.servers, func(a, b member) int { return a.Address.Compare(b.Address) })
	var faults []error
	for i := s.run.Index; i < len(steps); i += s.run.GroupInstances {
		n := len(s.servers)
		to, other := s.servers[i%n], s.servers[(i+1)%n]
		began := time.Now()
		if err := steps[i].measure(ctx, s, to, other); err != nil {
			faults = append(faults, fmt.Errorf("%s, %s → %s: %w", steps[i].name, s.self, to, err))
		}
		s.run.Message("%s: measured in %v", steps[i].name, time.Since(began).Round(time.Millisecond))
		faults = append(faults, s.run.Results.Point("steps_measured", 1))
	}
	return errors.Join(append(faults, s.run.ConfigureNetwork(ctx, sdk.Network{}))...)
}

// shape makes the link to everybody what l says.
func (s *session) shape(ctx context.Context, l sdk.Link) error {
	return s.run.ConfigureNetwork(ctx, sdk.Network{Default: l})
}

func (s *session) trips(ctx context.Context, to endpoint, underWay time.Duration) (Trips, error) {
	return echo(ctx, to, 40, 5*time.Millisecond, underWay+patience)
}

// packets are what series of the steps have: for shares around 10 % that is ± 5 %.
const packets = 600

func (s *session) counted(ctx context.Context, to member, underWay time.Duration) (Report, error) {
	return s.sent(ctx, to, to.at(to.Address), packets, smallest, 2*time.Millisecond, underWay)
}

func latency(ctx context.Context, s *session, to, _ member) error {
	const asked = 50 * time.Millisecond
	if err := s.shape(ctx, sdk.Link{Latency: asked}); err != nil {
		return err
	}
	t, err := s.trips(ctx, to.at(to.Address), asked)
	return errors.Join(err, allBack(t), nearTime("RTT", t.median(), asked), s.run.Results.Histogram("shaped_rtt_seconds", t.median().Seconds()))
}

func jitter(ctx context.Context, s *session, to, _ member) error {
	const asked, varying = 60 * time.Millisecond, 20 * time.Millisecond
	if err := s.shape(ctx, sdk.Link{Latency: asked, Jitter: varying}); err != nil {
		return err
	}
	t, err := echo(ctx, to.at(to.Address), 60, 40*time.Millisecond, asked+5*varying+patience)
	if err != nil || len(t.Times) < 60 {
		return errors.Join(err, allBack(t))
	}
	sorted := slices.Sorted(slices.Values(t.Times))
	var faults []error
	if (t.median() - asked).Abs() > varying {
		faults = append(faults, fmt.Errorf("the median RTT is %v instead of about %v", t.median(), asked))
	}
	// Of a normal distribution four fifths are within 1.28 of its deviations to either side.
	spread := time.Duration(float64(sorted[54]-sorted[6]) / 2.56)
	if spread < varying/2 || spread > 2*varying {
		faults = append(faults, fmt.Errorf("jitter %v instead of about %v", spread.Round(100*time.Microsecond), varying))
	}
	return errors.Join(faults...)
}

func loss(ctx context.Context, s *session, to, _ member) error {
	if err := s.shape(ctx, sdk.Link{Loss: 0.1}); err != nil {
		return err
	}
	r, err := s.counted(ctx, to, 0)
	return errors.Join(err, nearShare("loss", packets-r.Received, packets, 0.1))
}

func duplicate(ctx context.Context, s *session, to, _ member) error {
	if err := s.shape(ctx, sdk.Link{Duplicate: 0.1}); err != nil {
		return err
	}
	r, err := s.counted(ctx, to, 0)
	return errors.Join(err, nearShare("duplicates", r.Duplicates, packets, 0.1), nearShare("loss", packets-r.Received, packets, 0))
}

func reorder(ctx context.Context, s *session, to, _ member) error {
	const asked = 60 * time.Millisecond
	if err := s.shape(ctx, sdk.Link{Latency: asked, Reorder: 0.25}); err != nil {
		return err
	}
	t, err := echo(ctx, to.at(to.Address), 300, 2*time.Millisecond, asked+patience)
	if err != nil {
		return err
	}
	early := 0
	for _, d := range t.Times {
		if d < asked/2 {
			early++
		}
	}
	r, err := s.counted(ctx, to, asked)
	if err == nil && r.Reordered == 0 {
		err = errors.New("not one packet overtook another")
	}
	return errors.Join(err, allBack(t), nearShare("packets sent at once", early, len(t.Times), 0.25))
}

// corrupt takes packets that are lost for damaged too: those that were hit in their headers.
func corrupt(ctx context.Context, s *session, to, _ member) error {
	if err := s.shape(ctx, sdk.Link{Corrupt: 0.1}); err != nil {
		return err
	}
	r, err := s.counted(ctx, to, 0)
	return errors.Join(err, nearShare("damaged packets", r.Corrupted+packets-r.Received, packets, 0.1))
}

func bandwidth(ctx context.Context, s *session, to, _ member) error {
	const asked = 5 * sdk.Mbit
	if err := s.shape(ctx, sdk.Link{Bandwidth: asked}); err != nil {
		return err
	}
	rate, err := s.rate(ctx, to, to.at(to.Address), asked, 0)
	return errors.Join(err, nearRate(rate, asked), s.run.Results.Histogram("shaped_bandwidth_bits", rate))
}

func reject(ctx context.Context, s *session, to, _ member) error {
	return s.filter(ctx, to, sdk.Reject, rejected)
}

func drop(ctx context.Context, s *session, to, _ member) error {
	return s.filter(ctx, to, sdk.Drop, dropped)
}

// filter shuts the way and opens it again.
func (s *session) filter(ctx context.Context, to member, f sdk.Filter, want string) error {
	if err := s.shape(ctx, sdk.Link{Filter: f}); err != nil {
		return err
	}
	shut := fares(ctx, to.at(to.Address), want, 0)
	if err := s.shape(ctx, sdk.Link{}); err != nil {
		return err
	}
	if err := fares(ctx, to.at(to.Address), accepted, 0); err != nil {
		return errors.Join(shut, fmt.Errorf("opened again: %w", err))
	}
	return shut
}

// asymmetric: what an instance asks for holds for what it sends.
func asymmetric(ctx context.Context, s *session, to, _ member) error {
	if err := s.shape(ctx, sdk.Link{Loss: 0.5}); err != nil {
		return err
	}
	there, err := s.counted(ctx, to, 0)
	if err != nil {
		return err
	}
	back, err := s.got(ctx, to, packets, 2*time.Millisecond, 0)
	return errors.Join(err, nearShare("loss", packets-there.Received, packets, 0.5), nearShare("loss on the way back", packets-back.Received, packets, 0))
}

// rules hold for a part of the network, whatever the default is.
func rules(ctx context.Context, s *session, to, other member) error {
	const asked = 50 * time.Millisecond
	only := netip.PrefixFrom(to.Address, 32)
	err := s.run.ConfigureNetwork(ctx, sdk.Network{
		Default: sdk.Link{Filter: sdk.Drop},
		Rules:   []sdk.Rule{{To: only, Link: sdk.Link{Latency: asked}}},
	})
	if err != nil {
		return err
	}
	t, err := s.trips(ctx, to.at(to.Address), asked)
	if err := errors.Join(err, allBack(t), nearTime("RTT", t.median(), asked), fares(ctx, other.at(other.Address), dropped, 0)); err != nil {
		return fmt.Errorf("with all shut but one: %w", err)
	}
	if err := s.run.ConfigureNetwork(ctx, sdk.Network{Rules: []sdk.Rule{{To: only, Link: sdk.Link{Filter: sdk.Reject}}}}); err != nil {
		return err
	}
	if err := errors.Join(fares(ctx, to.at(to.Address), rejected, 0), fares(ctx, other.at(other.Address), accepted, 0)); err != nil {
		return fmt.Errorf("with one shut: %w", err)
	}
	return nil
}

// replaced: nothing is left of what was asked for before.
func replaced(ctx context.Context, s *session, to, _ member) error {
	if err := s.shape(ctx, sdk.Link{Latency: 50 * time.Millisecond, Corrupt: 0.5, Duplicate: 0.5}); err != nil {
		return err
	}
	before, err := s.counted(ctx, to, 50*time.Millisecond)
	if err != nil {
		return err
	}
	if err := s.shape(ctx, sdk.Link{Loss: 0.01}); err != nil {
		return err
	}
	after, err := s.counted(ctx, to, 0)
	if err != nil {
		return err
	}
	t, err := s.trips(ctx, to.at(to.Address), 0)
	return errors.Join(err, nearTime("RTT", t.median(), 0), nearShare("duplicates before", before.Duplicates, max(before.Received, 1), 0.5),
		nearShare("damaged packets after", after.Corrupted, packets, 0), nearShare("duplicates after", after.Duplicates, packets, 0))
}

// disconnect takes the instance off the network and puts it back; a connection survives that.
func disconnect(ctx context.Context, s *session, to, _ member) error {
	if err := s.shape(ctx, sdk.Link{}); err != nil {
		return err
	}
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", to.at(to.Address).tcp())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := exchange(c, []byte("before"), 5*time.Second); err != nil {
		return err
	}
	if err := s.run.ConfigureNetwork(ctx, sdk.Network{Disconnected: true}); err != nil {
		return err
	}
	off, err := s.sent(ctx, to, to.at(to.Address), 50, smallest, 2*time.Millisecond, 0)
	if err != nil {
		return err
	}
	if off.Received > 0 {
		return fmt.Errorf("%d of 50 packets came through while it was disconnected", off.Received)
	}
	if err := s.shape(ctx, sdk.Link{}); err != nil {
		return err
	}
	on, err := s.sent(ctx, to, to.at(to.Address), 50, smallest, 2*time.Millisecond, 0)
	if err == nil && on.Received != 50 {
		err = fmt.Errorf("%d of 50 packets came through after it was connected again", on.Received)
	}
	if lost := exchange(c, []byte("after"), 10*time.Second); lost != nil {
		err = errors.Join(err, fmt.Errorf("the connection did not survive: %w", lost))
	}
	return err
}

// address gives the instance another address and its own one back.
func address(ctx context.Context, s *session, to, _ member) error {
	own := s.self.Address
	defer func() { s.self.Address = own }()
	for _, moved := range []netip.Addr{elsewhere(s.run.Subnet, s.run.Index), own} {
		left := s.self.Address
		if err := s.run.ConfigureNetwork(ctx, sdk.Network{Address: netip.PrefixFrom(moved, s.run.Subnet.Bits())}); err != nil {
			return err
		}
		if now, err := s.run.DataAddress(); err != nil {
			return err
		} else if now != moved {
			return fmt.Errorf("the address is %s instead of %s", now, moved)
		}
		s.self.Address = left
		before, err := s.got(ctx, to, 50, 2*time.Millisecond, 0)
		if err != nil {
			return err
		}
		s.self.Address = moved
		after, err := s.got(ctx, to, 50, 2*time.Millisecond, 0)
		if err != nil {
			return err
		}
		if before.Received != 0 || after.Received != 50 {
			return fmt.Errorf("moved from %s to %s: of 50 packets each %d came to the old address and %d to the new one", left, moved, before.Received, after.Received)
		}
		t, err := s.trips(ctx, to.at(to.Address), 0)
		if err := errors.Join(err, allBack(t)); err != nil {
			return fmt.Errorf("from %s: %w", moved, err)
		}
	}
	return nil
}

// elsewhere is an address near the end of the subnet, one for every index. NATs take theirs from there, but from the
// very end.
func elsewhere(subnet netip.Prefix, index int) netip.Addr {
	bytes := subnet.Masked().Addr().As4()
	host := uint32(math.MaxUint32>>subnet.Bits()) - 1029 - uint32(index)
	for i := range bytes {
		bytes[i] |= byte(host >> (24 - 8*i))
	}
	return netip.AddrFrom4(bytes)
}

// ipv6: shapes hold for both families, and rules for the one they name.
func ipv6(ctx context.Context, s *session, to, _ member) error {
	const asked = 50 * time.Millisecond
	if !to.Address6.IsValid() {
		return errors.New("the data network has no IPv6")
	}
	err := s.run.ConfigureNetwork(ctx, sdk.Network{Default: sdk.Link{Latency: asked}})
	if err != nil {
		return err
	}
	t, err := s.trips(ctx, to.at(to.Address6), asked)
	if err := errors.Join(err, allBack(t), nearTime("RTT", t.median(), asked)); err != nil {
		return fmt.Errorf("at %s: %w", to.Address6, err)
	}
	err = s.run.ConfigureNetwork(ctx, sdk.Network{Rules: []sdk.Rule{{To: netip.PrefixFrom(to.Address6, 128), Link: sdk.Link{Filter: sdk.Drop}}}})
	if err != nil {
		return err
	}
	return errors.Join(fares(ctx, to.at(to.Address6), dropped, 0), fares(ctx, to.at(to.Address), accepted, 0))
}
