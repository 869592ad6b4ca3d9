package sidecar

import (
	"context"
	"errors"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/network"
)

// shaping is the data network as the keeper sees it.
type shaping struct{ *network.Network }

func (s shaping) Seat(ctx context.Context, groups []pipelines.Group) error {
	return refusal(s.Network.Seat(ctx, groups))
}

func (s shaping) SetStage(ctx context.Context, state pipelines.Network) error {
	return refusal(s.Network.SetStage(ctx, state))
}

func (s shaping) Begin(ctx context.Context, event links.Event) error {
	return refusal(s.Network.Begin(ctx, event))
}

func (s shaping) Configure(ctx context.Context, slot int, c keeper.Config) error {
	return refusal(s.Network.Configure(ctx, slot, network.Config(c)))
}

func (s shaping) Prove(ctx context.Context, verify pipelines.Verify, seed uint64, report func(done, total int)) (control.Proof, error) {
	proof, err := s.Network.Prove(ctx, verify, seed, report)
	return proof, refusal(err)
}

// refusal says in the keeper's words what can never be done.
func refusal(err error) error {
	if refused := new(network.Refusal); errors.As(err, &refused) {
		return &keeper.Refusal{Sentence: refused.Sentence}
	}
	return err
}
