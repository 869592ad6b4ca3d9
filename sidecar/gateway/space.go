package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/url"
)

// Space is a name space of a run's states and topics: what is in one is not seen from another.
type Space struct {
	g    *Gateway
	name string
	// counters and logs begin the Redis keys of states and topics.
	counters, logs string
}

// Space is the name space of that name; the same name gives the same one, in every gateway of the run.
func (g *Gateway) Space(name string) *Space {
	prefix := g.prefix + "space:" + url.QueryEscape(name)
	return &Space{g: g, name: name, counters: prefix + ":state:", logs: prefix + ":topic:"}
}

// Name is what the space was asked for by.
func (s *Space) Name() string { return s.name }

// Signal adds n ≥ 1 to a state and returns its count after that. While Redis is away it waits; when ctx ends it returns
// although the signal may still be applied.
func (s *Space) Signal(ctx context.Context, state string, n int64) (int64, error) {
	if err := checkKey(state); err != nil {
		return 0, err
	}
	if n < 1 {
		return 0, fmt.Errorf("signalling %s %d times: at least once is needed", state, n)
	}
	return s.do(ctx, op{key: s.counters + state, add: n})
}

// SignalOnce adds one to a state, unless that was done under this name before: by this gateway, or by one that was killed
// before anybody knew. forget says that nobody will ask for it any more.
func (s *Space) SignalOnce(ctx context.Context, state, name string) (forget func(), err error) {
	if err := checkKey(state); err != nil {
		return nil, err
	}
	// No relay's session has such an id.
	memory := "once:" + s.counters + state + ":" + name
	_, err = s.do(ctx, op{key: s.counters + state, add: 1, memory: memory})
	return func() { s.g.commits.forget([]string{memory}) }, err
}

// Publish appends a JSON document to a topic and returns its number there, from 1. While Redis is away it waits; when
// ctx ends it returns although the item may still be appended.
func (s *Space) Publish(ctx context.Context, topic string, payload json.RawMessage) (int64, error) {
	if err := checkKey(topic); err != nil {
		return 0, err
	}
	if !json.Valid(payload) {
		return 0, fmt.Errorf("publishing on %s: the payload is no JSON", topic)
	}
	item := encodeItem(payload)
	if size := frameSize(item); size > largestFrame {
		return 0, fmt.Errorf("publishing on %s: the payload takes %d bytes in a frame; %d are allowed", topic, size, largestFrame)
	}
	return s.do(ctx, op{key: s.logs + topic, payload: payload, item: item})
}

func (s *Space) do(ctx context.Context, o op) (int64, error) {
	type result struct {
		seq int64
		err error
	}
	results := make(chan result, 1)
	o.done = func(d done, err error) { results <- result{d.seq, err} }
	s.g.commits.add(o)
	select {
	case r := <-results:
		return r.seq, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Barrier returns once the state's count is at least target.
func (s *Space) Barrier(ctx context.Context, state string, target int64) error {
	if err := checkKey(state); err != nil {
		return err
	}
	if target <= 0 {
		return nil
	}
	results := make(chan error, 1)
	w := s.g.wait(s.counters+state, target, func(err error) { results <- err })
	select {
	case err := <-results:
		return err
	case <-ctx.Done():
		if w != nil {
			s.g.withdraw(w)
		}
		return ctx.Err()
	}
}

// Subscribe yields every item of a topic, from the first on, and waits for more. It ends when the loop over it does,
// when ctx ends, or with an error, which it yields last.
func (s *Space) Subscribe(ctx context.Context, topic string) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		if err := checkKey(topic); err != nil {
			yield(nil, err)
			return
		}
		wake := make(chan struct{}, 1)
		w, err := s.g.watch(s.logs+topic, wake)
		if err != nil {
			yield(nil, err)
			return
		}
		defer s.g.unwatch(w)
		for next := 0; ; {
			for _, item := range w.topic.log()[next:] {
				next++
				payload, err := decodeItem(item)
				if !yield(payload, err) || err != nil {
					return
				}
			}
			if err := s.g.failure(); err != nil {
				yield(nil, err)
				return
			}
			select {
			case <-wake:
			case <-ctx.Done():
				return
			}
		}
	}
}
