package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func serving(t *testing.T) *answers {
	t.Helper()
	var work sync.WaitGroup
	a, err := answer(t.Context(), func(f func()) { work.Go(f) }, loopback)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		work.Wait()
	})
	return a
}

type recorded struct{ rounds []time.Duration }

func (r *recorded) add(d time.Duration) error {
	r.rounds = append(r.rounds, d)
	return nil
}

func TestEveryRoundIsMeasuredOnce(t *testing.T) {
	a := serving(t)
	for _, size := range []int{numberSize, 64, maxSize} {
		g := game{rounds: 20, warmUp: 5, size: size, patience: 5 * time.Second}
		var tcp, udp recorded
		if err := g.stream(t.Context(), a.tcp(), tcp.add); err != nil {
			t.Errorf("%d bytes over TCP: %v", size, err)
		}
		lost, err := g.packets(t.Context(), a.udp(), udp.add)
		if err != nil || lost != 0 {
			t.Errorf("%d bytes over UDP: %d lost, %v", size, lost, err)
		}
		for name, r := range map[string]recorded{"tcp": tcp, "udp": udp} {
			if len(r.rounds) != g.rounds {
				t.Errorf("%s recorded %d rounds, want %d", name, len(r.rounds), g.rounds)
			}
			for _, d := range r.rounds {
				if d <= 0 {
					t.Errorf("%s recorded a round of %v", name, d)
				}
			}
		}
	}
}

// forgetful answers only packets whose number keep says yes to, and those twice.
func forgetful(t *testing.T, keep func(int) bool) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		ball := make([]byte, maxSize)
		for {
			n, from, err := c.ReadFrom(ball)
			if err != nil {
				return
			}
			if keep(number(ball)) {
				_, _ = c.WriteTo(ball[:n], from)
				_, _ = c.WriteTo(ball[:n], from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestLostPacketsAreCounted(t *testing.T) {
	g := game{rounds: 10, warmUp: 2, size: 64, patience: 50 * time.Millisecond}
	var r recorded
	lost, err := g.packets(t.Context(), forgetful(t, func(i int) bool { return i != 1 && i != 5 && i != 9 }), r.add)
	if err != nil || lost != 2 || len(r.rounds) != 8 { // 1 was warm-up
		t.Errorf("%d lost, %d recorded, %v; want 2 and 8", lost, len(r.rounds), err)
	}
	if _, err := g.packets(t.Context(), forgetful(t, func(int) bool { return false }), r.add); err == nil {
		t.Error("a game in which nothing comes back succeeds")
	}
}

func TestAStreamThatFallsSilentFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := game{rounds: 1, size: 64, patience: 50 * time.Millisecond}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	if err := g.stream(t.Context(), to, (&recorded{}).add); err == nil || !strings.Contains(err.Error(), "round 0") {
		t.Errorf("nobody answers: %v", err)
	}
	l.Close()
	if err := g.stream(t.Context(), to, (&recorded{}).add); err == nil {
		t.Error("nobody listens: no error")
	}
}

func TestACancelledGameEnds(t *testing.T) {
	a := serving(t)
	g := game{rounds: 1 << 30, size: 64, patience: time.Minute}
	for name, play := range map[string]func(context.Context, func(time.Duration) error) error{
		"TCP": func(ctx context.Context, record func(time.Duration) error) error {
			return g.stream(ctx, a.tcp(), record)
		},
		"UDP": func(ctx context.Context, record func(time.Duration) error) error {
			_, err := g.packets(ctx, a.udp(), record)
			return err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		err := play(ctx, func(time.Duration) error {
			if n++; n == 10 {
				cancel()
			}
			return nil
		})
		if err == nil {
			t.Error(name, "went on")
		}
	}
}

func TestWhatCannotBeRecordedEndsTheGame(t *testing.T) {
	a := serving(t)
	full := errors.New("disk full")
	refuse := func(time.Duration) error { return full }
	g := game{rounds: 1, size: 64, patience: time.Second}
	if err := g.stream(t.Context(), a.tcp(), refuse); !errors.Is(err, full) {
		t.Error(err)
	}
	if _, err := g.packets(t.Context(), a.udp(), refuse); !errors.Is(err, full) {
		t.Error(err)
	}
}

func TestEveryoneHasANext(t *testing.T) {
	all := []peer{{Seq: 3}, {Seq: 1}, {Seq: 4}, {Seq: 2}}
	for seq, want := range map[int64]int64{1: 2, 2: 3, 3: 4, 4: 1} {
		if next, err := nextOf(all, seq); err != nil || next.Seq != want {
			t.Errorf("after %d comes %d, %v, want %d", seq, next.Seq, err, want)
		}
	}
	if _, err := nextOf(all, 5); err == nil {
		t.Error("somebody who isn't here has a next")
	}
}

func TestParameters(t *testing.T) {
	run := func(params map[string]string) *sdk.Run {
		return &sdk.Run{Environment: sdk.Environment{Params: params}}
	}
	if g, err := readGame(run(nil)); err != nil || g != (game{100, 10, 64, 5 * time.Second}) {
		t.Errorf("without parameters: %+v, %v", g, err)
	}
	given := map[string]string{"rounds": "7", "warmup": "0", "size": "1Ki", "patience": "2s"}
	if g, err := readGame(run(given)); err != nil || g != (game{7, 0, 1024, 2 * time.Second}) {
		t.Errorf("with parameters: %+v, %v", g, err)
	}
	for name, value := range map[string]string{"rounds": "0", "warmup": "-1", "size": "1Mi", "patience": "0s"} {
		if _, err := readGame(run(map[string]string{name: value})); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
		if _, err := readGame(run(map[string]string{name: "x"})); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=x: %v", name, err)
		}
	}
	if err := pingPong(t.Context(), &sdk.Run{Environment: sdk.Environment{Instances: 1}}); err == nil {
		t.Error("one instance plays")
	}
}
