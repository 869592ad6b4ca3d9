package sidecar

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/sidecar/gateway"
)

// meetings are the rendezvous of nodes that share a Redis.
func meetings(t *testing.T, nodes ...string) []*rendezvous {
	t.Helper()
	client, end, err := gateway.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end() })
	var all []*rendezvous
	for _, node := range nodes {
		g, err := gateway.New(gateway.Options{Redis: client, Run: "r"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		r := newRendezvous(g, node)
		r.meet(nodes)
		all = append(all, r)
	}
	return all
}

func TestRendezvous(t *testing.T) {
	all := meetings(t, "c", "a", "b")
	for _, about := range []string{"first", "second"} {
		var work errgroup.Group
		for _, r := range all {
			r.begin(about)
		}
		for _, r := range all {
			work.Go(func() error {
				said, err := r.Exchange(t.Context(), "x", []byte(about+r.node))
				if got, want := fmt.Sprintf("%s", said), strings.ReplaceAll("[@c @a @b]", "@", about); got != want || err != nil {
					return fmt.Errorf("%s heard %s instead of %s: %w", r.node, got, want, err)
				}
				return nil
			})
		}
		if err := work.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestARendezvousThatFails(t *testing.T) {
	all := meetings(t, "a", "b")
	failed := make(chan error, 1)
	go func() {
		_, err := all[0].Exchange(t.Context(), "x", []byte("1"))
		failed <- err
	}()
	time.Sleep(20 * time.Millisecond)
	all[0].begin("other")
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "not asked for any more") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := all[1].Exchange(ctx, "y", []byte("1")); err == nil {
		t.Error("nobody else was there")
	}
	if _, err := all[1].Exchange(t.Context(), "y", []byte("2")); err == nil || !strings.Contains(err.Error(), "started again") {
		t.Errorf("got %v", err)
	}
	alone := &rendezvous{node: "a", about: &matter{}}
	if said, err := alone.Exchange(t.Context(), "x", []byte("1")); err != nil || len(said) != 1 {
		t.Errorf("alone: %s, %v", said, err)
	}
}
