package sidecar

import (
	"context"
	"net/netip"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/links"
)

// unshaped stands where sidecar/network will: it can only give addresses and disconnect.
type unshaped struct{ fabric *fabric.Fabric }

func (unshaped) Seat(context.Context, []pipelines.Group) error     { return nil }
func (unshaped) SetStage(context.Context, pipelines.Network) error { return nil }
func (unshaped) Begin(context.Context, links.Event) error          { return nil }
func (unshaped) End(context.Context, string) error                 { return nil }
func (unshaped) Overload() string                                  { return "" }
func (unshaped) ResetOverload()                                    {}
func (unshaped) Prove(context.Context, pipelines.Verify, uint64, func(done, total int)) (control.Proof, error) {
	return control.Proof{}, nil
}

func (u unshaped) Restore(ctx context.Context, slots []int) error {
	for _, slot := range slots {
		_, own := u.fabric.Addresses(slot)
		c := keeper.Config{Address: netip.PrefixFrom(own, u.fabric.Subnet().Bits()), Enabled: true}
		if err := u.Configure(ctx, slot, c); err != nil {
			return err
		}
	}
	return nil
}

func (u unshaped) Configure(_ context.Context, slot int, c keeper.Config) error {
	if err := u.fabric.SetDataAddress(slot, c.Address); err != nil {
		return err
	}
	return u.fabric.SetEnabled(slot, c.Enabled)
}
