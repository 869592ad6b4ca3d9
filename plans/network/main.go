// Command network is a plan that measures the data network from inside: whether links are as the pipeline asked for
// (case links), and whether they become what an instance asks for itself (case shapes).
//
// The instances of one group, `clients`, measure; the others serve. What is measured one way is counted by the
// receiver, which is asked for it over the sync service: that always gets through.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

func main() {
	sdk.Main(map[string]sdk.Case{"links": play(links), "shapes": play(shapes)})
}

// clients is the group that measures.
const clients = "clients"

// member is an instance.
type member struct {
	Group             string
	Index             int
	Address, Address6 netip.Addr
	Ports             [2]uint16
}

func (m member) String() string { return fmt.Sprintf("%s/%d", m.Group, m.Index) }

func (m member) at(address netip.Addr) endpoint { return endpoint{address, m.Ports} }

const members sdk.Topic[member] = "members"

// session is what an instance knows of the others.
type session struct {
	run     *sdk.Run
	meter   *meter
	self    member
	servers []member // in the order of their coming
	asked   int
}

// play meets the others; then clients measure, and servers serve until they have.
func play(measure func(context.Context, *session) error) sdk.Case {
	return func(ctx context.Context, run *sdk.Run) error {
		m, err := openMeter(ctx, run.Go)
		if err != nil {
			return err
		}
		defer m.close()
		s := &session{run: run, meter: m, self: member{Group: run.Group, Index: run.Index, Ports: [2]uint16{m.udp(), m.tcp()}}}
		measuring, err := s.meet(ctx)
		if err != nil {
			return err
		}
		if run.Group != clients {
			return s.serve(ctx, measuring)
		}
		if len(s.servers) == 0 || measuring == 0 {
			return fmt.Errorf("there has to be a group `%s`, and another one", clients)
		}
		err = measure(ctx, s)
		// The others wait, whatever came of it.
		_, signalled := run.Signal(ctx, "measured")
		return errors.Join(err, signalled)
	}
}

// meet tells the others where this one is, and learns where they are, and how many measure.
func (s *session) meet(ctx context.Context) (measuring int, err error) {
	if s.self.Address, err = s.run.DataAddress(); err != nil {
		return 0, err
	}
	if s.self.Address6, err = s.run.DataAddress6(); err != nil {
		return 0, err
	}
	if _, err := members.Publish(ctx, s.run, s.self); err != nil {
		return 0, err
	}
	all, err := members.Collect(ctx, s.run, s.run.Instances)
	if err != nil {
		return 0, err
	}
	for _, m := range all {
		if m.Group == clients {
			measuring++
		} else {
			s.servers = append(s.servers, m)
		}
	}
	return measuring, nil
}

// Ask is what a client wants of a server.
type Ask struct {
	// Answer is the topic to answer on.
	Answer sdk.Topic[Answer]
	// Report asks what came of the series with that key; 0 doesn't.
	Report uint64
	// Series asks for packets to the client under that key, Echo for round trips; 0 doesn't.
	Series, Echo uint64
	To           endpoint
	Packets      int
	Interval     time.Duration
}

// Answer is what came of it.
type Answer struct {
	Report Report
	Trips  Trips
	Fault  string
}

func asks(m member) sdk.Topic[Ask] { return sdk.Topic[Ask]("asks-" + m.String()) }

// ask asks a server and waits for the answer.
func (s *session) ask(ctx context.Context, server member, a Ask) (Answer, error) {
	s.asked++
	a.Answer = sdk.Topic[Answer](fmt.Sprintf("answer-%s-%d", s.self, s.asked))
	if _, err := asks(server).Publish(ctx, s.run, a); err != nil {
		return Answer{}, err
	}
	answers, err := a.Answer.Collect(ctx, s.run, 1)
	if err != nil {
		return Answer{}, err
	}
	if fault := answers[0].Fault; fault != "" {
		return Answer{}, fmt.Errorf("%s says: %s", server, fault)
	}
	return answers[0], nil
}

// serve does what clients ask for until all of them have measured.
func (s *session) serve(ctx context.Context, measuring int) error {
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	s.run.Go(func() {
		for a, err := range asks(s.self).Subscribe(serving, s.run) {
			if err != nil {
				ended <- err
				return
			}
			s.run.Go(func() { s.answer(serving, a) })
		}
	})
	err := s.run.Barrier(ctx, "measured", measuring)
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		return err
	}
	return err
}

func (s *session) answer(ctx context.Context, a Ask) {
	var answer Answer
	var err error
	switch {
	case a.Report != 0:
		answer.Report = s.meter.report(a.Report)
	case a.Series != 0:
		err = series(ctx, a.To, a.Series, a.Packets, smallest, a.Interval)
	case a.Echo != 0:
		answer.Trips, err = echo(ctx, a.To, a.Packets, a.Interval, time.Second)
	}
	if err != nil {
		answer.Fault = err.Error()
	}
	if _, err := a.Answer.Publish(ctx, s.run, answer); err != nil && ctx.Err() == nil {
		s.run.Message("answering on %s: %v", a.Answer, err)
	}
}
