package nat

import "time"

// fragmentTimeout is how long the rest of a packet may take to follow its first fragment: what Linux waits for to put
// packets together again is 30 s.
const fragmentTimeout = 30 * time.Second

// fragmentKey is what the fragments of a packet have in common.
type fragmentKey struct {
	source, destination uint32
	protocol            uint8
	identification      uint16
}

// fragmentWay is where the first fragment went.
type fragmentWay struct {
	source, destination uint32
	to                  int
	expires             time.Duration
}

// fragments remembers where first fragments went, because the later ones carry no ports. One that overtakes its first
// is lost.
type fragments struct {
	ways map[fragmentKey]fragmentWay
	// queue holds the keys in the order in which they were added, and when they are to go.
	queue []aged
}

type aged struct {
	key     fragmentKey
	expires time.Duration
}

func keyOf(p *packet) fragmentKey {
	return fragmentKey{p.sender(), p.receiver(), p.outer.protocol, p.identification()}
}

// remember notes the way of a packet's first fragment, which is translated now; key is what it had before.
func (f *fragments) remember(key fragmentKey, p *packet, to int, now time.Duration) {
	for len(f.queue) > 0 && f.queue[0].expires <= now {
		if old := f.queue[0]; f.ways[old.key].expires == old.expires {
			delete(f.ways, old.key)
		}
		f.queue = f.queue[1:]
	}
	if f.ways == nil {
		f.ways = map[fragmentKey]fragmentWay{}
	}
	expires := now + fragmentTimeout
	f.ways[key] = fragmentWay{source: p.sender(), destination: p.receiver(), to: to, expires: expires}
	f.queue = append(f.queue, aged{key, expires})
}

// follow sends a later fragment where the first went.
func (f *fragments) follow(p *packet, now time.Duration) (to int, ok bool) {
	way, ok := f.ways[keyOf(p)]
	if !ok || way.expires <= now {
		return 0, false
	}
	p.outer.rewrite(p.bytes, sourceAt, none, endpoint{address: way.source})
	p.outer.rewrite(p.bytes, destinationAt, none, endpoint{address: way.destination})
	return way.to, true
}
