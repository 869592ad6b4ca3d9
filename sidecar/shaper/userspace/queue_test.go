package userspace

import (
	"math/rand/v2"
	"testing"
)

func TestTheQueueIsInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q queue
	if _, ok := q.next(); ok {
		t.Error("nothing has a time")
	}
	for range 20_000 {
		if random.IntN(5) < 3 {
			// Few times, so that many are the same.
			q.push(event{at: random.Int64N(50)})
			continue
		}
		if len(q.events) == 0 {
			continue
		}
		at, _ := q.next()
		got := q.pop()
		if got.at != at {
			t.Fatalf("%d came out, %d was announced", got.at, at)
		}
		for i := range q.events {
			if q.events[i].before(&got) {
				t.Fatalf("%d came out before %d", got.at, q.events[i].at)
			}
		}
	}
	for last := (event{}); len(q.events) > 0; {
		next := q.pop()
		if next.before(&last) {
			t.Fatal("out of order at the end")
		}
		last = next
	}
}
