package main

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

var kinds = slices.Sorted(maps.Keys(expected))

func TestEachKindIsFoundOut(t *testing.T) {
	for _, k := range kinds {
		t.Run(string(k), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				at := withServices(t, n)
				found, err := n.add(k).player(at...).explore(t.Context())
				if err != nil || found != expected[k] {
					t.Errorf("%v, %v; want %v", found, err, expected[k])
				}
			})
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	n := newNet()
	l, err := n.add(open).player().line()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.outside(ctx, n.next(n.add(open).own)); err == nil {
		t.Error("nobody told where it is, and yet it knows")
	}
}

// TestWhoMeetsWhom digs between all kinds.
func TestWhoMeetsWhom(t *testing.T) {
	for _, a := range kinds {
		for _, b := range kinds {
			t.Run(string(a)+" and "+string(b), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					first, second := meet(t, a, b)
					if want := punchable(a, b); first != want || second != want {
						t.Errorf("one says %v, the other %v, want %v", first, second, want)
					}
				})
			})
		}
	}
}

// meet has two of these kinds dig a hole, and tells what either thinks of it.
func meet(t *testing.T, a, b kind) (first, second bool) {
	n := newNet()
	at := withServices(t, n)
	var sides [2]*hole
	var outsides [2]netip.AddrPort
	for i, k := range []kind{a, b} {
		l, err := n.add(k).player().line()
		if err != nil {
			t.Fatal(err)
		}
		if outsides[i], err = l.outside(t.Context(), at[0].First); err != nil {
			t.Fatal(err)
		}
		sides[i] = &hole{line: l, token: pair(1, 2)}
	}
	sides[0].peer, sides[1].peer = outsides[1], outsides[0]
	var work sync.WaitGroup
	for _, h := range sides {
		work.Go(func() {
			if err := h.dig(t.Context(), time.Second); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	return sides[0].met, sides[1].met
}

func TestWhoReachesWhomUnasked(t *testing.T) {
	for _, k := range kinds {
		n := newNet()
		at := withServices(t, n)
		door, err := n.add(k).player().line()
		if err != nil {
			t.Fatal(err)
		}
		outside, err := door.outside(t.Context(), at[0].First)
		if err != nil {
			t.Fatal(err)
		}
		for i, from := range kinds {
			hand, err := n.add(from).player().line()
			if err != nil {
				t.Fatal(err)
			}
			hand.seq = int64(i)
			if err := hand.say(outside, message{Kind: knock}); err != nil {
				t.Fatal(err)
			}
		}
		heard, err := visitors(door, 20*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		for i, from := range kinds {
			if heard[int64(i)] != reachable(k) {
				t.Errorf("%s is reached by %s: %v", k, from, heard[int64(i)])
			}
		}
	}
}

func TestMappingsEnd(t *testing.T) {
	for k, lasts := range map[kind]bool{open: true, fullCone: false, symmetric: false} {
		for _, keep := range []bool{false, true} {
			t.Run(string(k), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.timeout = time.Minute
					at := withServices(t, n)
					l, err := n.add(k).player().line()
					if err != nil {
						t.Fatal(err)
					}
					w := listener{line: l, timeout: n.timeout, keep: keep}
					if err := w.listen(t.Context(), at[0].First); err != nil {
						t.Fatal(err)
					}
					if all := w.last == tickCount; all != (lasts || keep) || w.last == 0 {
						t.Errorf("kept %v: the last of %d was %d", keep, tickCount, w.last)
					}
				})
			})
		}
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	a, b := peer{Name: "left/0", Kind: symmetric}, peer{Name: "right/1", Kind: portRestricted}
	for _, v := range []verdict{{"reach", a, b, false, false}, {"reach", a, b, true, true}} {
		if err := v.err(); err != nil {
			t.Error(err)
		}
	}
	err := verdict{"hole punching", a, b, true, false}.err()
	if err == nil || err.Error() != "hole punching: from left/0 (symmetric) to right/1 (port-restricted) it does work; by RFC 4787 it doesn't" {
		t.Error(err)
	}
}

func TestWhatIsSaidOfAKind(t *testing.T) {
	for k, says := range map[kind]string{
		open:      "not translated, filter endpoint-independent",
		symmetric: "mapping endpoint-dependent, filter address and port-dependent, no hair-pinning",
		fullCone:  "mapping endpoint-independent, filter endpoint-independent, hair-pinning",
	} {
		if got := expected[k].String(); got != says {
			t.Errorf("%s: %s", k, got)
		}
	}
}

func TestTable(t *testing.T) {
	got := table([]row{{open, "symmetric", 1, 2}, {symmetric, "open", 0, 1}, {open, "symmetric", 1, 1}})
	want := `from \ to        open             symmetric       
open             -                2 of 3          
symmetric        0 of 1           -               
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestParameters(t *testing.T) {
	for _, k := range append(kinds, rendezvous) {
		if got, err := readKind(string(k)); err != nil || got != k {
			t.Errorf("%s: %v, %v", k, got, err)
		}
	}
	if _, err := readKind("conical"); err == nil || !strings.Contains(err.Error(), "full-cone") {
		t.Error(err)
	}
	run := func(params map[string]string) *sdk.Run {
		return &sdk.Run{Environment: sdk.Environment{Params: params, Instances: rendezvousCount}}
	}
	for says, params := range map[string]map[string]string{
		"parameter": nil, "conical": {"nat": "conical"}, "others": {"nat": "open"},
	} {
		if err := play((*player).reach)(t.Context(), run(params)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v", params, err)
		}
	}
}

// TestTraffic passes over the loopback interface, where nothing is translated.
func TestTraffic(t *testing.T) {
	at := netip.MustParseAddr("127.0.0.1")
	listen := func() (socket, error) {
		return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	}
	var work sync.WaitGroup
	defer work.Wait()
	s, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	server := server{first: line{s, 1}, start: work.Go}
	work.Go(func() { server.answer(server.first) })
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	work.Go(func() { echo(work.Go, l) })
	p := player{Run: &sdk.Run{}, kind: open, own: at, open: listen, patience: time.Second}
	stream := l.Addr().(*net.TCPAddr).AddrPort()
	if err := p.stream(t.Context(), stream); err != nil {
		t.Error(err)
	}
	if err := p.large(t.Context(), server.first.local()); err != nil {
		t.Error(err)
	}
	if err := p.refused(t.Context(), netip.AddrPortFrom(at, closedPort)); err != nil {
		t.Error(err)
	}
	p.kind = symmetric
	if err := p.stream(t.Context(), stream); err == nil || !strings.Contains(err.Error(), "the other side sees 127.0.0.1") {
		t.Errorf("behind a NAT that does nothing: %v", err)
	}
	p.patience = time.Millisecond
	if err := p.refused(t.Context(), server.first.local()); err == nil {
		t.Error("somebody is there, and yet nobody")
	}
	if err := p.large(t.Context(), netip.AddrPortFrom(at, closedPort)); err == nil {
		t.Error("nobody answers, and yet somebody")
	}
}
