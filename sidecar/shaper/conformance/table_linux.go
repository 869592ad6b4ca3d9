package conformance

import (
	"flag"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/prober"
	"github.com/groundplan/groundplan/sidecar/shaper"
)

// slack is by how much a packet may be late here, because others are computing. No lower bound depends on it.
var slack = flag.Duration("slack", 15*time.Millisecond, "by how much packets may be late")

// Make makes what is to be tested, for a fabric with its instances. It is closed when the test ends.
type Make func(t *testing.T, f *fabric.Fabric) shaper.Shaper

// Ground is where instances are: a fabric, or several.
type Ground interface {
	Subnet() netip.Prefix
	Subnet6() netip.Prefix
	Addresses(slot int) (control, data netip.Addr)
	Address6(slot int) netip.Addr
	// Inside does work on a thread in the network namespace of an instance.
	Inside(slot int, work func() error) error
}

// row is a pair of groups, a and b, with instances of their own, and what is asked of packets from a to b one step after
// the other. All rows take a step together: a state holds what all of them ask.
type row struct {
	name string
	// more is how many instances b has beside its first.
	more int
	six  bool // measured over IPv6
	// alone has a row measured when no other one is: it takes all that the machine can do.
	alone bool
	steps []step
}

type step struct {
	shape pipelines.Shape // from a to b
	back  pipelines.Shape // from b to a
	// plan is what the plan of a's instance asks.
	plan func(s *stand) links.Plan
	// check measures. What it returns is what is wrong.
	check func(s *stand) error
}

// stand is where a row is measured.
type stand struct {
	*testing.T
	table *table
	row   *row
	a     links.Instance
	b     []links.Instance
}

// table is the whole of it while it runs.
type table struct {
	ground Ground
	shaper shaper.Shaper
	seats  links.Seats
	stands []*stand
	brief  bool // fewer packets
}

// Run runs the table. A brief one sends fewer packets.
func Run(t *testing.T, create Make, brief bool) {
	RunOn(t, func(t *testing.T, seats links.Seats) (Ground, shaper.Shaper) {
		f := Placed(t, len(seats.Instances))
		return f, create(t, f)
	}, brief)
}

// RunOn runs the table on a ground of the caller's, which has to have that many instances in slots from 0 on. What it
// makes to be tested is closed when the test ends.
func RunOn(t *testing.T, create func(t *testing.T, seats links.Seats) (Ground, shaper.Shaper), brief bool) {
	x := &table{brief: brief}
	x.seat(rows())
	x.ground, x.shaper = create(t, x.seats)
	x.address()
	t.Cleanup(func() {
		if err := x.shaper.Close(); err != nil {
			t.Errorf("closing %s: %v", x.shaper.Name(), err)
		}
	})
	most := 0
	for _, s := range x.stands {
		most = max(most, len(s.row.steps))
	}
	for n := range most {
		x.apply(t, n)
		t.Run(fmt.Sprint("step", n+1), func(t *testing.T) { x.step(t, n) })
	}
	h := x.shaper.Health()
	t.Logf("%s: %+v", x.shaper.Name(), h)
	if h.Packets == 0 {
		t.Error("it has counted no packets")
	}
}

// seat gives every row its groups and slots.
func (x *table) seat(rows []row) {
	for i := range rows {
		r := &rows[i]
		s := &stand{table: x, row: r, b: make([]links.Instance, 1+r.more)}
		x.stands = append(x.stands, s)
		x.seats.Groups = append(x.seats.Groups,
			pipelines.Group{Name: s.group("a"), Instances: 1}, pipelines.Group{Name: s.group("b"), Instances: len(s.b)})
		s.a = x.next(s.group("a"))
		for j := range s.b {
			s.b[j] = x.next(s.group("b"))
		}
	}
}

func (x *table) next(group string) links.Instance {
	i := links.Instance{Slot: len(x.seats.Instances), Group: group}
	x.seats.Instances = append(x.seats.Instances, i)
	return i
}

func (s *stand) group(end string) string { return s.row.name + " " + end }

// address gives all seats the addresses that the fabric has for them.
func (x *table) address() {
	x.seats.Subnet, x.seats.Subnet6 = x.ground.Subnet(), x.ground.Subnet6()
	at := func(i *links.Instance) {
		_, i.Data = x.ground.Addresses(i.Slot)
		i.Data6 = x.ground.Address6(i.Slot)
	}
	for i := range x.seats.Instances {
		at(&x.seats.Instances[i])
	}
	for _, s := range x.stands {
		at(&s.a)
		for j := range s.b {
			at(&s.b[j])
		}
	}
}

// layers are what all rows ask in a step.
func (x *table) layers(n int) links.Layers {
	l := links.Layers{Plans: map[int]links.Plan{}}
	for _, s := range x.stands {
		if n >= len(s.row.steps) {
			continue
		}
		step := s.row.steps[n]
		l.Stage.Links = append(l.Stage.Links,
			pipelines.Link{From: s.group("a"), To: s.group("b"), Shape: step.shape},
			pipelines.Link{From: s.group("b"), To: s.group("a"), Shape: step.back})
		if step.plan != nil {
			l.Plans[s.a.Slot] = step.plan(s)
		}
	}
	return l
}

func (x *table) apply(t testing.TB, n int) {
	t.Helper()
	x.put(t, x.layers(n))
}

func (x *table) put(t testing.TB, l links.Layers) {
	t.Helper()
	state, err := links.New(x.seats, l)
	if err != nil {
		t.Fatal(err)
	}
	// The second time there is nothing to do, and nothing must come of it.
	for range 2 {
		if err := x.shaper.Apply(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	}
}

// tries is how often a row is measured by itself before it has failed.
const tries = 3

// step measures every row: most of them side by side, those that need the machine for themselves after them, and with
// those what was wrong in company.
func (x *table) step(t *testing.T, n int) {
	var mu sync.Mutex
	alone := map[*stand]bool{}
	t.Run("together", func(t *testing.T) {
		for _, s := range x.stands {
			if n >= len(s.row.steps) {
				continue
			}
			if s.row.alone {
				alone[s] = true
				continue
			}
			t.Run(s.row.name, func(t *testing.T) {
				t.Parallel()
				if err := s.check(t, n); err != nil {
					t.Logf("to be measured again: %v", err)
					mu.Lock()
					defer mu.Unlock()
					alone[s] = true
				}
			})
		}
	})
	for _, s := range x.stands {
		if alone[s] {
			t.Run(s.row.name+" alone", func(t *testing.T) { s.insist(t, n) })
		}
	}
}

// insist measures a row until it is right, a few times.
func (s *stand) insist(t *testing.T, n int) {
	for try := range tries {
		err := s.check(t, n)
		switch {
		case err == nil:
			return
		case try == tries-1:
			t.Error(err)
		default:
			t.Logf("to be measured again: %v", err)
		}
	}
}

func (s *stand) check(t *testing.T, n int) error {
	here := *s
	here.T = t
	return s.row.steps[n].check(&here)
}

// packets is how many to send of a number that is asked for.
func (s *stand) packets(n int) int {
	if s.table.brief {
		return max(n/4, min(n, 100))
	}
	return n
}

// address is that of an instance by which the row is measured.
func (s *stand) address(i links.Instance) netip.Addr {
	if s.row.six {
		return i.Data6
	}
	return i.Data
}

// inside is the way into an instance.
func (s *stand) inside(i links.Instance) func(func() error) error {
	return func(work func() error) error { return s.table.ground.Inside(i.Slot, work) }
}

// endpoint opens one at an instance until the test ends.
func (s *stand) endpoint(i links.Instance) *prober.Endpoint {
	e, err := prober.Open(s.inside(i), s.address(i))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = e.Close() })
	return e
}
