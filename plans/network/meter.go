package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// meter receives what others send to an instance: it counts the packets of every series, and sends back those that ask
// for it. It answers TCP connections too. It listens at every address that the instance has or gets.
type meter struct {
	packets *net.UDPConn
	stream  net.Listener

	mu     sync.Mutex
	series map[uint64]*tally
}

// tally is what came of a series.
type tally struct {
	came                             map[int]bool
	last                             int
	duplicates, reordered, corrupted int
	arrivals                         []arrival
}

type arrival struct {
	at   time.Time
	bits int
}

// Report is what a meter says about a series.
type Report struct {
	Received, Duplicates, Reordered, Corrupted int
	// Rate is in bits per second of IP packets, without the first quarter of them; 0 when too few came.
	Rate float64
}

// openMeter begins to measure. start is how goroutines are started.
func openMeter(ctx context.Context, start func(func())) (*meter, error) {
	stream, err := new(net.ListenConfig).Listen(ctx, "tcp", ":0")
	if err != nil {
		return nil, err
	}
	packets, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, errors.Join(err, stream.Close())
	}
	_ = packets.SetReadBuffer(4 << 20) // what the limit allows has to do
	m := &meter{packets: packets, stream: stream, series: make(map[uint64]*tally)}
	start(m.count)
	start(func() { m.answer(start) })
	return m, nil
}

func (m *meter) udp() uint16 { return uint16(m.packets.LocalAddr().(*net.UDPAddr).Port) }
func (m *meter) tcp() uint16 { return uint16(m.stream.Addr().(*net.TCPAddr).Port) }

func (m *meter) close() error { return errors.Join(m.packets.Close(), m.stream.Close()) }

func (m *meter) count() {
	packet := make([]byte, largest)
	for {
		n, from, err := m.packets.ReadFromUDPAddrPort(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // somebody refused an answer
		}
		key, number, intact, ok := read(packet[:n])
		if !ok {
			continue
		}
		m.take(key, number, intact, arrival{time.Now(), 8 * (n + headers(from.Addr()))})
		if key&echoed != 0 {
			_, _ = m.packets.WriteToUDPAddrPort(packet[:n], from) // what is lost is missed by who sent it
		}
	}
}

// headers is the size of IP and UDP headers of packets from an address.
func headers(from netip.Addr) int {
	if from.Unmap().Is4() {
		return 28
	}
	return 48
}

func (m *meter) take(key uint64, number int, intact bool, a arrival) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.series[key]
	if t == nil {
		t = &tally{came: make(map[int]bool), last: -1}
		m.series[key] = t
	}
	t.arrivals = append(t.arrivals, a)
	if !intact {
		t.corrupted++
	}
	switch {
	case t.came[number]:
		t.duplicates++
	case number < t.last:
		t.reordered++
	}
	t.came[number] = true
	t.last = max(t.last, number)
}

// report says what has come of a series by now.
func (m *meter) report(key uint64) Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.series[key]
	if t == nil {
		return Report{}
	}
	r := Report{Received: len(t.came), Duplicates: t.duplicates, Reordered: t.reordered, Corrupted: t.corrupted}
	r.Rate = rate(t.arrivals[len(t.arrivals)/4:])
	return r
}

// rate is the median over stretches, so that a machine that stood still for a moment, and then caught up, doesn't change
// it; 0 when too little came.
func rate(arrivals []arrival) float64 {
	const stretches = 7
	n := (len(arrivals) - 1) / stretches
	if n < 3 {
		return 0
	}
	var rates []float64
	for i := range stretches {
		bits := 0
		for _, a := range arrivals[i*n+1 : (i+1)*n+1] {
			bits += a.bits
		}
		took := arrivals[(i+1)*n].at.Sub(arrivals[i*n].at)
		rates = append(rates, float64(bits)/max(took.Seconds(), 1e-9))
	}
	slices.Sort(rates)
	return rates[stretches/2]
}

// answer sends back what comes over TCP.
func (m *meter) answer(start func(func())) {
	for {
		c, err := m.stream.Accept()
		if err != nil {
			return
		}
		start(func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // ends when the other side does
		})
	}
}

// endpoint is where a meter is reached.
type endpoint struct {
	Address netip.Addr
	Data    [2]uint16 // ports for UDP and TCP
}

func (e endpoint) udp() *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.Address, e.Data[0]))
}
func (e endpoint) tcp() string {
	return net.JoinHostPort(e.Address.String(), strconv.Itoa(int(e.Data[1])))
}
