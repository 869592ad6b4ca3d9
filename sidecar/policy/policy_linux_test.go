package policy

import (
	"testing"

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
