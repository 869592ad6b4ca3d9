package userspace

import (
	"net/netip"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
)

// seats are two instances, of the groups a and b.
func seats() links.Seats {
	return links.Seats{
		Subnet: netip.MustParsePrefix("10.0.0.0/16"), Subnet6: subnet6,
		Groups: []pipelines.Group{{Name: "a", Instances: 1}, {Name: "b", Instances: 1}},
		Instances: []links.Instance{
			{Slot: 0, Group: "a", Data: ipv4(0x0a000002), Data6: ipv6([12]byte(subnet6.Addr().AsSlice()), 0x0a000002)},
			{Slot: 1, Group: "b", Data: ipv4(0x0a000003), Data6: ipv6([12]byte(subnet6.Addr().AsSlice()), 0x0a000003)},
		},
	}
}

func TestPatienceIsHalfOfTheQuickestPath(t *testing.T) {
	millisecond, ten := pipelines.Duration(time.Millisecond), pipelines.Duration(10*time.Millisecond)
	share := pipelines.Share(0.1)
	rate := pipelines.Bandwidth(1e6)
	for _, row := range []struct {
		stage pipelines.Network
		want  time.Duration
	}{
		{pipelines.Network{}, time.Millisecond}, // nothing comes by
		{pipelines.Network{Default: pipelines.Shape{Latency: &ten}}, time.Millisecond},
		{pipelines.Network{Default: pipelines.Shape{Latency: &millisecond}}, 500 * time.Microsecond},
		{pipelines.Network{Default: pipelines.Shape{Latency: &ten, Jitter: &ten}}, 0},
		{pipelines.Network{Default: pipelines.Shape{Latency: &ten, Reorder: &share}}, 0},
		{pipelines.Network{Default: pipelines.Shape{Loss: &share}}, 0},
		{pipelines.Network{Default: pipelines.Shape{Bandwidth: &rate}}, 0},
		{pipelines.Network{
			Default: pipelines.Shape{Latency: &ten},
			Links:   []pipelines.Link{{From: "b", To: "a", Shape: pipelines.Shape{Latency: &millisecond}}},
		}, 500 * time.Microsecond},
	} {
		s, err := links.New(seats(), links.Layers{Stage: row.stage})
		if err != nil {
			t.Fatal(err)
		}
		if got := patience(s); got != row.want {
			t.Errorf("%+v: %v, want %v", row.stage, got, row.want)
		}
	}
}

// An instance that moves keeps its place in the state, and its old address is nobody's.
func TestAddressesMove(t *testing.T) {
	of := func(s links.Seats) *links.State {
		latency := pipelines.Duration(time.Second)
		state, err := links.New(s, links.Layers{Stage: pipelines.Network{Default: pipelines.Shape{Latency: &latency}}})
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	d := newDesk(t, of(seats()))
	d.engine.arrive(frame(1, 0, 1, 100), 0)
	moved := seats()
	moved.Instances[1].Data = ipv4(0x0a000007)
	d.engine.replace(of(moved), subnet6, 1)
	d.engine.arrive(frame(2, 0, 1, 100), 2)
	d.engine.arrive(frame(3, 0, 5, 100), 3)
	d.run(time.Minute)
	want := map[uint32]time.Duration{1: time.Second, 2: 2, 3: time.Second + 3}
	for _, o := range d.out {
		if o.at != want[o.number] {
			t.Errorf("packet %d left at %v, want %v", o.number, o.at, want[o.number])
		}
	}
	if len(d.out) != len(want) {
		t.Errorf("%d left", len(d.out))
	}
}
