package main

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const testClients, testNodes = 1000, 10

// TestThousand holds what the figures rest on: every client of every gateway is let go, once, and none before the last
// one has signalled; every item reaches every subscriber once; and Redis sees no more than two connections per gateway.
func TestThousand(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server is installed here")
	}
	if err := enoughFiles(3 * testClients); err != nil {
		t.Skip(err)
	}
	folder := t.TempDir()
	redisSocket, redis, err := startRedis(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer end(redis)
	nodes, err := openNodes(testNodes, redisSocket, folder)
	if err != nil {
		t.Fatal(err)
	}
	defer closeNodes(nodes)
	s, err := connect(testClients, socketsOf(nodes))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	n := 0
	for _, m := range []measurement{
		{"the last one signals", lastSignals},
		{"at once", func(ctx context.Context, s *swarm, n int) (figures, error) { return arrive(ctx, s, n, 0) }},
		{"spread", func(ctx context.Context, s *swarm, n int) (figures, error) {
			return arrive(ctx, s, n, 300*time.Millisecond)
		}},
		{"one by one", oneByOne},
		{"fan-out", fanOut},
	} {
		t.Run(m.name, func(t *testing.T) {
			for range 3 {
				n++
				f, err := m.take(t.Context(), s, n)
				if err != nil {
					t.Fatal(err)
				}
				if len(f)%testClients != 0 {
					t.Errorf("%d figures of %d clients", len(f), testClients)
				}
			}
		})
	}
	connections, err := redisClients(t.Context(), redisSocket)
	if err != nil {
		t.Fatal(err)
	}
	if connections > 2*testNodes {
		t.Errorf("Redis sees %d connections of %d gateways", connections, testNodes)
	}
}

func TestFrame(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name, in, payload, after, err string
	}{
		{"nothing", "", "", "", ""},
		{"half a head", "\x81", "", "\x81", ""},
		{"half a payload", "\x81\x03ab", "", "\x81\x03ab", ""},
		{"half a length", "\x81\x7e\x01", "", "\x81\x7e\x01", ""},
		{"one and a bit", "\x81\x02ab\x81", "ab", "\x81", ""},
		{"a long one", "\x81\x7e\x01\x2c" + long, long, "", ""},
		{"a close", "\x88\x00", "", "", "kind 0x88"},
		{"a huge one", "\x81\x7f", "", "", "larger"},
	} {
		t.Run(c.name, func(t *testing.T) {
			payload, after, err := frame([]byte(c.in))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || string(payload) != c.payload || string(after) != c.after {
				t.Errorf("got %q, %q, %v", payload, after, err)
			}
		})
	}
}

func TestIdentify(t *testing.T) {
	for _, c := range []struct {
		reply string
		id    int
		bad   bool
	}{
		{`{"id":"17","error":"","publish":null,"subscribe":"","signal_entry":null}`, 17, false},
		{`{"id":"17","error":"no","publish":null,"subscribe":"","signal_entry":null}`, 0, true},
		{`{"id":"x","error":"","publish":null}`, 0, true},
		{`nonsense`, 0, true},
	} {
		if id, err := identify([]byte(c.reply)); id != c.id || (err != nil) != c.bad {
			t.Errorf("%s: %d, %v", c.reply, id, err)
		}
	}
}

// TestEarly shows that a client that is let go before the last one has signalled is noticed.
func TestEarly(t *testing.T) {
	s := &swarm{clients: []*client{{number: 0}, {number: 1}}, failed: make(chan error, 1)}
	a := s.arrival(1)
	a.heard(s.clients[0], idOf(1, kindBarrier), nil, time.Now())
	if _, err := a.wait(t.Context()); err == nil || !strings.Contains(err.Error(), "before the last one") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.arrival(2).wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestShuffled(t *testing.T) {
	clients := make([]*client, 100)
	for i := range clients {
		clients[i] = &client{number: i}
	}
	seen := map[int]bool{}
	for _, c := range shuffled(clients, 3) {
		seen[c.number] = true
	}
	if len(seen) != len(clients) {
		t.Errorf("%d of %d are left", len(seen), len(clients))
	}
}
