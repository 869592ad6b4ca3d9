package gateway

import "testing"

func TestMembers(t *testing.T) {
	client, end, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	var all []*Gateway
	for range 2 {
		g, err := New(Options{Redis: client, Run: "r"})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		all = append(all, g)
	}
	for _, name := range []string{"a", "b", "a"} {
		if err := all[0].Join(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		name string
		last bool
	}{{"a", false}, {"a", false}, {"b", true}, {"b", true}} {
		if last, err := all[i%2].Leave(t.Context(), step.name); err != nil || last != step.last {
			t.Errorf("%d: %s leaves: %v, %v", i, step.name, last, err)
		}
	}
}

// TestNumber has runs share one Redis and begin at the same number: each gets one of its own, the same on all of its nodes.
func TestNumber(t *testing.T) {
	client, end, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	open := func(run string) *Gateway {
		g, err := New(Options{Redis: client, Run: run})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		return g
	}
	number := func(g *Gateway, start uint32) uint32 {
		t.Helper()
		n, err := g.Number(t.Context(), start, 10)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, b, c := open("a"), open("b"), open("c")
	if first, second, third := number(a, 9), number(b, 9), number(c, 9); first != 9 || second != 10 || third != 1 {
		t.Errorf("got %d, %d and %d, want 9, 10 and 1", first, second, third)
	}
	if err := a.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := number(open("b"), 9); n != 10 {
		t.Errorf("another node of b got %d while 9 was free, and the first had 10", n)
	}
	if n := number(open("d"), 9); n != 9 {
		t.Errorf("what was given back was not given out: %d", n)
	}
	got := make(chan uint32)
	for range 8 {
		node := open("e")
		go func() {
			n, err := node.Number(t.Context(), 9, 10)
			if err != nil {
				t.Error(err)
			}
			got <- n
		}()
	}
	for range 8 {
		if n := <-got; n != 2 {
			t.Errorf("a node of e got %d, want 2", n)
		}
	}
	for i := range 6 {
		number(open(string(rune('f'+i))), 1)
	}
	if n, err := open("z").Number(t.Context(), 4, 10); err == nil {
		t.Errorf("all ten are taken, and z got %d", n)
	}
}

// TestSignalOnce has a second gateway do what a first one may have done before it was killed.
func TestSignalOnce(t *testing.T) {
	client, end, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	var last *Gateway
	for i, name := range []string{"1:1", "1:1", "1:2", "1:1"} {
		g, err := New(Options{Redis: client, Run: "r"})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		last = g
		forget, err := g.Space("s").SignalOnce(t.Context(), "applied", name)
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			forget() // 1:2
		}
	}
	if n, err := last.Space("s").Signal(t.Context(), "applied", 1); n != 3 || err != nil {
		t.Errorf("it stands at %d, %v; want two and this one", n, err)
	}
}
