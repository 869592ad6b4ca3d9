package links

import (
	"reflect"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

func TestRoutersAreMadeAsAsked(t *testing.T) {
	s := made(t, seated("home:2", "phones:2", "open:1"), Layers{Stage: pipelines.Network{NAT: []pipelines.NAT{
		{Groups: []string{"home"}, Type: "restricted", Timeout: pipelines.Duration(30 * time.Second)},
		{Groups: []string{"phones"}, Type: "symmetric", PerInstance: true},
	}}})
	end := last(subnet)
	want := []Router{
		{External: fromNumber(end - 1), Type: "restricted", Timeout: 30 * time.Second, Slots: []int{0, 1}},
		{External: fromNumber(end - 2), Type: "symmetric", Slots: []int{2}},
		{External: fromNumber(end - 3), Type: "symmetric", Slots: []int{3}},
	}
	if got := s.Routers(); !reflect.DeepEqual(got, want) {
		t.Errorf("routers %v, want %v", got, want)
	}
	for slot, private := range map[int]bool{0: true, 1: true, 3: true, 4: false} {
		if got := s.Path(2, home(slot)).Private; got != private {
			t.Errorf("to %d: private %v", slot, got)
		}
	}
	if s.Path(0, home(1)) != (Path{}) {
		t.Error("two behind one router are not next to each other")
	}
}
