package pipelines

import (
	"fmt"
	"testing"
)

func TestTogether(t *testing.T) {
	behind := func(groups ...string) Stage {
		return Stage{Network: &Network{NAT: []NAT{{Groups: groups}}}}
	}
	alone := behind("a", "b")
	alone.Network.NAT[0].PerInstance = true
	event := Stage{Run: &Run{Events: []Event{{Network: behind("b", "a").Network}}}}
	groups := []Group{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}
	for name, c := range map[string]struct {
		stages []Stage
		want   string
	}{
		"no routers":       {[]Stage{{Network: &Network{}}, {Run: &Run{}}}, "[]"},
		"one each":         {[]Stage{alone}, "[]"},
		"an event's":       {[]Stage{event}, "[[a b]]"},
		"two that overlap": {[]Stage{behind("d", "c"), behind("a"), behind("a", "c")}, "[[a c d]]"},
		"two apart":        {[]Stage{behind("c", "d"), behind("a", "b")}, "[[c d] [a b]]"},
	} {
		r := Resolved{Groups: groups, Stages: c.stages}
		if got := fmt.Sprint(r.Together()); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
