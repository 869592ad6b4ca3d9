package links

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"net/netip"
	"slices"

	"github.com/groundplan/groundplan/pipelines"
)

// compiler works out a state.
type compiler struct {
	state  *State
	number map[string]int // group → its number
	plans  map[int]Plan
	stage  layer
	events []layer
	behind behind

	paths   []Path
	numbers map[Path]int
	// cells are the paths between groups that no row is about, which are many and alike.
	cells   map[cell]int
	classes map[string]int   // group and plan → class
	alike   map[uint64][]int // hash of routes → classes
	seed    maphash.Seed
}

// cell is what tells paths apart that no row is about.
type cell struct {
	latency pipelines.Duration
	matrix  bool
	between relation
	v6      bool
}

func newCompiler(seats Seats, layers Layers) (*compiler, error) {
	c := &compiler{
		state: &State{seats: seats}, number: make(map[string]int, len(seats.Groups)), plans: layers.Plans,
		paths: []Path{{}}, numbers: map[Path]int{{}: 0}, cells: map[cell]int{},
		classes: map[string]int{}, alike: map[uint64][]int{}, seed: maphash.MakeSeed(),
	}
	if err := checkNetworks(seats); err != nil {
		return nil, err
	}
	for i, g := range seats.Groups {
		c.number[g.Name] = i
	}
	networks := []pipelines.Network{layers.Stage}
	var err error
	if c.stage, err = newLayer(layers.Stage, seats.Groups, c.number, ""); err != nil {
		return nil, err
	}
	for _, e := range layers.Events {
		networks = append(networks, e.Network)
		l, err := newLayer(e.Network, seats.Groups, c.number, "event "+e.Name+" ")
		if err != nil {
			return nil, fmt.Errorf("the event `%s`: %w", e.Name, err)
		}
		c.events = append(c.events, l)
	}
	if c.behind, err = newBehind(networks, c.number); err != nil {
		return nil, err
	}
	if c.state.routers, err = c.behind.routers(seats, c.number); err != nil {
		return nil, err
	}
	if c.state.inbound, err = c.inbound(networks); err != nil {
		return nil, err
	}
	if err := c.state.fill(c.number); err != nil {
		return nil, err
	}
	return c, c.seat()
}

func checkNetworks(seats Seats) error {
	if !seats.Subnet.IsValid() || !seats.Subnet.Addr().Is4() {
		return fmt.Errorf("the data network %s is not one of IPv4", seats.Subnet)
	}
	if seats.Subnet6.IsValid() && (!seats.Subnet6.Addr().Is6() || seats.Subnet6.Bits() < 96) {
		return fmt.Errorf("the data network %s is not one of IPv6 with 32 bits or fewer for instances", seats.Subnet6)
	}
	return nil
}

// seat makes room for the class of every slot.
func (c *compiler) seat() error {
	end := 0
	for _, i := range c.state.seats.Instances {
		if i.Slot < 0 {
			return fmt.Errorf("there is no slot %d", i.Slot)
		}
		end = max(end, i.Slot+1)
	}
	c.state.class = slices.Repeat([]int{-1}, end)
	return nil
}

// inbound lays the blocks of events over those of the stage.
func (c *compiler) inbound(networks []pipelines.Network) (Inbound, error) {
	policy := make([]Policy, len(c.number))
	for _, n := range networks {
		for _, b := range n.Inbound {
			for _, name := range b.Groups {
				g, ok := c.number[name]
				p, known := policies[b.Policy]
				switch {
				case !ok:
					return nil, fmt.Errorf("`inbound` has the group `%s`, and there is no such group", name)
				case !known:
					return nil, fmt.Errorf("`inbound` for the group `%s` has the policy `%s`, which is none of accept, reject, drop", name, b.Policy)
				}
				policy[g] = p
			}
		}
	}
	blocked := Inbound{}
	for _, i := range c.state.seats.Instances {
		g := c.number[i.Group]
		if policy[g] == Accept {
			continue
		}
		if c.behind.of[g] >= 0 {
			return nil, fmt.Errorf("`inbound` can't be set for the group `%s`: it is behind a NAT, which lets in what its type says", i.Group)
		}
		blocked[i.Slot] = policy[g]
	}
	return blocked, nil
}

// intern gives a path its number.
func (c *compiler) intern(p Path) int {
	p = p.settled()
	n, ok := c.numbers[p]
	if !ok {
		n = len(c.paths)
		c.paths = append(c.paths, p)
		c.numbers[p] = n
	}
	return n
}

// between is the path between groups when no plan asks for anything.
func (c *compiler) between(groups pair, v6 bool) int {
	if c.rows(groups) {
		return c.planned(groups, v6, nil)
	}
	key := cell{between: c.behind.between(groups), v6: v6}
	key.latency, key.matrix = c.stage.between(groups)
	n, ok := c.cells[key]
	if !ok {
		n = c.planned(groups, v6, nil)
		c.cells[key] = n
	}
	return n
}

// rows says whether some layer has a row about groups.
func (c *compiler) rows(groups pair) bool {
	return len(c.stage.rows[groups]) > 0 || slices.ContainsFunc(c.events, func(l layer) bool {
		_, ok := l.between(groups)
		return ok || len(l.rows[groups]) > 0
	})
}

// planned is the path between groups with what a plan asks for under the events.
func (c *compiler) planned(groups pair, v6 bool, plan []row) int {
	var p Path
	c.stage.lay(&p, groups)
	for _, r := range plan {
		p.lay(r)
	}
	for _, e := range c.events {
		e.lay(&p, groups)
	}
	return c.intern(c.behind.between(groups).cross(p, v6))
}

// outside is the path to a NAT's own address: what is behind it has the shape, so only a plan's policy counts.
func (c *compiler) outside(plan []row) int {
	p := Path{Translated: true}
	for _, r := range plan {
		p.lay(row{shape: Shape{Shape: pipelines.Shape{Policy: r.shape.Policy}}})
	}
	return c.intern(p)
}

// classOf finds or makes the class of an instance.
func (c *compiler) classOf(i Instance) (int, error) {
	group := c.number[i.Group]
	plan, planned := c.plans[i.Slot]
	key := plan.appendKey(binary.AppendUvarint(nil, uint64(group)))
	if n, ok := c.classes[string(key)]; ok {
		return n, nil
	}
	if planned {
		if err := plan.Check(); err != nil {
			return 0, err
		}
	}
	s := c.state
	made := class{v4: c.runs(&s.v4, group, plan, false), v6: c.runs(&s.v6, group, plan, true)}
	made.routes = slices.Concat(c.routes(s.v4.network, made.v4), c.routes(s.v6.network, made.v6))
	n := c.share(made)
	c.classes[string(key)] = n
	return n, nil
}

// share adds a class, or gives one that is asked the same.
func (c *compiler) share(made class) int {
	hash := maphash.Comparable(c.seed, len(made.routes))
	for _, r := range made.routes {
		hash = hash*31 + maphash.Comparable(c.seed, r)
	}
	s := c.state
	for _, n := range c.alike[hash] {
		if slices.Equal(s.classes[n].routes, made.routes) && slices.Equal(s.classes[n].v4, made.v4) && slices.Equal(s.classes[n].v6, made.v6) {
			return n
		}
	}
	s.classes = append(s.classes, made)
	c.alike[hash] = append(c.alike[hash], len(s.classes)-1)
	return len(s.classes) - 1
}

// runs gives every address of a table its path from a group with a plan.
func (c *compiler) runs(t *table, group int, plan Plan, v6 bool) []run {
	four := reaches(plan.Rules, c.state.seats.Subnet)
	var six []reach
	if v6 {
		six = reaches(plan.Rules, t.network)
	}
	var all []run
	for _, part := range t.stretches {
		for i := part.from; i < part.to; {
			l := t.leaves[i]
			rule, end := c.counts(plan, four, six, l)
			next := min(part.to, t.after(i, end))
			all = extend(all, run{l.address, t.leaves[next-1].address, c.from(group, l.group, v6, plan.rows(rule))})
			i = next
		}
	}
	return all
}

// counts says which rule counts for a leaf, -1 for none, and up to which address. Rules for IPv4 count for the IPv6
// addresses of the same instances too, unless one for IPv6 says more.
func (c *compiler) counts(plan Plan, four, six []reach, l leaf) (rule int, last uint32) {
	rule, last = at(four, l.four)
	if !l.aligned() {
		last = l.address // the next one has nothing to do with this
	}
	other, end := at(six, l.address)
	if other >= 0 && (rule < 0 || plan.sixCounts(other, rule)) {
		rule = other
	}
	return rule, min(last, end)
}

// sixCounts says whether a rule for IPv6 goes before one for IPv4.
func (p Plan) sixCounts(six, four int) bool {
	longer := p.Rules[six].To.Bits() - (p.Rules[four].To.Bits() + 96)
	return longer > 0 || longer == 0 && six > four
}

// from is the path from a group to what a leaf belongs to.
func (c *compiler) from(group, to int, v6 bool, plan []row) int {
	switch {
	case to == external:
		return c.outside(plan)
	case len(plan) == 0:
		return c.between(pair{group, to}, v6)
	}
	return c.planned(pair{group, to}, v6, plan)
}

// extend adds a run, to the last one where they have the same path.
func extend(all []run, r run) []run {
	if n := len(all); n > 0 && all[n-1].path == r.path {
		all[n-1].last = r.last
		return all
	}
	return append(all, r)
}

// rows are what a plan asks for where a rule counts, or none (-1).
func (p Plan) rows(rule int) []row {
	var rows []row
	if p.Default != (Shape{}) {
		rows = append(rows, row{p.Default, "plan default"})
	}
	if rule >= 0 {
		r := p.Rules[rule]
		if r.Shape.Policy == "" {
			r.Shape.Policy = "accept"
		}
		rows = append(rows, row{r.Shape, "plan " + r.To.String()})
	}
	return rows
}

// appendKey writes all that a plan asks for.
func (p Plan) appendKey(b []byte) []byte {
	b = p.Default.appendKey(b)
	for _, r := range p.Rules {
		b = append(append(b, byte(r.To.Bits())), r.To.Addr().AsSlice()...)
		b = r.Shape.appendKey(append(b, byte(r.To.Addr().BitLen())))
	}
	return b
}

func (s Shape) appendKey(b []byte) []byte {
	b = appendValue(appendValue(b, s.Latency), s.Jitter)
	b = appendValue(appendValue(b, s.Bandwidth), s.Queue)
	for _, share := range []*pipelines.Share{s.Loss, s.LossCorr, s.Duplicate, s.DuplicateCorrelation,
		s.Reorder, s.ReorderCorrelation, s.Corrupt, s.CorruptCorrelation} {
		if share == nil {
			b = append(b, 0)
		} else {
			b = binary.BigEndian.AppendUint64(append(b, 1), math.Float64bits(float64(*share)))
		}
	}
	return append(append(append(append(b, s.Policy...), 0), s.Distribution...), 0)
}

func appendValue[T ~int64](b []byte, v *T) []byte {
	if v == nil {
		return append(b, 0)
	}
	return binary.BigEndian.AppendUint64(append(b, 1), uint64(*v))
}

// routes makes the routes of a network.
func (c *compiler) routes(network netip.Prefix, runs []run) []Route {
	if !network.IsValid() {
		return nil
	}
	above := network.Addr().BitLen() - 32
	found := entries(entry{first: toNumber(network.Addr()), bits: network.Bits() - above}, runs)
	slices.SortStableFunc(found, func(a, b entry) int { return b.bits - a.bits })
	routes := make([]Route, len(found))
	for i, e := range found {
		routes[i] = Route{netip.PrefixFrom(withNumber(network.Addr(), e.first), e.bits+above), c.paths[e.path]}
	}
	return routes
}

// withNumber is an address with other last 32 bits.
func withNumber(a netip.Addr, n uint32) netip.Addr {
	raw := a.AsSlice()
	binary.BigEndian.PutUint32(raw[len(raw)-4:], n)
	b, _ := netip.AddrFromSlice(raw)
	return b
}
