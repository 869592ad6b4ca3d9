package userspace

import (
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

// state is what a shaper asks of a links.State.
type state interface {
	Path(slot int, to netip.Addr) links.Path
	Slot(address netip.Addr) (int, bool)
	Behind(external netip.Addr) (int, bool)
}

// path is a links.Path made ready.
type path struct {
	latency, jitter                   int64
	spread                            *spread
	loss, duplicate, reorder, corrupt choice
	rate                              int64
	queue                             int
	bucket                            string
	blocked, translated               bool
}

func newPath(p links.Path) *path {
	queue := p.Queue
	if queue <= 0 {
		queue = links.DefaultQueue
	}
	return &path{
		latency: int64(p.Latency), jitter: int64(p.Jitter), spread: spreadOf(p.Distribution),
		loss:      newChoice(p.Loss, p.LossCorrelation),
		duplicate: newChoice(p.Duplicate, p.DuplicateCorrelation),
		reorder:   newChoice(p.Reorder, p.ReorderCorrelation),
		corrupt:   newChoice(p.Corrupt, p.CorruptCorrelation),
		rate:      p.Bandwidth, queue: queue, bucket: p.Bucket,
		blocked: p.Policy != links.Accept, translated: p.Translated,
	}
}

// flow is what goes from one address to another.
type flow struct {
	from, to netip.Addr
	// What the state says, as of that generation of it.
	generation uint32
	slot       int32
	path       *path
	bucket     *bucket
	// last is when the packet before leaves: jitter doesn't let the next one overtake it.
	last int64
	// random and what it drew before, for the correlations.
	random                            stream
	loss, duplicate, reorder, corrupt uint32
}

// flows finds flows by their addresses. Only those of instances are kept.
type flows struct {
	seed       uint64
	state      state
	generation uint32
	ipv4       map[uint64]*flow
	ipv6       map[uint64]*flow
	prefix     [12]byte // of the addresses in ipv6
	paths      map[links.Path]*path
	buckets    map[bucketKey]*bucket
}

func newFlows(seed uint64) *flows {
	return &flows{
		seed: seed, ipv4: make(map[uint64]*flow), ipv6: make(map[uint64]*flow),
		paths: make(map[links.Path]*path), buckets: make(map[bucketKey]*bucket),
	}
}

// replace puts another state in force. Flows find out when they are used next.
func (t *flows) replace(s state, subnet6 netip.Prefix, now int64) {
	if raw := subnet6.Addr().AsSlice(); len(raw) == 16 && [12]byte(raw) != t.prefix {
		t.prefix = [12]byte(raw)
		clear(t.ipv6)
	}
	t.state = s
	t.generation++
	clear(t.paths)
	for key, b := range t.buckets {
		if b.first == nil && b.clock <= now {
			delete(t.buckets, key)
		}
	}
}

// find returns the flow of a packet; nil when the state doesn't know both its ends.
func (t *flows) find(h *header) *flow {
	table := t.ipv4
	if h.ipv6 {
		if h.fromPrefix != t.prefix || h.toPrefix != t.prefix {
			return nil
		}
		table = t.ipv6
	}
	key := uint64(h.from)<<32 | uint64(h.to)
	f := table[key]
	if f != nil {
		if f.generation != t.generation {
			t.refresh(f)
		}
		return f
	}
	if t.state == nil {
		return nil
	}
	f = &flow{from: ipv4(h.from), to: ipv4(h.to)}
	if h.ipv6 {
		f.from, f.to = ipv6(t.prefix, h.from), ipv6(t.prefix, h.to)
	}
	t.refresh(f)
	if _, known := t.state.Slot(f.to); f.slot < 0 || !known && !f.path.translated {
		return nil
	}
	// The stream is that of the sender's slot and the address, so that it doesn't depend on what else is sent.
	f.random = newStream(t.seed, uint64(f.slot)<<32^uint64(h.to))
	for _, drawn := range []*uint32{&f.loss, &f.duplicate, &f.reorder, &f.corrupt} {
		*drawn = uint32(f.random.next())
	}
	table[key] = f
	return f
}

// refresh asks the state what there is to know about a flow.
func (t *flows) refresh(f *flow) {
	before := f.path
	f.generation, f.slot, f.path, f.bucket = t.generation, -1, passing, nil
	slot, ok := t.state.Slot(f.from)
	if !ok {
		// From a NAT on another node: who is behind it isn't known here, so the first one stands for all of them.
		if slot, ok = t.state.Behind(f.from); !ok {
			return
		}
	}
	f.slot = int32(slot)
	asked := t.state.Path(slot, f.to)
	f.path = t.paths[asked]
	if f.path == nil {
		f.path = newPath(asked)
		t.paths[asked] = f.path
	}
	if before != nil && (before.latency != f.path.latency || before.jitter != f.path.jitter) {
		f.last = 0 // what is under way by the old latency doesn't hold up what follows
	}
	if f.path.rate > 0 {
		key := bucketKey{slot: f.slot, name: f.path.bucket}
		if f.bucket = t.buckets[key]; f.bucket == nil {
			f.bucket = &bucket{wake: never, rate: f.path.rate}
			t.buckets[key] = f.bucket
		}
	}
}

// passing is the path of what nothing is asked of.
var passing = newPath(links.Path{})

// mostPatience bounds patience, for the sake of the ring.
const mostPatience = time.Millisecond

// patience is how long a packet may lie unread, whichever path it is to take, so that it can still leave in time and with
// as much to spare: half of what the quickest path takes at least.
func patience(s *links.State) time.Duration {
	least := 2 * mostPatience
	seen := make(map[*links.Route]bool)
	for _, i := range s.Seats().Instances {
		routes := s.Routes(i.Slot)
		if len(routes) == 0 || seen[&routes[0]] {
			continue
		}
		seen[&routes[0]] = true
		for _, r := range routes {
			if r.Path.Shaped() || r.Path.Translated {
				least = min(least, quickest(r.Path))
			}
		}
	}
	return least / 2
}

// quickest is the least that packets by a path take.
func quickest(p links.Path) time.Duration {
	if p.Reorder > 0 {
		return 0
	}
	return max(p.Latency+time.Duration(float64(p.Jitter)*float64(spreadOf(p.Distribution)[0])), 0)
}
