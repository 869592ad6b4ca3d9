package userspace

// event is when something happens: a packet leaves, or a bucket has bandwidth for its next packet.
type event struct {
	at     int64 // nanoseconds since the engine's beginning
	order  uint64
	packet *packet
	bucket *bucket // when packet is nil
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.order < o.order }

// queue holds events, the earliest first, those of the same time in the order in which they came. It is a heap of which
// each node has four children: half as deep as with two, and the four lie side by side.
type queue struct {
	events []event
	order  uint64
}

func (q *queue) push(e event) {
	q.order++
	e.order = q.order
	q.events = append(q.events, e)
	i := len(q.events) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if !e.before(&q.events[parent]) {
			break
		}
		q.events[i] = q.events[parent]
		i = parent
	}
	q.events[i] = e
}

// next is the time of the earliest event.
func (q *queue) next() (at int64, ok bool) {
	if len(q.events) == 0 {
		return 0, false
	}
	return q.events[0].at, true
}

// pop takes the earliest event out; there has to be one.
func (q *queue) pop() event {
	first := q.events[0]
	end := len(q.events) - 1
	last := q.events[end]
	q.events[end] = event{}
	q.events = q.events[:end]
	if end > 0 {
		q.sink(last)
	}
	return first
}

// sink puts an event into the place of the first.
func (q *queue) sink(e event) {
	events := q.events
	i := 0
	for {
		child := 4*i + 1
		if child >= len(events) {
			break
		}
		least := child
		for other := child + 1; other < min(child+4, len(events)); other++ {
			if events[other].before(&events[least]) {
				least = other
			}
		}
		if !events[least].before(&e) {
			break
		}
		events[i] = events[least]
		i = least
	}
	events[i] = e
}
