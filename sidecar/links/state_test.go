package links

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

var (
	subnet  = netip.MustParsePrefix("10.0.0.0/16")
	subnet6 = netip.MustParsePrefix("fd67:7264:706c::/96")
)

// home is the address of a slot, as sidecar/fabric gives it.
func home(slot int) netip.Addr {
	host := uint32(slot + 1)
	return fromNumber(10<<24 + host/254<<8 + host%254 + 1)
}

func six(slot int) netip.Addr { return withNumber(subnet6.Addr(), toNumber(home(slot))) }

// seated seats groups one after the other: "eu:3" is three instances, "eu:3:west" three in a region.
func seated(groups ...string) Seats {
	s := Seats{Subnet: subnet, Subnet6: subnet6}
	for _, text := range groups {
		parts := append(strings.Split(text, ":"), "")
		g := pipelines.Group{Name: parts[0], Region: parts[2]}
		fmt.Sscan(parts[1], &g.Instances)
		s.Groups = append(s.Groups, g)
		for range g.Instances {
			slot := len(s.Instances)
			s.Instances = append(s.Instances, Instance{slot, g.Name, home(slot), six(slot)})
		}
	}
	return s
}

func ptr[T any](v T) *T { return &v }

func latency(ms int) pipelines.Shape {
	return pipelines.Shape{Latency: ptr(pipelines.Duration(ms) * pipelines.Duration(time.Millisecond))}
}

func made(t testing.TB, seats Seats, layers Layers) *State {
	t.Helper()
	s, err := New(seats, layers)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// route is what the routes of a slot say.
func route(s *State, slot int, to netip.Addr) Path {
	best, path := -1, Path{}
	for _, r := range s.Routes(slot) {
		if r.To.Contains(to) && r.To.Bits() > best {
			best, path = r.To.Bits(), r.Path
		}
	}
	return path
}

// expected works out a path the plain way: every layer, every row, one after the other.
func expected(seats Seats, l Layers, slot int, to netip.Addr) Path {
	var from, dest *Instance
	for i := range seats.Instances {
		if n := &seats.Instances[i]; n.Slot == slot {
			from = n
		}
		if n := &seats.Instances[i]; n.Data == to || n.Data6 == to {
			dest = n
		}
	}
	region := map[string]string{}
	for _, g := range seats.Groups {
		region[g.Name] = g.Region
	}
	network := func(p *Path, n pipelines.Network, prefix string) {
		p.lay(row{Shape{Shape: n.Default}, prefix + "default"})
		if d, ok := n.Matrix[region[from.Group]][region[dest.Group]]; ok {
			p.Latency = time.Duration(d)
		}
		for i, link := range n.Links {
			if link.From == from.Group && link.To == dest.Group {
				p.lay(row{Shape{Shape: link.Shape}, fmt.Sprintf("%slink %d", prefix, i+1)})
			}
		}
	}
	var p Path
	network(&p, l.Stage, "")
	if plan, ok := l.Plans[slot]; ok {
		if plan.Default != (Shape{}) {
			p.lay(row{plan.Default, "plan default"})
		}
		best, bits := -1, -1
		for i, r := range plan.Rules {
			n := -1
			if r.To.Contains(to) {
				n = r.To.Bits()
			} else if to.Is6() && r.To.Addr().Is4() && r.To.Contains(dest.Data) {
				n = r.To.Bits() + 96
			}
			if n >= 0 && n >= bits {
				best, bits = i, n
			}
		}
		if best >= 0 {
			r := plan.Rules[best]
			if r.Shape.Policy == "" {
				r.Shape.Policy = "accept"
			}
			p.lay(row{r.Shape, "plan " + r.To.String()})
		}
	}
	for _, e := range l.Events {
		network(&p, e.Network, "event "+e.Name+" ")
	}
	return p.settled()
}

func TestRandomStatesAgreeWithThePlainWay(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			seats, layers := random(r)
			s := made(t, seats, layers)
			for _, from := range seats.Instances {
				if layers.Plans[from.Slot].Rules == nil && r.IntN(10) > 0 {
					continue
				}
				for _, to := range seats.Instances {
					for _, address := range []netip.Addr{to.Data, to.Data6} {
						want := expected(seats, layers, from.Slot, address)
						if got := s.Path(from.Slot, address); got != want {
							t.Fatalf("from %d to %s\n got %+v\nwant %+v", from.Slot, address, got, want)
						}
						if got := route(s, from.Slot, address); got != want {
							t.Fatalf("the route from %d to %s\n got %+v\nwant %+v", from.Slot, address, got, want)
						}
						if owner, ok := s.Slot(address); !ok || owner != to.Slot {
							t.Fatalf("%s is said to be of %d, not of %d", address, owner, to.Slot)
						}
					}
				}
			}
		})
	}
}

func random(r *rand.Rand) (Seats, Layers) {
	var groups []string
	names := []string{"a", "b", "c", "d", "e"}[:1+r.IntN(5)]
	for _, n := range names {
		groups = append(groups, fmt.Sprintf("%s:%d:%s", n, 1+r.IntN(60), []string{"", "x", "y", "z"}[r.IntN(4)]))
	}
	seats := seated(groups...)
	if r.IntN(2) == 0 { // some moved
		for i := range seats.Instances {
			if r.IntN(10) == 0 {
				seats.Instances[i].Data = fromNumber(10<<24 + 9<<16>>8 + uint32(i)*7)
			}
		}
	}
	layers := Layers{Stage: randomNetwork(r, names), Plans: map[int]Plan{}}
	for slot := range seats.Instances {
		if r.IntN(20) > 0 {
			continue
		}
		plan := Plan{}
		if r.IntN(2) == 0 {
			plan.Default = Shape{Shape: randomShape(r)}
		}
		for range r.IntN(6) {
			a, bits := seats.Instances[r.IntN(len(seats.Instances))].Data, 12+r.IntN(21)
			if r.IntN(4) == 0 {
				a, bits = six(r.IntN(len(seats.Instances))), 90+r.IntN(39)
			}
			plan.Rules = append(plan.Rules, Rule{netip.PrefixFrom(a, bits), Shape{Shape: randomShape(r)}})
		}
		layers.Plans[slot] = plan
	}
	for i := range r.IntN(3) {
		layers.Events = append(layers.Events, Event{Name: fmt.Sprint("e", i), Network: randomNetwork(r, names)})
	}
	return seats, layers
}

func randomNetwork(r *rand.Rand, names []string) pipelines.Network {
	n := pipelines.Network{Default: randomShape(r)}
	for range r.IntN(6) {
		n.Links = append(n.Links, pipelines.Link{From: names[r.IntN(len(names))], To: names[r.IntN(len(names))], Shape: randomShape(r)})
	}
	if r.IntN(2) == 0 {
		n.Matrix = map[string]map[string]pipelines.Duration{
			"x": {"x": 1e6, "y": 20e6}, "y": {"x": 21e6, "z": 70e6},
		}
	}
	return n
}

func randomShape(r *rand.Rand) pipelines.Shape {
	var s pipelines.Shape
	if r.IntN(2) == 0 {
		s.Latency = ptr(pipelines.Duration(r.IntN(3)) * 1e6)
	}
	if r.IntN(3) == 0 {
		s.Jitter, s.Distribution = ptr(pipelines.Duration(r.IntN(2))*1e6), []string{"", "uniform"}[r.IntN(2)]
	}
	if r.IntN(3) == 0 {
		s.Loss, s.LossCorr = ptr(pipelines.Share(r.IntN(2))/10), ptr(pipelines.Share(0.25))
	}
	if r.IntN(3) == 0 {
		s.Bandwidth, s.Queue = ptr(pipelines.Bandwidth(r.IntN(3))*1e6), ptr(int64(r.IntN(2))*50)
	}
	s.Policy = []string{"", "", "accept", "reject", "drop"}[r.IntN(5)]
	return s
}
