//go:build linux

package keeper

import (
	"context"
	"encoding/json"
	"iter"
	"sync"
)

// fakeSync is a sync service without clients.
type fakeSync struct {
	mu      sync.Mutex
	counts  map[string]int64
	topics  map[string][]json.RawMessage
	changed chan struct{}   // closed and replaced with every change
	names   map[string]bool // of what was signalled once
	fail    error
	hold    chan struct{} // when set, Signal waits for it
}

func newFakeSync() *fakeSync {
	return &fakeSync{counts: map[string]int64{}, topics: map[string][]json.RawMessage{}, names: map[string]bool{}, changed: make(chan struct{})}
}

// change changes something and wakes who waits.
func (f *fakeSync) change(to func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeSync) Signal(ctx context.Context, space, state string, n int64) error {
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.change(func() { f.counts[space+" "+state] += n })
	return f.fail
}

func (f *fakeSync) SignalOnce(ctx context.Context, space, state, name string) (func(), error) {
	name = space + " " + state + " " + name
	f.mu.Lock()
	done := f.names[name]
	f.names[name] = true
	f.mu.Unlock()
	if done {
		return func() {}, nil
	}
	return func() {}, f.Signal(ctx, space, state, 1)
}

func (f *fakeSync) count(space, state string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[space+" "+state]
}

// until waits until something is so.
func (f *fakeSync) until(ctx context.Context, so func() bool) error {
	for {
		f.mu.Lock()
		there, changed := so(), f.changed
		f.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeSync) Barrier(ctx context.Context, space, state string, target int64) error {
	return f.until(ctx, func() bool { return f.counts[space+" "+state] >= target })
}

func (f *fakeSync) Publish(_ context.Context, space, topic string, document json.RawMessage) (seq int64, err error) {
	f.change(func() {
		key := space + " " + topic
		f.topics[key] = append(f.topics[key], document)
		seq = int64(len(f.topics[key]))
	})
	return seq, nil
}

func (f *fakeSync) Subscribe(ctx context.Context, space, topic string) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for next := 0; ; next++ {
			var document json.RawMessage
			if f.until(ctx, func() bool {
				all := f.topics[space+" "+topic]
				if len(all) > next {
					document = all[next]
				}
				return document != nil
			}) != nil || !yield(document, nil) {
				return
			}
		}
	}
}
