package links

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

func bandwidth(mbit int) pipelines.Shape {
	return pipelines.Shape{Bandwidth: ptr(pipelines.Bandwidth(mbit) * 1e6)}
}

func between(from, to string, s pipelines.Shape) pipelines.Link {
	return pipelines.Link{From: from, To: to, Shape: s}
}

func TestBandwidthIsSharedByTheRowThatSetIt(t *testing.T) {
	seats := seated("a:2", "b:2", "c:2", "d:2")
	row := func(to string, n int, s pipelines.Shape) pipelines.Link {
		return pipelines.Link{From: "a", To: to, Shape: s, Row: n}
	}
	s := made(t, seats, Layers{
		Stage: pipelines.Network{
			Default: bandwidth(100),
			Links:   []pipelines.Link{row("b", 1, bandwidth(10)), row("c", 1, bandwidth(10)), row("c", 2, latency(5))},
		},
		Plans: map[int]Plan{1: {Default: Shape{Shape: bandwidth(7)}, Rules: []Rule{{netip.PrefixFrom(home(4), 32), Shape{Shape: bandwidth(3)}}}}},
		Events: []Event{{Name: "jam", Network: pipelines.Network{Links: []pipelines.Link{between("a", "d", bandwidth(1))}}},
			{Name: "free", Network: pipelines.Network{Links: []pipelines.Link{between("b", "a", bandwidth(0))}}}},
	})
	for _, c := range []struct {
		from, to  int
		bucket    string
		bandwidth int64
	}{
		{0, 2, "row 1", 10e6}, {0, 4, "row 1", 10e6}, {0, 1, "default", 100e6},
		{0, 6, "event jam link 1", 1e6}, {2, 0, "", 0},
		{1, 2, "plan default", 7e6}, {1, 4, "plan 10.0.0.6/32", 3e6}, {1, 6, "event jam link 1", 1e6},
	} {
		if p := s.Path(c.from, home(c.to)); p.Bucket != c.bucket || p.Bandwidth != c.bandwidth {
			t.Errorf("from %d to %d: bucket %q with %d", c.from, c.to, p.Bucket, p.Bandwidth)
		}
	}
}

func TestRules(t *testing.T) {
	seats := seated("a:1", "b:600")
	seats.Instances[500].Data = netip.MustParseAddr("10.0.200.1") // its plan has moved it
	s := made(t, seats, Layers{
		Stage: pipelines.Network{Default: latency(1)},
		Plans: map[int]Plan{0: {
			Default: Shape{Shape: pipelines.Shape{Policy: "drop"}},
			Rules: []Rule{
				{netip.MustParsePrefix("10.0.1.0/24"), Shape{Shape: latency(2)}},
				{netip.MustParsePrefix("10.0.1.0/24"), Shape{Shape: latency(3)}},
				{netip.MustParsePrefix("10.0.0.0/15"), Shape{Shape: pipelines.Shape{Policy: "reject"}}},
				{netip.MustParsePrefix("10.0.200.0/24"), Shape{Shape: latency(4)}},
				{netip.MustParsePrefix("fd67:7264:706c::a00:201/128"), Shape{Shape: latency(5)}},
			},
		}},
	})
	for _, c := range []struct {
		to     string
		ms     int
		policy Policy
	}{
		{"10.0.0.9", 1, Reject}, {"10.0.1.9", 3, Accept}, {"fd67:7264:706c::a00:109", 3, Accept},
		{"10.0.200.1", 4, Accept},
		{home(500).String(), 0, Accept}, // nobody has it now
		{six(500).String(), 4, Accept},  // follows its instance
		{"fd67:7264:706c::a00:201", 5, Accept}, {"10.0.2.1", 1, Reject},
	} {
		p := s.Path(0, netip.MustParseAddr(c.to))
		if p.Latency != time.Duration(c.ms)*time.Millisecond || p.Policy != c.policy {
			t.Errorf("to %s: latency %s, policy %d", c.to, p.Latency, p.Policy)
		}
	}
	if p := s.Path(1, home(0)); p.Policy != Accept || p.Latency != time.Millisecond {
		t.Errorf("what a plan asks for counts the other way too: %+v", p)
	}
}

func TestTranslation(t *testing.T) {
	s := made(t, seated("open:1", "home:2", "office:1"), Layers{Stage: pipelines.Network{
		Default: latency(5),
		NAT:     []pipelines.NAT{{Groups: []string{"home"}, Type: "full-cone"}, {Groups: []string{"office"}, Type: "symmetric"}},
	}})
	external := s.Routers()[0].External
	if _, ok := s.Slot(external); ok {
		t.Error("an instance is said to have the address of a NAT")
	}
	for _, c := range []struct {
		what string
		from int
		to   netip.Addr
		want Path
	}{
		{"out", 1, home(0), Path{Latency: 5e6, Translated: true}},
		{"in past it", 0, home(1), Path{Latency: 5e6, Private: true, Translated: true}},
		{"in by its address", 0, external, Path{Translated: true}},
		{"hair-pinning", 1, external, Path{Translated: true}},
		{"inside", 1, home(2), Path{Latency: 5e6}},
		{"from one into another", 1, home(3), Path{Latency: 5e6, Private: true, Translated: true}},
		{"out over IPv6", 1, six(0), Path{Latency: 5e6, Policy: Reject}},
		{"in over IPv6", 0, six(1), Path{Latency: 5e6, Private: true}},
		{"inside over IPv6", 1, six(2), Path{Latency: 5e6}},
	} {
		if got := s.Path(c.from, c.to); got != c.want {
			t.Errorf("%s: %+v", c.what, got)
		}
		if got := route(s, c.from, c.to); got != c.want {
			t.Errorf("the route %s: %+v", c.what, got)
		}
	}
}

func TestAnEventMovesAGroupToAnotherNAT(t *testing.T) {
	s := made(t, seated("a:2", "b:1"), Layers{
		Stage:  pipelines.Network{NAT: []pipelines.NAT{{Groups: []string{"a", "b"}, Type: "restricted"}}},
		Events: []Event{{Name: "e", Network: pipelines.Network{NAT: []pipelines.NAT{{Groups: []string{"b"}, Type: "symmetric"}}}}},
	})
	routers := s.Routers()
	if len(routers) != 2 || !slices.Equal(routers[0].Slots, []int{0, 1}) || !slices.Equal(routers[1].Slots, []int{2}) || routers[1].Type != "symmetric" {
		t.Errorf("routers %v", routers)
	}
	if !s.Path(0, home(2)).Private {
		t.Error("the group is still behind the first one")
	}
}

func TestInboundOfEventsIsLaidOverThatOfTheStage(t *testing.T) {
	block := func(policy string, groups ...string) pipelines.Network {
		return pipelines.Network{Inbound: []pipelines.Block{{Groups: groups, Policy: policy}}}
	}
	s := made(t, seated("a:1", "b:2", "c:1"), Layers{Stage: block("reject", "a", "b"),
		Events: []Event{{Name: "1", Network: block("drop", "c")}, {Name: "2", Network: block("accept", "a")}}})
	if want := (Inbound{1: Reject, 2: Reject, 3: Drop}); !maps.Equal(s.Inbound(), want) {
		t.Errorf("inbound %v, want %v", s.Inbound(), want)
	}
}

func TestRoutesAreFew(t *testing.T) {
	seats, layers := fourRegions(1000)
	s := made(t, seats, layers)
	for _, slot := range []int{0, 250, 500, 999} {
		if n := len(s.Routes(slot)); n > 36 { // 18 of each family
			t.Errorf("slot %d has %d routes: %v", slot, n, s.Routes(slot))
		}
	}
	if &s.Routes(0)[0] != &s.Routes(249)[0] || &s.Routes(0)[0] == &s.Routes(250)[0] {
		t.Error("routes are not shared by those who are asked the same, and only them")
	}
	if s.Routes(1000) != nil || s.Routes(-1) != nil || s.Path(1000, home(0)) != (Path{}) {
		t.Error("a slot that nobody has is asked something")
	}
	if made(t, seats, Layers{}).Routes(0) != nil && len(made(t, seats, Layers{}).Routes(0)) > 0 {
		t.Error("there are routes though nothing is asked")
	}
}

func TestWhatCannotBe(t *testing.T) {
	seats := func(change func(*Seats)) Seats {
		s := seated("a:2", "b:1")
		change(&s)
		return s
	}
	keep := seats(func(*Seats) {})
	stage := func(n pipelines.Network) Layers { return Layers{Stage: n} }
	plan := func(p Plan) Layers { return Layers{Plans: map[int]Plan{2: p}} }
	nat := func(groups ...string) []pipelines.NAT { return []pipelines.NAT{{Groups: groups, Type: "symmetric"}} }
	for _, c := range []struct {
		seats  Seats
		layers Layers
		want   string
	}{
		{keep, stage(pipelines.Network{Links: []pipelines.Link{between("a", "x", latency(1))}}), "to the group `x`"},
		{keep, stage(pipelines.Network{Default: latency(-1)}), "the latency -1ms is less than nothing"},
		{keep, stage(pipelines.Network{NAT: nat("x")}), "a NAT has the group `x`"},
		{keep, stage(pipelines.Network{NAT: append(nat("a"), nat("a")...)}), "the group `a` is behind two NATs"},
		{keep, stage(pipelines.Network{NAT: nat("a"), Inbound: []pipelines.Block{{Groups: []string{"a"}, Policy: "drop"}}}), "it is behind a NAT"},
		{keep, stage(pipelines.Network{Inbound: []pipelines.Block{{Groups: []string{"x"}, Policy: "drop"}}}), "`inbound` has the group `x`"},
		{keep, stage(pipelines.Network{Inbound: []pipelines.Block{{Groups: []string{"a"}, Policy: "deny"}}}), "the policy `deny`"},
		{keep, plan(Plan{Default: Shape{Shape: pipelines.Shape{Loss: ptr(pipelines.Share(1.5))}}}), "slot 2 (group `b`) asks of the network can't be: the default shape: the share loss is 150 %"},
		{keep, plan(Plan{Rules: []Rule{{}}}), "a rule is for no subnet"},
		{keep, plan(Plan{Rules: []Rule{{subnet, Shape{Shape: bandwidth(-1)}}}}), "the rule for 10.0.0.0/16: the bandwidth"},
		{keep, plan(Plan{Default: Shape{Shape: pipelines.Shape{Queue: ptr(int64(-1))}}}), "the queue of -1 packets"},
		{keep, plan(Plan{Default: Shape{Shape: pipelines.Shape{Policy: "deny"}}}), "the policy `deny` is none of"},
		{keep, plan(Plan{Default: Shape{Shape: pipelines.Shape{Distribution: "zipf"}}}), "the distribution `zipf`"},
		{keep, Layers{Events: []Event{{Name: "cut", Network: pipelines.Network{Links: []pipelines.Link{between("x", "a", latency(1))}}}}}, "the event `cut`: "},
		{seats(func(s *Seats) { s.Instances[1].Data = netip.MustParseAddr("10.1.0.1") }), Layers{}, "10.1.0.1 of the instance in slot 1 is outside"},
		{seats(func(s *Seats) { s.Instances[1].Data6 = netip.MustParseAddr("fd00::1") }), Layers{}, "fd00::1 of the instance in slot 1 is outside"},
		{seats(func(s *Seats) { s.Instances[1].Data = netip.MustParseAddr("10.0.255.254") }), stage(pipelines.Network{NAT: nat("b")}), "has no room for 1 NATs: the instance in slot 1 has the address 10.0.255.254"},
		{seats(func(s *Seats) { s.Instances[1].Group = "x" }), Layers{}, "group `x`"},
		{seats(func(s *Seats) { s.Instances[1].Slot = -1 }), Layers{}, "no slot -1"},
		{seats(func(s *Seats) { s.Subnet = subnet6 }), Layers{}, "not one of IPv4"},
		{seats(func(s *Seats) { s.Subnet6 = netip.MustParsePrefix("fd00::/64") }), Layers{}, "32 bits or fewer"},
	} {
		if _, err := New(c.seats, c.layers); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want …%s…", err, c.want)
		}
	}
}

func TestOfTwoWithOneAddressTheLastToComeHasIt(t *testing.T) {
	seats := seated("a:1", "b:2")
	seats.Instances[0].Data = home(1)
	if slot, ok := made(t, seats, Layers{}).Slot(home(1)); !ok || slot != 0 {
		t.Errorf("it is said to be of %d", slot)
	}
	if _, ok := made(t, seats, Layers{}).Slot(home(0)); ok {
		t.Error("somebody has the address that was left")
	}
}

// FuzzEntries holds prefixes against the runs that they were made from, and against the number that would do.
func FuzzEntries(f *testing.F) {
	f.Add([]byte{1, 2, 3, 250, 4, 5})
	f.Fuzz(func(t *testing.T, data []byte) {
		// Each byte is an address of the sixteen bits further on, and one of four paths.
		var runs []run
		next := uint32(10 << 24)
		for i, b := range data[:min(len(data), 200)] {
			next += uint32(b)*3 + 1
			runs = extend(runs, run{next, next + uint32(i%5), int(b) % 4})
			next += uint32(i % 5)
		}
		found := entries(entry{first: 10 << 24, bits: 8}, runs)
		for _, r := range runs {
			for a := r.first; a <= r.last && a < r.first+64; a++ {
				bits, path := -1, 0
				for _, e := range found {
					if a&mask(e.bits) == e.first && e.bits > bits {
						bits, path = e.bits, e.path
					}
				}
				if path != r.path && slices.ContainsFunc(runs, func(o run) bool { return o.first <= a && a <= o.last && o.path == r.path }) {
					t.Fatalf("%d has the path %d, and should have %d", a, path, r.path)
				}
			}
		}
	})
}
