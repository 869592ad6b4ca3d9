package netem

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/groundplan/groundplan/sidecar/links"
)

// generation tells a tree's filters from those before; they stand in one of two places.
type generation int

// tree is what is in the kernel for one instance.
type tree struct {
	lanes   []*lane
	filters []filter
	// classes counts those given out, leaves those among them that have a netem.
	classes, leaves int
	// generation tells the filters in force from those before.
	generation generation
}

// lane is a bandwidth that some paths share.
type lane struct {
	class  uint16
	bucket string
	rate   int64 // bits per second; 0: no limit
	leaves []*leaf
	used   bool
}

// leaf treats the packets of a path.
type leaf struct {
	class  uint16
	number int // from 0
	path   links.Path
	used   bool
	// packets and dropped are the kernel's counters when they were last read.
	packets, dropped uint32
}

// filter leads packets to a class; 0: they pass at once.
type filter struct {
	to    netip.Prefix
	class uint16
}

// steps lead from what was in the kernel to what is to be there. Those of a tree have to be taken in this order.
type steps struct {
	lanes   []laneStep
	leaves  []leafStep
	filters bool // they are others than before
}

type laneStep struct {
	*lane
	fresh bool
}

type leafStep struct {
	*leaf
	lane  *lane
	fresh bool
}

// maxClasses is how many classes a tree can have: their numbers have 16 bits, of which handles of netems take a part.
const maxClasses = 0x7000

// fit makes the tree one for these routes.
func (t *tree) fit(routes []links.Route) (steps, error) {
	f := fitting{tree: t, before: make(map[netip.Prefix]uint16, len(t.filters)), made: map[links.Path]*leaf{}}
	for _, l := range t.lanes {
		l.used = false
		for _, leaf := range l.leaves {
			leaf.used = false
		}
	}
	for _, old := range t.filters {
		f.before[old.to] = old.class
	}
	needed := necessary(routes)
	// What is there as it is asked for is kept first, so that nothing else takes it.
	for _, r := range needed {
		f.keep(r.Path)
	}
	filters := make([]filter, 0, len(needed))
	for _, r := range needed {
		leaf, err := f.leaf(r)
		if err != nil {
			return steps{}, err
		}
		filters = append(filters, filter{to: r.To, class: leaf})
	}
	f.steps.filters = !slices.Equal(filters, t.filters)
	t.filters = filters
	return f.steps, nil
}

// necessary leaves out the routes that nothing is asked of and that are no exception to a later one.
func necessary(routes []links.Route) []links.Route {
	needed := make([]links.Route, 0, len(routes))
	for i, r := range routes {
		if shaped(r.Path) || slices.ContainsFunc(routes[i+1:], func(wider links.Route) bool {
			return shaped(wider.Path) && wider.To.Bits() <= r.To.Bits() && wider.To.Contains(r.To.Addr())
		}) {
			needed = append(needed, r)
		}
	}
	return needed
}

// shaped says whether packets are shaped here.
func shaped(p links.Path) bool { return p.Shaped() && !p.UserSpace() }

// treatment is what of a path a leaf cares about, in one form. The zero value: nothing.
func treatment(p links.Path) links.Path {
	if !shaped(p) {
		return links.Path{}
	}
	p.Policy, p.Private, p.DuplicateCorrelation = links.Accept, false, 0
	if p.Jitter == 0 {
		p.Distribution = ""
	}
	if p.Bandwidth == 0 {
		p.Bucket, p.Queue = "", 0
	} else if p.Queue == 0 {
		p.Queue = links.DefaultQueue
	}
	return p
}

// fitting is a tree while it is made to fit.
type fitting struct {
	tree   *tree
	steps  steps
	before map[netip.Prefix]uint16
	made   map[links.Path]*leaf
}

// keep uses the leaf that treats packets as that path asks, if there is one.
func (f *fitting) keep(p links.Path) {
	p = treatment(p)
	if p == (links.Path{}) || f.made[p] != nil {
		return
	}
	for _, lane := range f.lanesOf(p) {
		if lane.rate != p.Bandwidth {
			continue
		}
		for _, l := range lane.leaves {
			if !l.used && l.path == p {
				lane.used, l.used, f.made[p] = true, true, l
				return
			}
		}
	}
}

// lanesOf are the lanes that belong to the bucket of a path.
func (f *fitting) lanesOf(p links.Path) []*lane {
	var found []*lane
	for _, l := range f.tree.lanes {
		if l.bucket == p.Bucket && (l.rate == 0) == (p.Bandwidth == 0) {
			found = append(found, l)
		}
	}
	return found
}

// leaf is the class for a route's path.
func (f *fitting) leaf(r links.Route) (uint16, error) {
	p := treatment(r.Path)
	if p == (links.Path{}) {
		return 0, nil
	}
	if l := f.made[p]; l != nil {
		return l.class, nil
	}
	lane, err := f.laneFor(p)
	if err != nil {
		return 0, err
	}
	l, err := f.leafIn(lane, r.To)
	if err != nil {
		return 0, err
	}
	l.path, l.used, f.made[p] = p, true, l
	return l.class, nil
}

// laneFor finds the lane of a path's bucket, changes one that isn't used any more, or adds one.
func (f *fitting) laneFor(p links.Path) (*lane, error) {
	own := f.lanesOf(p)
	for _, l := range own {
		if l.rate == p.Bandwidth {
			l.used = true
			return l, nil
		}
	}
	idle := func(l *lane) bool { return !l.used && l.rate > 0 }
	found := own
	if !slices.ContainsFunc(own, idle) {
		found = f.tree.lanes
	}
	if i := slices.IndexFunc(found, idle); p.Bandwidth > 0 && i >= 0 {
		l := found[i]
		l.bucket, l.rate, l.used = p.Bucket, p.Bandwidth, true
		f.steps.lanes = append(f.steps.lanes, laneStep{lane: l})
		return l, nil
	}
	class, err := f.class()
	if err != nil {
		return nil, err
	}
	l := &lane{class: class, bucket: p.Bucket, rate: p.Bandwidth, used: true}
	f.tree.lanes = append(f.tree.lanes, l)
	f.steps.lanes = append(f.steps.lanes, laneStep{lane: l, fresh: true})
	return l, nil
}

// leafIn finds a leaf of a lane that isn't used any more, best of all the one that packets to there took before, or
// adds one.
func (f *fitting) leafIn(in *lane, to netip.Prefix) (*leaf, error) {
	before := f.before[to]
	idle := slices.DeleteFunc(slices.Clone(in.leaves), func(l *leaf) bool { return l.used })
	if len(idle) > 0 {
		best := slices.MaxFunc(idle, func(a, b *leaf) int { return compare(a.class == before, b.class == before) })
		f.steps.leaves = append(f.steps.leaves, leafStep{leaf: best, lane: in})
		return best, nil
	}
	class, err := f.class()
	if err != nil {
		return nil, err
	}
	l := &leaf{class: class, number: f.tree.leaves}
	f.tree.leaves++
	in.leaves = append(in.leaves, l)
	f.steps.leaves = append(f.steps.leaves, leafStep{leaf: l, lane: in, fresh: true})
	return l, nil
}

func compare(a, b bool) int {
	number := map[bool]int{true: 1}
	return cmp.Compare(number[a], number[b])
}

func (f *fitting) class() (uint16, error) {
	if f.tree.classes == maxClasses {
		return 0, fmt.Errorf("there are more than %d different paths and buckets from one instance", maxClasses)
	}
	f.tree.classes++
	return uint16(f.tree.classes), nil
}
