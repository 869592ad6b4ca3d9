package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func measuring(t *testing.T) *meter {
	t.Helper()
	var work sync.WaitGroup
	m, err := openMeter(t.Context(), func(f func()) { work.Go(f) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
		work.Wait()
	})
	return m
}

func (m *meter) here() endpoint { return endpoint{loopback, [2]uint16{m.udp(), m.tcp()}} }

// eventually waits until a series is as it should be.
func eventually(t *testing.T, m *meter, key uint64, right func(Report) bool) {
	t.Helper()
	for range 200 {
		if right(m.report(key)) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("reported %+v", m.report(key))
}

func TestASeriesIsCounted(t *testing.T) {
	m := measuring(t)
	key := oneWay()
	if err := series(t.Context(), m.here(), key, 100, 200, 100*time.Microsecond); err != nil {
		t.Fatal(err)
	}
	eventually(t, m, key, func(r Report) bool {
		return r.Received == 100 && r.Duplicates == 0 && r.Reordered == 0 && r.Corrupted == 0 && r.Rate > 0
	})
	if other := m.report(key + 1); other != (Report{}) {
		t.Errorf("a series that nobody sent: %+v", other)
	}
}

func TestWhatHappensToASeriesIsCounted(t *testing.T) {
	m := measuring(t)
	c, err := net.DialUDP("udp", nil, m.here().udp())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key := oneWay()
	for _, number := range []int{0, 1, 1, 4, 3, 5} { // 2 is lost, 1 comes twice, 4 overtakes 3
		packet := make([]byte, 100)
		fill(packet, key, number)
		if number == 5 {
			packet[15] ^= 4
		}
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Write([]byte("noise")); err != nil {
		t.Fatal(err)
	}
	want := Report{Received: 5, Duplicates: 1, Reordered: 1, Corrupted: 1}
	eventually(t, m, key, func(r Report) bool { return r == want })
}

func TestPacketsSayWhoTheyAre(t *testing.T) {
	for _, size := range []int{smallest, smallest + 1, 1000} {
		packet := make([]byte, size)
		fill(packet, 99, 7)
		for bit := range 8 * size {
			damaged := slices.Clone(packet)
			damaged[bit/8] ^= 1 << (bit % 8)
			if key, number, intact, ok := read(damaged); key != 99 || number != 7 || intact || !ok {
				t.Errorf("%d bytes, bit %d flipped: key %d, number %d, intact %v, %v", size, bit, key, number, intact, ok)
			}
		}
	}
	if _, _, _, ok := read(make([]byte, smallest-1)); ok {
		t.Error("too short, and read")
	}
}

func TestEchoesAreTimed(t *testing.T) {
	m := measuring(t)
	trips, err := echo(t.Context(), m.here(), 20, time.Millisecond, time.Second)
	if err != nil || allBack(trips) != nil || trips.median() <= 0 {
		t.Errorf("%+v, %v", trips, err)
	}
	deaf, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	nobody := endpoint{loopback, [2]uint16{deaf.LocalAddr().(*net.UDPAddr).AddrPort().Port(), 0}}
	trips, err = echo(t.Context(), nobody, 5, 0, 20*time.Millisecond)
	if err != nil || len(trips.Times) != 0 || trips.Sent != 5 || allBack(trips) == nil || trips.median() != 0 {
		t.Errorf("nobody answers: %+v, %v", trips, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := echo(ctx, nobody, 5, 0, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled echo: %v", err)
	}
}

func TestKnocks(t *testing.T) {
	m := measuring(t)
	if err := fares(t.Context(), m.here(), accepted, 0); err != nil {
		t.Error(err)
	}
	if err := fares(t.Context(), m.here(), dropped, 0); err == nil || !strings.Contains(err.Error(), "TCP is met with accept instead of drop") {
		t.Error(err)
	}
	gone, err := openMeter(t.Context(), func(f func()) { go f() })
	if err != nil {
		t.Fatal(err)
	}
	nowhere := gone.here()
	if err := gone.close(); err != nil {
		t.Fatal(err)
	}
	if err := fares(t.Context(), nowhere, rejected, 0); err != nil {
		t.Error(err)
	}
}

func TestFiguresAreHeldAgainstWhatIsAsked(t *testing.T) {
	for _, c := range []struct {
		err  error
		says string
	}{
		{nearTime("RTT", 42*time.Millisecond, 40*time.Millisecond), ""},
		{nearTime("RTT", 56*time.Millisecond, 40*time.Millisecond), "RTT 56ms instead of 40ms"},
		{nearTime("RTT", 20*time.Millisecond, 40*time.Millisecond), "RTT 20ms"},
		{nearShare("loss", 60, 600, 0.1), ""},
		{nearShare("loss", 0, 600, 0), ""},
		{nearShare("loss", 1, 600, 0), "1 of 600 packets"},
		{nearShare("loss", 120, 600, 0.1), "loss 20.0% instead of 10.0%"},
		{nearShare("loss", 10, 600, 0.1), "loss 1.7%"},
		{nearRate(4.9e6, 5*sdk.Mbit), ""},
		{nearRate(6e6, 5*sdk.Mbit), "6.00 Mbit/s instead of 5.00"},
		{nearRate(0, 5*sdk.Mbit), "0.00 Mbit/s"},
	} {
		switch {
		case c.says == "" && c.err != nil:
			t.Error(c.err)
		case c.says != "" && (c.err == nil || !strings.Contains(c.err.Error(), c.says)):
			t.Errorf("%v, want something with %q", c.err, c.says)
		}
	}
}

func TestRates(t *testing.T) {
	began := time.Now()
	var steady, halted []arrival
	for i := range 200 {
		at := began.Add(time.Duration(i) * time.Millisecond)
		steady = append(steady, arrival{at, 1000})
		if i > 100 && i < 130 {
			at = began.Add(130 * time.Millisecond)
		}
		halted = append(halted, arrival{at, 1000})
	}
	for name, arrivals := range map[string][]arrival{"steady": steady, "halted": halted} {
		if got := rate(arrivals); got < 0.99e6 || got > 1.01e6 {
			t.Errorf("%s: %v of 1,000,000 bits a second", name, got)
		}
	}
	for n := range 20 {
		if got := rate(steady[:n]); got != 0 {
			t.Errorf("%d packets have a rate of %v", n, got)
		}
	}
}

func TestEveryClientMovesElsewhere(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.0.0/16")
	seen := make(map[netip.Addr]bool)
	for index := range 300 {
		a := elsewhere(subnet, index)
		if seen[a] || !subnet.Contains(a) {
			t.Errorf("client %d moves to %s", index, a)
		}
		seen[a] = true
	}
	if got := elsewhere(subnet, 0).String(); got != "10.0.251.250" {
		t.Errorf("client 0 moves to %s", got)
	}
}
