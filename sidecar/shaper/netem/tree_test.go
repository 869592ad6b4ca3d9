package netem

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

func to(prefix string, p links.Path) links.Route {
	return links.Route{To: netip.MustParsePrefix(prefix), Path: p}
}

func slow(d time.Duration) links.Path { return links.Path{Latency: d} }

func limited(bucket string, bits int64, d time.Duration) links.Path {
	return links.Path{Bandwidth: bits, Bucket: bucket, Latency: d}
}

// fitted fits a tree to routes and counts what is fresh and what is changed of it.
func fitted(t testing.TB, x *tree, routes ...links.Route) (fresh, changed int, s steps) {
	t.Helper()
	s, err := x.fit(routes)
	if err != nil {
		t.Fatal(err)
	}
	count := func(is bool) {
		if is {
			fresh++
		} else {
			changed++
		}
	}
	for _, l := range s.lanes {
		count(l.fresh)
	}
	for _, l := range s.leaves {
		count(l.fresh)
	}
	consistent(t, x, routes)
	return fresh, changed, s
}

// consistent says when a packet would not be treated as its path asks.
func consistent(t testing.TB, x *tree, routes []links.Route) {
	t.Helper()
	leaves, lanes, classes := map[uint16]*leaf{}, map[uint16]*lane{}, map[uint16]bool{}
	for _, lane := range x.lanes {
		for _, class := range append([]uint16{lane.class}, classesOf(lane)...) {
			if classes[class] {
				t.Fatalf("class %d is there twice", class)
			}
			classes[class] = true
		}
		for _, l := range lane.leaves {
			leaves[l.class], lanes[l.class] = l, lane
		}
	}
	shared := map[string]uint16{}
	for _, r := range routes {
		i := slices.IndexFunc(x.filters, func(f filter) bool { return f.to.Overlaps(r.To) && f.to.Bits() <= r.To.Bits() })
		want := treatment(r.Path)
		if i < 0 || x.filters[i].class == 0 {
			if want != (links.Path{}) {
				t.Fatalf("packets to %s pass at once", r.To)
			}
			continue
		}
		class := x.filters[i].class
		if leaves[class] == nil || leaves[class].path != want {
			t.Fatalf("packets to %s are treated by %+v, should be by %+v", r.To, leaves[class], want)
		}
		lane := lanes[class]
		if lane.rate != want.Bandwidth || lane.bucket != want.Bucket {
			t.Fatalf("packets to %s share lane %+v", r.To, lane)
		}
		key := fmt.Sprint(lane.bucket, lane.rate)
		if other, ok := shared[key]; ok && other != lane.class {
			t.Fatalf("bucket %s has two lanes", key)
		}
		shared[key] = lane.class
	}
}

func classesOf(l *lane) []uint16 {
	var all []uint16
	for _, leaf := range l.leaves {
		all = append(all, leaf.class)
	}
	return all
}

func TestTreeChangesInPlace(t *testing.T) {
	var x tree
	a, b := "10.0.0.0/24", "10.0.1.0/24"
	for _, step := range []struct {
		name           string
		routes         []links.Route
		fresh, changed int
		filters        bool
	}{
		{"two delays share a lane", []links.Route{to(a, slow(1)), to(b, slow(2))}, 3, 0, true},
		{"the same again", []links.Route{to(a, slow(1)), to(b, slow(2))}, 0, 0, false},
		{"one changes where it is", []links.Route{to(a, slow(3)), to(b, slow(2))}, 0, 1, false},
		{"both change where they are", []links.Route{to(a, slow(4)), to(b, slow(5))}, 0, 2, false},
		{"they trade places", []links.Route{to(a, slow(5)), to(b, slow(4))}, 0, 0, true},
		{"one path for both", []links.Route{to(a, slow(4)), to(b, slow(4))}, 0, 0, true},
		{"nothing", nil, 0, 0, true},
		{"what waits is used again", []links.Route{to(a, slow(6)), to(b, slow(4))}, 0, 1, true},
		{"a bandwidth takes a lane of its own", []links.Route{to(a, limited("x", 1000, 0)), to(b, slow(4))}, 2, 0, true},
		{"which may change", []links.Route{to(a, limited("x", 2000, 0)), to(b, slow(4))}, 0, 2, false},
		{"and go to another bucket", []links.Route{to(a, limited("y", 2000, 0)), to(b, slow(4))}, 0, 2, false},
		{"which two delays share", []links.Route{to(a, limited("y", 2000, 0)), to(b, limited("y", 2000, 7))}, 1, 0, true},
		{"a second bucket", []links.Route{to(a, limited("y", 2000, 0)), to(b, limited("z", 2000, 7))}, 2, 0, true},
	} {
		fresh, changed, s := fitted(t, &x, step.routes...)
		if fresh != step.fresh || changed != step.changed || s.filters != step.filters {
			t.Errorf("%s: %d fresh, %d changed, filters %v; should be %d, %d, %v", step.name, fresh, changed, s.filters, step.fresh, step.changed, step.filters)
		}
	}
}

func TestTreeLeavesToOthersWhatIsTheirs(t *testing.T) {
	var x tree
	fresh, _, s := fitted(t, &x,
		to("10.0.0.1/32", links.Path{Duplicate: .1}), to("10.0.0.2/32", links.Path{Translated: true, Latency: 5}),
		to("10.0.0.3/32", links.Path{Policy: links.Drop}), to("fd67::/96", links.Path{Jitter: time.Hour}))
	if fresh != 0 || s.filters || len(x.filters) != 0 {
		t.Errorf("%d fresh, filters %v", fresh, x.filters)
	}
	// As exceptions from a wider route they have to be named.
	fitted(t, &x, to("10.0.0.1/32", links.Path{Duplicate: .1}), to("10.0.1.1/32", links.Path{}), to("10.0.0.0/24", slow(1)))
	if len(x.filters) != 2 || x.filters[0].class != 0 {
		t.Errorf("filters %v", x.filters)
	}
}

func TestTreeNeverGrowsWithoutNeed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var x tree
	most := 0
	for range 2000 {
		var routes []links.Route
		paths := map[links.Path]bool{}
		for i := range random.IntN(6) {
			p := links.Path{Latency: time.Duration(random.IntN(5)), Loss: float64(random.IntN(2)) / 2}
			if random.IntN(2) == 0 {
				p.Bucket, p.Bandwidth = fmt.Sprint("b", random.IntN(3)), int64(1+random.IntN(2))
			}
			paths[p] = true
			routes = append(routes, to(fmt.Sprintf("10.0.%d.0/24", i), p))
		}
		before := x.classes
		fitted(t, &x, routes...)
		if most = max(most, len(paths)); x.classes > 200 {
			t.Fatalf("for at most %d paths at a time there are %d classes", most, x.classes)
		}
		if again, err := x.fit(routes); err != nil || len(again.lanes)+len(again.leaves) != 0 || again.filters || x.classes < before {
			t.Fatalf("the same again: %+v, %v", again, err)
		}
	}
}

func TestTreeSaysWhenItIsFull(t *testing.T) {
	x := tree{classes: maxClasses - 1}
	if _, err := x.fit([]links.Route{to("10.0.0.0/24", slow(1))}); err == nil {
		t.Error("there is no end to classes")
	}
}
