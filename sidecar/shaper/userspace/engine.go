package userspace

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/groundplan/groundplan/sidecar/shaper"
)

// batch is how many packets are taken out at once, and sent with one system call.
const batch = 64

// engine decides what becomes of packets and when. It has no clock and no link: frames come with the time of their
// arrival, in nanoseconds since its beginning, and are taken out when they are due. It serves one goroutine; only the
// counters may be read by others.
type engine struct {
	began      time.Time
	translator Translator
	flows      *flows
	queue      queue
	pool       pool
	// withhold has packets be lost until there is a state.
	withhold bool

	packets, lost, late atomic.Int64
}

func newEngine(seed uint64, began time.Time, translator Translator) *engine {
	return &engine{began: began, translator: translator, flows: newFlows(seed)}
}

// replace puts another state in force. Packets that are delayed keep their time; those that wait for bandwidth go by the
// new one.
func (e *engine) replace(s state, subnet6 netip.Prefix, now int64) {
	e.flows.replace(s, subnet6, now)
	for _, b := range e.flows.buckets {
		if b.first != nil {
			e.advance(b, now)
		}
	}
}

// arrive takes a frame in. It may change it.
func (e *engine) arrive(frame []byte, at int64) {
	if !forwardable(frame) {
		return
	}
	if e.withhold && e.flows.state == nil {
		return
	}
	e.packets.Add(1)
	turn(frame)
	h := readHeader(frame[ethernetHeader:])
	var f *flow
	if h.ok {
		f = e.flows.find(&h)
	}
	if f == nil {
		e.pass(frame, at)
		return
	}
	if f.path.translated && !h.ipv6 && e.translator != nil {
		if f = e.translate(frame, &h, f, at); f == nil {
			return
		}
	}
	if f.path.blocked || f.path.loss.made(&f.random, &f.loss) {
		return
	}
	copies := 1
	if f.path.duplicate.made(&f.random, &f.duplicate) {
		copies = 2
	}
	for range copies {
		e.enter(frame, f, at)
	}
}

// pass sends a frame on as it came.
func (e *engine) pass(frame []byte, at int64) {
	if p := e.take(frame); p != nil {
		e.queue.push(event{at: at, packet: p})
	}
}

// take counts what it can't take.
func (e *engine) take(frame []byte) *packet {
	p := e.pool.take(frame)
	if p == nil {
		e.lost.Add(1)
	}
	return p
}

// translate takes a packet through the NATs on its way; nil: it ends there. The flow is then that of the two instances,
// whatever the packet says of its sender now.
func (e *engine) translate(frame []byte, h *header, f *flow, at int64) *flow {
	ip := frame[ethernetHeader:]
	if _, ok := e.translator.Translate(ip, int(f.slot), e.began.Add(time.Duration(at))); !ok {
		return nil
	}
	h.to = binary.BigEndian.Uint32(ip[16:])
	return e.flows.find(h)
}

// enter takes a copy of the frame into a flow.
func (e *engine) enter(frame []byte, f *flow, at int64) {
	b := f.bucket
	if b != nil {
		b.setRate(f.path.rate, at)
		e.advance(b, at)
		if b.waiting >= f.path.queue {
			return // as asked: the queue is full
		}
	}
	p := e.take(frame)
	if p == nil {
		return
	}
	p.flow = f
	if f.path.corrupt.made(&f.random, &f.corrupt) {
		p.corrupt(f.random.next())
	}
	e.limit(p, at)
}

// limit has a packet wait for bandwidth if it must.
func (e *engine) limit(p *packet, at int64) {
	b := p.flow.bucket
	if b == nil {
		e.delay(p, at)
		return
	}
	if b.first == nil && b.clock <= at {
		b.clock = at + takes(p.size(), b.rate)
		e.delay(p, at)
		return
	}
	b.push(p)
	e.schedule(b)
}

// schedule sees to it that a bucket is looked at when its first packet may go.
func (e *engine) schedule(b *bucket) {
	if b.first != nil && b.clock < b.wake {
		b.wake = b.clock
		e.queue.push(event{at: b.clock, bucket: b})
	}
}

// advance lets those packets of a bucket go whose time has come. A packet that another state has since given to another
// bucket, or to none, waits there.
func (e *engine) advance(b *bucket, now int64) {
	for b.first != nil {
		f := b.first.flow
		if f.generation != e.flows.generation {
			e.flows.refresh(f)
		}
		if f.bucket != b {
			e.limit(b.pop(), now)
			continue
		}
		b.setRate(f.path.rate, now)
		if b.clock > now {
			break
		}
		p, start := b.pop(), b.clock
		b.clock = start + takes(p.size(), b.rate)
		e.delay(p, start)
	}
	e.schedule(b)
}

// delay has a packet leave after its latency.
func (e *engine) delay(p *packet, start int64) {
	f := p.flow
	at := start
	if f.path.latency|f.path.jitter > 0 && !f.path.reorder.made(&f.random, &f.reorder) {
		at += f.path.latency
		if f.path.jitter > 0 {
			at = max(at+f.path.spread.draw(&f.random, f.path.jitter), start)
		}
		at = max(at, f.last)
		f.last = at
	}
	e.queue.push(event{at: at, packet: p})
}

// due appends the frames that have to leave by now to out, at most as many as it has room for. They are given back to the
// pool when they are sent. A packet that a new state's policy has caught under way is no longer among them.
func (e *engine) due(now int64, out []*packet) []*packet {
	for len(out) < cap(out) {
		at, ok := e.queue.next()
		if !ok || at > now {
			break
		}
		next := e.queue.pop()
		if next.packet == nil {
			if next.bucket.wake == at {
				next.bucket.wake = never
			}
			e.advance(next.bucket, now)
			continue
		}
		if e.caught(next.packet.flow) {
			e.pool.give(next.packet)
			continue
		}
		if now-at > int64(shaper.LateAfter) {
			e.late.Add(1)
		}
		out = append(out, next.packet)
	}
	return out
}

// caught says that packets of a flow no longer pass.
func (e *engine) caught(f *flow) bool {
	if f == nil {
		return false
	}
	if f.generation != e.flows.generation {
		e.flows.refresh(f)
	}
	return f.path.blocked
}
