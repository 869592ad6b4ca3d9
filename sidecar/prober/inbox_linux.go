package prober

import (
	"context"
	"encoding/binary"
	"math"
	"sync"
	"time"
)

// inbox keeps what comes to an endpoint from one on another node, for as long as a round of a proof goes on.
type inbox struct {
	party *party
	// mu guards what follows.
	mu      sync.Mutex
	knocked bool
	series  map[kind]*record
	flood   *torrent
	size    int // of the flood's packets
	byKey   map[uint64]kind

	over chan time.Time
	done sync.WaitGroup
}

func newInbox(p *party) *inbox {
	return &inbox{party: p, series: map[kind]*record{}, byKey: map[uint64]kind{}, over: make(chan time.Time)}
}

// expect says what the pair's sender is going to send.
func (b *inbox) expect(w *probing, i int, flooded bool) {
	p := &w.pairs[i]
	b.byKey[b.party.key(i, knockKind)] = knockKind
	spaced, dense := seriesOptions(p.way, w.sharing[p.bucket()])
	for k, o := range map[kind]SeriesOptions{spacedKind: spaced, denseKind: dense} {
		key := b.party.key(i, k)
		b.byKey[key] = k
		b.series[k] = newRecord(key, o.Packets)
	}
	if flooded {
		key := b.party.key(i, floodKind)
		b.byKey[key] = floodKind
		b.flood = &torrent{key: key, total: math.MaxInt}
	}
}

// serve takes in what comes until the inbox is closed.
func (b *inbox) serve(ctx context.Context, at *Endpoint) {
	b.done.Go(func() {
		// An error is the end of ctx or of the socket: what hasn't come till then is lost either way.
		_ = at.receive(ctx, b.over, func(a arrival) bool {
			b.take(a, at)
			return true
		})
	})
}

func (b *inbox) take(a arrival, at *Endpoint) {
	if len(a.payload) < words*wordSize {
		return
	}
	word, ok := majority(a.payload)
	if !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch k, ours := b.byKey[binary.BigEndian.Uint64(word)]; {
	case !ours:
	case k == knockKind:
		b.knocked = true
	case k == floodKind:
		b.flood.take(a)
		b.size = len(a.payload) + at.headers()
	default:
		b.series[k].take(a)
	}
}

func (b *inbox) close() {
	close(b.over)
	b.done.Wait()
}

// arrivals is what a receiver's node tells of a pair.
type arrivals struct {
	Knocked bool            `json:",omitempty"`
	Series  map[kind]*tally `json:",omitempty"`
	Rate    Rate            `json:",omitzero"`
}

// tally is what is known of a series where it arrives.
type tally struct {
	Came                                      []byte // when, packed
	Duplicates, Reordered, Corrupted, Overrun int
}

// tell says what has come since the last call.
func (b *inbox) tell() arrivals {
	b.mu.Lock()
	defer b.mu.Unlock()
	said := arrivals{Knocked: b.knocked, Series: map[kind]*tally{}}
	for k, r := range b.series {
		if r.last >= 0 || r.corrupted > 0 {
			said.Series[k] = &tally{pack(r.came), r.duplicates, r.reordered, r.corrupted, r.overrun.count}
			b.series[k] = newRecord(r.key, len(r.came))
		}
	}
	if b.flood != nil && len(b.flood.came) > 1 {
		said.Rate = rate(b.flood.came, len(b.flood.came), time.Second, 8*b.size)
		b.flood.came = nil
	}
	return said
}

// into adds what is known where a series arrived to what is known where it was sent.
func (t *tally) into(r *record) {
	unpack(t.Came, r.came)
	r.duplicates, r.reordered, r.corrupted, r.overrun.count = t.Duplicates, t.Reordered, t.Corrupted, t.Overrun
}

// pack writes times in microseconds, each by the difference to the one before; 0 is a packet that hasn't come.
func pack(came []int64) []byte {
	var b []byte
	last := int64(0)
	for _, at := range came {
		if at == 0 {
			b = append(b, 0)
			continue
		}
		micros := at / 1000
		step := micros - last
		if step >= 0 {
			step++ // so that none is 0
		}
		b = binary.AppendVarint(b, step)
		last = micros
	}
	return b
}

// unpack is the inverse, as far as there is room.
func unpack(b []byte, came []int64) {
	last := int64(0)
	for i := range came {
		step, n := binary.Varint(b)
		if n <= 0 {
			return
		}
		b = b[n:]
		if step == 0 {
			continue
		}
		if step > 0 {
			step--
		}
		last += step
		came[i] = last * 1000
	}
}

// ledger keeps something by pair and kind.
type ledger[T any] struct {
	mu  sync.Mutex
	all map[int]map[kind]T
}

func newLedger[T any]() *ledger[T] { return &ledger[T]{all: map[int]map[kind]T{}} }

func (l *ledger[T]) put(i int, k kind, v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all[i] == nil {
		l.all[i] = map[kind]T{}
	}
	l.all[i][k] = v
}

func (l *ledger[T]) get(i int, k kind) (T, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.all[i][k]
	return v, ok
}
