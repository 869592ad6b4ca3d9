package elasticsearch

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

const (
	// senders is how many requests are under way at once.
	senders = 2
	// batches is how many there are, sent, filled and waiting together: their bodies are all the memory that a push takes,
	// however much there is to be sent.
	batches = 6
)

// batch is some documents on their way, and what became of them.
type batch struct {
	n     int
	body  []byte
	items []item
	// at is where the logs stand behind it, and bytes how much of them is in it.
	at    position
	bytes int64
	// refused are lines for the file of refused documents; first is the first one's reason.
	refused  []byte
	refusals int
	first    string
}

// item is a document in a batch's body.
type item struct {
	op, id     string
	start      int // of the line that says what to do with it
	doc, end   int
	event      int // where what may be left out begins, and where it was left out; 0: nothing may
	faults     int // how often the server failed over it
	leaveEvent bool
}

func (b *batch) reset(n int) {
	*b = batch{n: n, body: b.body[:0], items: b.items[:0], refused: b.refused[:0]}
}

func (b *batch) add(d document, at position, bytes int64) {
	i := item{op: d.op, id: d.id, start: len(b.body)}
	b.body = append(append(append(append(append(b.body, `{"`...), d.op...), `":{"_id":"`...), d.id...), "\"}}\n"...)
	i.doc = len(b.body)
	if d.event > 0 {
		i.event = i.doc + d.event
	}
	b.body = append(b.body, d.body...)
	i.end = len(b.body)
	b.body = append(b.body, '\n')
	b.items, b.at, b.bytes = append(b.items, i), at, b.bytes+bytes
}

// document is what is sent of an item.
func (b *batch) document(i item) (parts [2][]byte) {
	if i.leaveEvent {
		return [2][]byte{b.body[i.doc:i.event], []byte(`,"event_dropped":true}`)}
	}
	return [2][]byte{b.body[i.doc:i.end]}
}

// refuse keeps an item that the server won't take.
func (b *batch) refuse(i item, status int, reason string) error {
	parts := b.document(i)
	whole := append(append([]byte(nil), parts[0]...), parts[1]...)
	line, err := json.Marshal(refusedDocument{ID: i.id, Op: i.op, Status: status, Reason: reason, Document: whole})
	if err != nil {
		return fmt.Errorf("keeping a refused document: %w", err)
	}
	if b.refusals++; b.refusals == 1 {
		b.first = reason
	}
	b.refused = append(append(b.refused, line...), '\n')
	return nil
}

// producer calls each for every document, with where the logs stand behind it.
type producer func(ctx context.Context, each func(document, position) error) error

// pump sends what produce makes, in batches, and calls commit for each of them in their order.
func (p *push) pump(ctx context.Context, produce producer, commit func(*batch) error) error {
	group, ctx := errgroup.WithContext(ctx)
	free, full := make(chan *batch, batches), make(chan *batch, batches)
	for range batches {
		free <- &batch{}
	}
	group.Go(func() error {
		defer close(full)
		return p.fill(ctx, produce, free, full)
	})
	done := &sequence{commit: commit, free: free, waiting: map[int]*batch{}}
	for range senders {
		group.Go(func() error {
			d := newDelivery(p)
			for b := range full {
				if err := d.deliver(ctx, b); err != nil {
					return err
				}
				if err := done.with(b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (p *push) fill(ctx context.Context, produce producer, free <-chan *batch, full chan<- *batch) error {
	var current *batch
	var before position
	n := 0
	err := produce(ctx, func(d document, at position) error {
		if current == nil {
			select {
			case current = <-free:
				current.reset(n)
				n++
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		bytes := at.Offset
		if at.File == before.File {
			bytes -= before.Offset
		}
		before = at
		current.add(d, at, bytes)
		if len(current.body) >= p.batchBytes || len(current.items) >= p.batchDocuments {
			full <- current // has room for all there are
			current = nil
		}
		return nil
	})
	if err == nil && current != nil {
		full <- current
	}
	return err
}

// sequence commits batches in their order, whatever the order in which they come.
type sequence struct {
	commit  func(*batch) error
	free    chan<- *batch
	mu      sync.Mutex
	next    int
	waiting map[int]*batch
}

func (s *sequence) with(b *batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[b.n] = b
	for {
		b := s.waiting[s.next]
		if b == nil {
			return nil
		}
		delete(s.waiting, s.next)
		s.next++
		if err := s.commit(b); err != nil {
			return err
		}
		s.free <- b
	}
}
