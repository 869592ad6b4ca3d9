package policy

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
)

func link(from, to, policy string) pipelines.Link {
	return pipelines.Link{From: from, To: to, Shape: pipelines.Shape{Policy: policy}}
}

func stage(rows ...pipelines.Link) links.Layers {
	return links.Layers{Stage: pipelines.Network{Links: rows}}
}

func TestPoliciesBetweenGroups(t *testing.T) {
	inSidecar(t, Options{}, true, []string{"a:2", "b:2", "c:1"}, func(t *testing.T, r *rig) {
		for slot := range 5 {
			r.serve(t, slot)
		}
		r.wantOpen(t, 0, 2)
		r.apply(t, stage(link("a", "b", "reject"), link("c", "a", "drop")))
		r.wantRefused(t, 0, 2)
		r.wantRefused(t, 1, 3)
		r.wantSilent(t, 2, 0) // what comes is refused its answer
		r.wantSilent(t, 4, 1)
		r.wantOpen(t, 0, 1)
		r.wantOpen(t, 2, 4)
		// Replaced whole, not added to.
		r.apply(t, stage(link("a", "c", "drop")))
		r.wantOpen(t, 0, 2)
		r.wantSilent(t, 0, 4)
		r.apply(t, links.Layers{})
		r.wantOpen(t, 0, 4)
		r.wantOpen(t, 4, 1)
	})
}

func TestAStateIsPutThereFromNothingAfterAnError(t *testing.T) {
	inSidecar(t, Options{}, true, []string{"a:1", "b:1"}, func(t *testing.T, r *rig) {
		r.serve(t, 1)
		r.apply(t, stage(link("a", "b", "reject")))
		var b batch
		b.step()
		b.deleteTable()
		if err := r.table.socket.send(&b); err != nil {
			t.Fatal(err)
		}
		state, err := links.New(r.seats, stage(link("a", "b", "drop")))
		if err != nil {
			t.Fatal(err)
		}
		err = r.table.Apply(t.Context(), state)
		if err == nil || !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "creating the set to4-") {
			t.Errorf("the table is gone, and Apply says %v", err)
		}
		r.wantOpen(t, 0, 1)
		if err := r.table.Apply(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		r.wantSilent(t, 0, 1)
		// Also when only what is in mind is wrong.
		r.table.broken = true
		r.apply(t, stage(link("a", "b", "reject")))
		r.wantRefused(t, 0, 1)
	})
}

func TestClosedOrCancelled(t *testing.T) {
	inSidecar(t, Options{}, true, []string{"a:1", "b:1"}, func(t *testing.T, r *rig) {
		r.serve(t, 1)
		state, err := links.New(r.seats, stage(link("a", "b", "drop")))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.table.Apply(ctx, state); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled, and Apply says %v", err)
		}
		r.wantOpen(t, 0, 1)
		r.apply(t, stage(link("a", "b", "drop")))
		for range 2 {
			if err := r.table.Close(); err != nil {
				t.Error(err)
			}
		}
		r.wantOpen(t, 0, 1)
		if err := r.table.Apply(t.Context(), state); err == nil {
			t.Error("Apply works on a closed table")
		}
	})
}
