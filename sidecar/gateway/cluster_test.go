package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// backends are the Redis servers that the tests of several gateways and of outages run against.
func backends(t *testing.T, test func(t *testing.T, dial func() (net.Conn, error))) {
	t.Run("embedded", func(t *testing.T) {
		m := miniredis.NewMiniRedis()
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		test(t, func() (net.Conn, error) { return net.Dial("tcp", m.Addr()) })
	})
	t.Run("redis-server", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "redis.sock")
		startRedis(t, socket, "--save", "")
		test(t, func() (net.Conn, error) { return net.Dial("unix", socket) })
	})
}

// startRedis runs a real Redis on a socket until stop or the test's end.
func startRedis(t *testing.T, socket string, args ...string) (stop func(), process *os.Process) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server is installed here")
	}
	cmd := exec.Command(path, append([]string{"--port", "0", "--unixsocket", socket, "--dir", filepath.Dir(socket)}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	t.Cleanup(stop)
	for range 500 {
		if c, err := net.Dial("unix", socket); err == nil {
			_ = c.Close()
			return stop, cmd.Process
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("redis-server doesn't come up")
	return nil, nil
}

func clientOf(t *testing.T, dial func() (net.Conn, error)) *redis.Client {
	r := redis.NewClient(&redis.Options{Protocol: 2, Dialer: func(context.Context, string, string) (net.Conn, error) { return dial() }})
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestTwoGatewaysAreOne(t *testing.T) {
	backends(t, func(t *testing.T, dialRedis func() (net.Conn, error)) {
		urls := []string{listenOn(t, open(t, clientOf(t, dialRedis), "r")), listenOn(t, open(t, clientOf(t, dialRedis), "r"))}
		a, b := dial(t, urls[0]), dial(t, urls[1])
		subA, subB := a.subscribe("t"), b.subscribe("t")
		waitA := a.barrier("s", 2)
		if a.signal("s")+b.signal("s") != 3 {
			t.Error("the two didn't count 1 and 2")
		}
		a.passed(waitA)
		b.passed(b.barrier("s", 2))
		for i, c := range []*client{a, b, b, a} {
			if seq := c.publish("t", fmt.Sprint(i)); seq != int64(i+1) {
				t.Errorf("item %d has number %d", i, seq)
			}
		}
		late := dial(t, urls[1])
		subLate := late.subscribe("t")
		for i := range 4 {
			for _, s := range []struct {
				c  *client
				id string
			}{{a, subA}, {b, subB}, {late, subLate}} {
				if r := s.c.get(s.id); r.Subscribe == nil || *r.Subscribe != fmt.Sprint(i) {
					t.Errorf("item %d: %+v", i, r)
				}
			}
		}
	})
}

// TestSequences has many publish and signal at once through several gateways, with Redis cut off now and then and
// answers lost: numbers are unique and without gaps, and everybody sees the same order.
func TestSequences(t *testing.T) {
	backends(t, func(t *testing.T, dialRedis func() (net.Conn, error)) {
		const gateways, clients, rounds = 3, 8, 60
		var spaces []*Space
		var cutters []*cutter
		for range gateways {
			cut, r := cuttable(t, dialRedis)
			cutters = append(cutters, cut)
			spaces = append(spaces, open(t, r, "r").Space("s"))
		}
		var mu sync.Mutex
		var published, signalled []int64
		var work, trouble sync.WaitGroup
		over := make(chan struct{})
		trouble.Go(func() { harass(cutters, over) })
		for i := range gateways * clients {
			work.Go(func() {
				s := spaces[i%gateways]
				for n := range rounds {
					p, err := s.Publish(t.Context(), "t", json.RawMessage(fmt.Sprintf(`"%d.%d"`, i, n)))
					q, err2 := s.Signal(t.Context(), "c", 1)
					if err = errors.Join(err, err2); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					published, signalled = append(published, p), append(signalled, q)
					mu.Unlock()
				}
			})
		}
		orders := make([][]string, gateways)
		for i, s := range spaces {
			work.Go(func() { orders[i] = collect(t, s, gateways*clients*rounds) })
			work.Go(func() {
				if err := s.Barrier(t.Context(), "c", gateways*clients*rounds); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		close(over)
		trouble.Wait()
		for name, seqs := range map[string][]int64{"published": published, "signalled": signalled} {
			slices.Sort(seqs)
			for i, seq := range seqs {
				if seq != int64(i+1) {
					t.Fatalf("%s: number %d stands at place %d", name, seq, i+1)
				}
			}
		}
		for i, order := range orders {
			if !slices.Equal(order, orders[0]) {
				t.Errorf("gateway %d saw another order", i)
			}
		}
		checkOrder(t, orders[0])
	})
}

// harass cuts gateways off from Redis, or loses an answer, until over.
func harass(cutters []*cutter, over <-chan struct{}) {
	for i := 0; ; i++ {
		c := cutters[i%len(cutters)]
		if i%2 == 0 {
			c.swallowOne()
		} else {
			c.cut()
		}
		select {
		case <-over:
			c.mend()
			return
		case <-time.After(15 * time.Millisecond):
		}
		c.mend()
		select {
		case <-over:
			return
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func collect(t *testing.T, s *Space, n int) (items []string) {
	for payload, err := range s.Subscribe(t.Context(), "t") {
		if err != nil {
			t.Error(err)
			return
		}
		if items = append(items, string(payload)); len(items) == n {
			return items
		}
	}
	t.Errorf("the subscription ended after %d of %d items", len(items), n)
	return items
}

// checkOrder checks that every client's items are all there once, in the order it published them.
func checkOrder(t *testing.T, items []string) {
	next := map[int]int{}
	for _, item := range items {
		var who, n int
		if _, err := fmt.Sscanf(item, `"%d.%d"`, &who, &n); err != nil || next[who] != n {
			t.Fatalf("item %s comes when %d.%d is due (%v)", item, who, next[who], err)
		}
		next[who]++
	}
}

// TestHeldUpBatch sends a batch again that was applied and answered, after later ones.
func TestHeldUpBatch(t *testing.T) {
	backends(t, func(t *testing.T, dialRedis func() (net.Conn, error)) {
		g := open(t, clientOf(t, dialRedis), "r")
		s := g.Space("s")
		for want := range int64(3) {
			if n, err := s.Signal(t.Context(), "s", 1); n != want+1 || err != nil {
				t.Fatal(n, err)
			}
		}
		for number, want := range map[int64]string{1: "late", 2: "late", 3: "3"} {
			b, _ := cut(number, []op{{key: s.counters + "s", add: 1}})
			keys, args := g.scriptInput(b)
			if reply, err := commitScript.Run(t.Context(), g.redis, keys, args...).Text(); reply != want || err != nil {
				t.Errorf("batch %d again: %q, %v; want %q", number, reply, err, want)
			}
		}
		if n, err := s.Signal(t.Context(), "s", 1); n != 4 || err != nil {
			t.Errorf("after that the count is %d, %v", n, err)
		}
	})
}

func TestOutageHoldsEverything(t *testing.T) {
	backends(t, func(t *testing.T, dialRedis func() (net.Conn, error)) {
		cut, r := cuttable(t, dialRedis)
		near, far := open(t, r, "r"), open(t, clientOf(t, dialRedis), "r").Space("s")
		c := dial(t, listenOn(t, near))
		sub, wait := c.subscribe("t"), c.barrier("s", 3)
		c.signal("s")
		c.publish("t", "1")
		c.get(sub)
		cut.cut()
		signal, publish := c.ask(`"signal_entry":{"state":"s"}`), c.ask(`"publish":{"topic":"t","payload":3}`)
		lateSub, lateWait := c.subscribe("t2"), c.barrier("s2", 1)
		// What others do meanwhile is only found by reading anew.
		for _, topic := range []string{"t", "t2"} {
			if _, err := far.Publish(t.Context(), topic, json.RawMessage("2")); err != nil {
				t.Fatal(err)
			}
		}
		for _, state := range []string{"s", "s2"} {
			if _, err := far.Signal(t.Context(), state, 1); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range []string{signal, publish, sub, wait, lateWait} {
			c.none(id)
		}
		cut.mend()
		if r := c.get(signal); r.Signal == nil || r.Signal.Seq != 3 {
			t.Errorf("the held signal: %+v", r)
		}
		if r := c.get(publish); r.Publish == nil || r.Publish.Seq != 3 {
			t.Errorf("the held publish: %+v", r)
		}
		c.passed(wait)
		c.passed(lateWait)
		for _, want := range []struct{ id, payload string }{{sub, "2"}, {sub, "3"}, {lateSub, "2"}} {
			if r := c.get(want.id); r.Subscribe == nil || *r.Subscribe != want.payload {
				t.Errorf("subscription %s: %+v, want %s", want.id, r, want.payload)
			}
		}
	})
}

func TestRestartedRedisKeepsOrHasLost(t *testing.T) {
	for _, kept := range []bool{true, false} {
		t.Run(fmt.Sprintf("kept=%v", kept), func(t *testing.T) {
			m := miniredis.NewMiniRedis()
			if err := m.Start(); err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			address := m.Addr()
			s := open(t, clientOf(t, func() (net.Conn, error) { return net.Dial("tcp", address) }), "r").Space("s")
			if _, err := s.Signal(t.Context(), "s", 1); err != nil {
				t.Fatal(err)
			}
			waits := make(chan error, 1)
			go func() { waits <- s.Barrier(context.Background(), "s", 2) }()
			m.Close()
			if !kept {
				m.FlushAll()
			}
			signalled := make(chan error, 1)
			go func() { signalled <- second(s.Signal(context.Background(), "s", 1)) }()
			time.Sleep(50 * time.Millisecond)
			if err := m.Restart(); err != nil {
				t.Fatal(err)
			}
			for name, ended := range map[string]chan error{"barrier": waits, "signal": signalled} {
				if err := <-ended; kept && err != nil || !kept && !errors.Is(err, ErrDataLost) {
					t.Errorf("%s ended with %v", name, err)
				}
			}
		})
	}
}

func TestRealRedisRestartsWithItsFile(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "redis.sock")
	args := []string{"--appendonly", "yes", "--appendfsync", "always", "--save", ""}
	stop, _ := startRedis(t, socket, args...)
	s := open(t, clientOf(t, func() (net.Conn, error) { return net.Dial("unix", socket) }), "r").Space("s")
	if _, err := s.Signal(t.Context(), "s", 2); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() { waits <- s.Barrier(context.Background(), "s", 5) }()
	stop()
	counted := make(chan int64, 1)
	go func() {
		n, err := s.Signal(context.Background(), "s", 3)
		if err != nil {
			t.Error(err)
		}
		counted <- n
	}()
	time.Sleep(50 * time.Millisecond)
	startRedis(t, socket, args...)
	if n := <-counted; n != 5 {
		t.Errorf("the count is %d", n)
	}
	if err := <-waits; err != nil {
		t.Error(err)
	}
}

// TestHungRedis has Redis accept everything and answer nothing for a second: what is repeated meanwhile is all carried
// out once it goes on, but counts once.
func TestHungRedis(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "redis.sock")
	_, process := startRedis(t, socket, "--save", "")
	r := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Protocol: 2, ReadTimeout: 50 * time.Millisecond})
	t.Cleanup(func() { _ = r.Close() })
	s := open(t, r, "r").Space("s")
	const clients, rounds = 10, 30
	var work sync.WaitGroup
	for range clients {
		work.Go(func() {
			for range rounds {
				if _, err := s.Signal(t.Context(), "s", 1); err != nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	for range 3 {
		time.Sleep(50 * time.Millisecond)
		for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
			if err := process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			time.Sleep(400 * time.Millisecond)
		}
	}
	work.Wait()
	if n, err := s.Signal(t.Context(), "s", 1); n != clients*rounds+1 || err != nil {
		t.Errorf("the count is %d, %v; want %d", n, err, clients*rounds+1)
	}
}

// TestThousandClients has a thousand wait for each other through two gateways, then publish, and each receive all.
func TestThousandClients(t *testing.T) {
	heavy(t)
	const clients, hearers = 1000, 50
	r := embedded(t)
	urls := []string{listenOn(t, open(t, r, "r")), listenOn(t, open(t, r, "r"))}
	all := make([]*client, clients)
	var work sync.WaitGroup
	for i := range all {
		all[i] = dial(t, urls[i%2])
	}
	for i, c := range all {
		work.Go(func() {
			c.signal("s")
			c.passed(c.barrier("s", clients))
			c.publish("t", fmt.Sprint(i))
			if i%(clients/hearers) != 0 {
				return
			}
			sub, seen := c.subscribe("t"), map[string]bool{}
			for range clients {
				r := c.get(sub)
				if r.Subscribe == nil || seen[*r.Subscribe] {
					t.Errorf("client %d has %d items and then %+v", i, len(seen), r)
					return
				}
				seen[*r.Subscribe] = true
			}
		})
	}
	work.Wait()
}
