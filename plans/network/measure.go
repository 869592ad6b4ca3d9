package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

// Packets are waited for, beyond the time that they should take, for settle; and for patience where all should come: on a
// busy machine a receiver may stand still for a while.
const (
	settle   = 300 * time.Millisecond
	patience = 3 * time.Second
)

// slack is by how much a round trip may be off, whatever is asked: this program has to get a processor to see a packet,
// and others want them too. So latencies are asked for that stand out from it; how exact they are is what the network
// stage proves. tolerance is the share by which figures may be off besides.
const (
	slack     = 10 * time.Millisecond
	tolerance = 0.1
)

// sent sends a series one way, and says what the receiver got of it.
func (s *session) sent(ctx context.Context, to member, at endpoint, packets, size int, interval, underWay time.Duration) (Report, error) {
	key := oneWay()
	if err := series(ctx, at, key, packets, size, interval); err != nil {
		return Report{}, err
	}
	return awaited(ctx, packets, underWay, func() (Report, error) {
		answer, err := s.ask(ctx, to, Ask{Report: key})
		return answer.Report, err
	})
}

// awaited asks for a report once packets should have come, and again a while later if some are missing.
func awaited(ctx context.Context, packets int, underWay time.Duration, report func() (Report, error)) (Report, error) {
	for _, wait := range []time.Duration{underWay + settle/3, settle, settle} {
		if err := sleep(ctx, wait); err != nil {
			return Report{}, err
		}
		if r, err := report(); err != nil || r.Received >= packets {
			return r, err
		}
	}
	return report()
}

// got has a server send a series to this instance, and says what came.
func (s *session) got(ctx context.Context, from member, packets int, interval, underWay time.Duration) (Report, error) {
	key := oneWay()
	if _, err := s.ask(ctx, from, Ask{Series: key, To: s.self.at(s.self.Address), Packets: packets, Interval: interval}); err != nil {
		return Report{}, err
	}
	return awaited(ctx, packets, underWay, func() (Report, error) { return s.meter.report(key), nil })
}

// rate measures how much gets through to a server, of a quarter more than it should be.
func (s *session) rate(ctx context.Context, to member, at endpoint, want sdk.Bandwidth, underWay time.Duration) (float64, error) {
	const long, size = 800 * time.Millisecond, 1200
	packetRate := 1.25 * float64(want) / float64(8*(size+headers(at.Address)))
	packets := int(packetRate * long.Seconds())
	r, err := s.sent(ctx, to, at, packets, size, time.Duration(float64(time.Second)/packetRate), underWay+long/3)
	return r.Rate, err
}

// nearTime checks a round trip.
func nearTime(what string, got, want time.Duration) error {
	if off := time.Duration(tolerance*float64(want)) + slack; (got - want).Abs() > off {
		return fmt.Errorf("%s %v instead of %v (± %v)", what, got.Round(10*time.Microsecond), want, off)
	}
	return nil
}

// nearShare checks a share k/n: it may be off by the tolerance, and by what chance makes of it in all but one of 10,000
// runs.
func nearShare(what string, k, n int, want float64) error {
	got := float64(k) / float64(n)
	if off := tolerance*want + 4*math.Sqrt(want*(1-want)/float64(n)); math.Abs(got-want) > off {
		return fmt.Errorf("%s %.1f%% instead of %.1f%% (± %.1f%%; %d of %d packets)", what, 100*got, 100*want, 100*off, k, n)
	}
	return nil
}

func nearRate(got float64, want sdk.Bandwidth) error {
	if math.Abs(got-float64(want)) > tolerance*float64(want) {
		return fmt.Errorf("bandwidth %.2f Mbit/s instead of %.2f", got/1e6, float64(want)/1e6)
	}
	return nil
}

// allBack checks that every packet came back.
func allBack(t Trips) error {
	if len(t.Times) != t.Sent {
		return fmt.Errorf("%d of %d packets came back", len(t.Times), t.Sent)
	}
	return nil
}

// fares checks what becomes of the first packets to an endpoint.
func fares(ctx context.Context, to endpoint, want string, underWay time.Duration) error {
	patience := underWay + 500*time.Millisecond
	udp, tcp, took, err := knock(ctx, to, patience)
	if err != nil {
		return err
	}
	var faults []error
	for protocol, got := range map[string]string{"UDP": udp, "TCP": tcp} {
		if got != want {
			faults = append(faults, fmt.Errorf("%s is met with %s instead of %s", protocol, got, want))
		}
	}
	if want == rejected && tcp == rejected && took > patience/2 {
		faults = append(faults, fmt.Errorf("the refusal took %v: it should come at once", took))
	}
	return errors.Join(faults...)
}
