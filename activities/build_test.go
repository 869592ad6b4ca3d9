package activities

import (
	"context"
	"testing"

	"github.com/groundplan/groundplan/activities/artifacts"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// otherMachines is a ground whose machines are not like this one.
type otherMachines struct {
	*fakeGround
	architecture, why string
	packed            chan stage.Artifact
}

func (g *otherMachines) Architecture(context.Context, stage.Run) (string, string, error) {
	return g.architecture, g.why, nil
}

func (g *otherMachines) Pack(_ context.Context, artifact stage.Artifact) (stage.Artifact, string, error) {
	g.packed <- artifact
	return artifact, "", nil
}

// orders are what a builder was asked for.
type orders chan artifacts.Order

func (o orders) Build(_ context.Context, order artifacts.Order) (stage.Artifact, error) {
	o <- order
	return stage.Artifact{Name: order.Name}, nil
}

// TestBuildForOthers builds and packs for the machines of the ground, and nothing where these are of several kinds.
func TestBuildForOthers(t *testing.T) {
	b := newBench(t)
	ground := &otherMachines{fakeGround: b.ground, architecture: "riscv64", packed: make(chan stage.Artifact, 1)}
	builder := make(orders, 1)
	b.activities.Grounds["local"], b.activities.Builder = ground, builder
	in := input(pipelines.Stage{Kind: pipelines.KindBuild, Build: map[string]pipelines.Source{"a": {}}})
	result := b.must("build", in)
	if got := result.Artifacts["a"]; result.Verdict != stage.Passed || got.Architecture != "riscv64" || (<-ground.packed).Architecture != "riscv64" {
		t.Errorf("%+v", result)
	}
	if got := (<-builder).Architecture; got != "riscv64" {
		t.Errorf("it was built for %q", got)
	}
	ground.why = "the nodes are of several kinds"
	if result := b.must("build", in); result.Verdict != stage.Invalid || result.Reason != ground.why {
		t.Errorf("%+v", result)
	}
}
