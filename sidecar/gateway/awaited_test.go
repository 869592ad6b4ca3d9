package gateway

import (
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// overhear gives what gateways of a run tell each other from now on.
func overhear(t *testing.T, r *redis.Client, g *Gateway) func() []change {
	t.Helper()
	subscription := r.Subscribe(t.Context(), g.channel())
	t.Cleanup(func() { _ = subscription.Close() })
	if _, err := subscription.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	return func() []change {
		t.Helper()
		var all []change
		for {
			message, err := subscription.ReceiveTimeout(t.Context(), 100*time.Millisecond)
			m, is := message.(*redis.Message)
			if err != nil || !is {
				return all
			}
			var c change
			if err := json.Unmarshal([]byte(m.Payload), &c); err != nil {
				t.Errorf("message %q: %v", m.Payload, err)
			}
			all = append(all, c)
		}
	}
}

// TestOnlyWhatIsAwaitedIsTold has one gateway signal and publish, and another wait: it is told once, and of nothing that
// nobody waits for. On a hundred nodes everything else would cost a hundred messages per batch.
func TestOnlyWhatIsAwaitedIsTold(t *testing.T) {
	backends(t, func(t *testing.T, dialRedis func() (net.Conn, error)) {
		first, second := open(t, clientOf(t, dialRedis), "r"), open(t, clientOf(t, dialRedis), "r")
		told := overhear(t, clientOf(t, dialRedis), first)
		here, there := first.Space("s"), second.Space("s")
		signal := func(state string, times int) {
			t.Helper()
			for range times {
				if _, err := here.Signal(t.Context(), state, 1); err != nil {
					t.Fatal(err)
				}
			}
		}
		passed := func(state string, target int64) chan error {
			done := make(chan error, 1)
			go func() { done <- there.Barrier(t.Context(), state, target) }()
			return done
		}
		publish := func(topic string) {
			t.Helper()
			if _, err := here.Publish(t.Context(), topic, json.RawMessage(`1`)); err != nil {
				t.Fatal(err)
			}
		}

		signal("state", 9)
		publish("t")
		if m := told(); len(m) != 0 {
			t.Errorf("nobody waits, and %v is told", m)
		}

		tenth, twelfth := passed("state", 10), passed("state", 12)
		eventually(t, func() bool { return awaitedAt(t, first, here.counters+"state") == 2 })
		signal("state", 2) // 10 and 11
		if err := <-tenth; err != nil {
			t.Error(err)
		}
		if m := told(); len(m) != 1 || len(m[0].Counts) != 1 || m[0].Counts[0] != 10 || m[0].Keys[0] != here.counters+"state" {
			t.Errorf("the tenth is awaited, and told is %v", m)
		}
		signal("state", 2) // 12 and 13
		if err := <-twelfth; err != nil {
			t.Error(err)
		}
		if m := told(); len(m) != 1 || m[0].Counts[0] != 12 {
			t.Errorf("the twelfth is awaited, and told is %v", m)
		}
		if n := awaitedAt(t, first, here.counters+"state"); n != 0 {
			t.Errorf("%d counts are still awaited", n)
		}

		if items := collect(t, there, 1); len(items) != 1 {
			t.Error("the item published before is not read")
		}
		publish("other")
		if m := told(); len(m) != 0 {
			t.Errorf("nobody reads it, and %v is told", m)
		}
	})
}

// awaitedAt is how many counts are awaited at a counter.
func awaitedAt(t *testing.T, g *Gateway, key string) int64 {
	t.Helper()
	n, err := g.redis.ZCard(t.Context(), g.awaited(key)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patienceOfTests); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it doesn't come to that")
		}
	}
}
