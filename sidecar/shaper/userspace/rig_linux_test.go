package userspace

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
	"github.com/groundplan/groundplan/sidecar/links"
)

func TestMain(m *testing.M) { launchtest.Main(m, nil) }

// rig is a fabric with a shaper, whose every packet between instances takes the way through it.
type rig struct {
	fabric *fabric.Fabric
	shaper *Shaper
	seats  links.Seats
}

// inRig has work done in a sidecar, once per kind of user that can start one here, with that many instances: all of one
// group, called all.
func inRig(t *testing.T, instances int, work func(t *testing.T, r *rig)) {
	t.Helper()
	launchtest.InSidecar(t, func(t *testing.T) {
		t.Helper()
		work(t, newRig(t, instances, Options{}))
	})
}

func newRig(t testing.TB, instances int, o Options) *rig {
	t.Helper()
	f, err := fabric.New(fabric.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{fabric: f, seats: links.Seats{Subnet: f.Subnet(), Subnet6: f.Subnet6(), Groups: []pipelines.Group{{Name: "all", Instances: instances}}}}
	specs := make([]fabric.Spec, instances)
	for i := range specs {
		specs[i] = fabric.Spec{Slot: i, Hostname: fmt.Sprint("i", i)}
		_, data := f.Addresses(i)
		r.seats.Instances = append(r.seats.Instances, links.Instance{Slot: i, Group: "all", Data: data, Data6: f.Address6(i)})
	}
	for i, err := range f.Add(t.Context(), specs) {
		if err != nil {
			t.Fatalf("slot %d: %v", i, err)
		}
	}
	o.Shaper, o.ShaperEnd, o.Router, o.RouterEnd = f.InShaper, f.ShaperEndIndex(), f.InRouter, f.ShaperIndex()
	if r.shaper, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.shaper.Close(); err != nil {
			t.Error(err)
		}
	})
	r.markAll(t)
	return r
}

// markAll leads every packet that comes from an instance to the shaper.
func (r *rig) markAll(t testing.TB) {
	t.Helper()
	err := r.fabric.InRouter(func() error {
		c := &nftables.Conn{}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "rig"})
		chain := c.AddChain(&nftables.Chain{
			Name: "mark", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, uint32(r.fabric.ShaperIndex()))},
			&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, fabric.ShaperMark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		}})
		return c.Flush()
	})
	if err != nil {
		t.Skipf("no nftables: %v", err)
	}
}

// ask puts a network stage in force.
func (r *rig) ask(t testing.TB, n pipelines.Network) {
	t.Helper()
	state, err := links.New(r.seats, links.Layers{Stage: n})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.shaper.Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
}

// everywhere is a stage with one shape for all.
func everywhere(s pipelines.Shape) pipelines.Network { return pipelines.Network{Default: s} }

// inside does work in the network namespace of a slot, for the prober.
func (r *rig) inside(slot int) func(func() error) error {
	return func(work func() error) error { return r.fabric.Inside(slot, work) }
}
