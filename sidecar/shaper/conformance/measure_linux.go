package conformance

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/prober"
)

// series sends packets from one instance to another. One that this machine spoiled is measured again.
func (s *stand) series(from, to links.Instance, o prober.SeriesOptions) prober.Series {
	s.Helper()
	return s.between(s.endpoint(from), s.endpoint(to), o)
}

func (s *stand) between(from, to *prober.Endpoint, o prober.SeriesOptions) prober.Series {
	s.Helper()
	if o.Patience == 0 {
		o.Patience = 400 * time.Millisecond // no row has a longer latency
	}
	for range 3 {
		got, err := prober.Measure(s.Context(), from, to, o)
		switch {
		case errors.Is(err, prober.ErrClock), got.Overrun > 0:
			s.Logf("measured again: %v, %d packets lost at the receiver", err, got.Overrun)
		case err != nil:
			s.Fatal(err)
		default:
			return got
		}
	}
	s.Fatal("nothing could be measured")
	return prober.Series{}
}

// untouched sends packets on a way that nothing is asked of.
func (s *stand) untouched(from, to links.Instance) error {
	got := s.series(from, to, prober.SeriesOptions{Packets: 50, Interval: time.Millisecond, Patience: 100 * time.Millisecond})
	what := fmt.Sprintf("slot %d to slot %d, where nothing is asked for", from.Slot, to.Slot)
	return errors.Join(
		wholesome(what, got),
		drawn(what+": loss", got.Sent-got.Received, got.Sent, 0, 0),
		atMost(what+": median latency", got.Quantile(.5), 0))
}

// wholesome says when packets came more than once, in another order or damaged. A few may change places whoever shapes:
// those that come to a veth one right after the other on two processors.
func wholesome(what string, got prober.Series) error {
	if got.Duplicates+got.Corrupted > 0 || got.Reordered > 1+got.Sent/100 {
		return fmt.Errorf("%s: %d packets came again, %d late and %d damaged", what, got.Duplicates, got.Reordered, got.Corrupted)
	}
	return nil
}

// early is by how much a packet may seem to be too early: sender and receiver read the clock a moment apart from when the
// packet leaves and comes.
const early = 100 * time.Microsecond

func atLeast(what string, got, want time.Duration) error {
	if got < want-early {
		return fmt.Errorf("%s is %v, should be at least %v", what, got, want)
	}
	return nil
}

func atMost(what string, got, want time.Duration) error {
	if got > want+*slack {
		return fmt.Errorf("%s is %v, should be at most %v (and %v for a busy machine)", what, got, want, *slack)
	}
	return nil
}

// dial connects two instances by TCP.
func (s *stand) dial(from, to links.Instance) (near, far net.Conn) {
	s.Helper()
	var l net.Listener
	err := s.inside(to)(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(s.address(to).String(), "0"))
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	defer l.Close()
	err = s.inside(from)(func() (err error) {
		near, err = net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { near.Close() })
	if far, err = l.Accept(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { far.Close() })
	return near, far
}

// upload sends as much as goes from one instance to another by TCP, and returns the rate of the data in bits per second
// from the first to the last moment.
func (s *stand) upload(from, to links.Instance, first, last time.Duration) float64 {
	near, far := s.dial(from, to)
	began := time.Now()
	go func() {
		data := make([]byte, 64<<10)
		for {
			if _, err := near.Write(data); err != nil {
				return
			}
		}
	}()
	counted, since, until := 0, time.Duration(0), time.Duration(0)
	buffer := make([]byte, 256<<10)
	for until < last {
		n, err := far.Read(buffer)
		if err != nil {
			s.Fatal(err)
		}
		until = time.Since(began)
		if until < first {
			since = until
			continue
		}
		counted += n
	}
	return float64(8*counted) / (until - cmp.Or(since, until)).Seconds()
}

// exchanges opens a UDP socket at either end and has words come back, one after the other: how long each took.
func (s *stand) exchanges(from, to links.Instance, n int) []time.Duration {
	server := s.listen(to)
	go func() {
		word := make([]byte, 64)
		for {
			n, sender, err := server.ReadFromUDPAddrPort(word)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDPAddrPort(word[:n], sender)
		}
	}()
	client := s.listen(from)
	var took []time.Duration
	word := make([]byte, 64)
	for range n {
		if err := client.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			s.Fatal(err)
		}
		began := time.Now()
		if _, err := client.WriteToUDP([]byte("groundplan"), server.LocalAddr().(*net.UDPAddr)); err != nil {
			s.Fatal(err)
		}
		if _, _, err := client.ReadFromUDPAddrPort(word); err != nil {
			s.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	return took
}

func (s *stand) listen(at links.Instance) *net.UDPConn {
	var c *net.UDPConn
	err := s.inside(at)(func() (err error) {
		c, err = net.ListenUDP("udp", &net.UDPAddr{IP: s.address(at).AsSlice()})
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	s.Cleanup(func() { c.Close() })
	return c
}

// arrivals sends numbered packets and says which of them came.
func (s *stand) arrivals(from, to links.Instance, n int, interval time.Duration) []bool {
	client, server := s.listen(from), s.listen(to)
	came := make([]bool, n)
	done := make(chan error, 1)
	go func() {
		packet := make([]byte, 16)
		for {
			if _, _, err := server.ReadFromUDPAddrPort(packet); err != nil {
				done <- err
				return
			}
			if number := int(packet[0])<<16 | int(packet[1])<<8 | int(packet[2]); number < n {
				came[number] = true
			}
		}
	}()
	began := time.Now()
	for i := range n {
		time.Sleep(time.Until(began.Add(time.Duration(i) * interval)))
		if _, err := client.WriteToUDP([]byte{byte(i >> 16), byte(i >> 8), byte(i)}, server.LocalAddr().(*net.UDPAddr)); err != nil {
			s.Fatal(err)
		}
	}
	_ = server.SetReadDeadline(time.Now().Add(time.Second))
	if err := <-done; errors.Is(err, io.EOF) {
		s.Fatal(err)
	}
	return came
}
