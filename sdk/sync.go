package sdk

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"sync"
)

// Signal adds one to a state and returns its count after that: 1 for the first instance that signals it.
func (r *Run) Signal(ctx context.Context, state string) (int64, error) {
	answer, err := r.conn.ask(ctx, request{Signal: &stateBody{r.stateKey(state)}}, false)
	if err == nil && answer.Signal == nil {
		err = errNoBody
	}
	if err != nil {
		return 0, fmt.Errorf("signalling %s: %w", state, err)
	}
	return answer.Signal.Seq, nil
}

// Barrier returns once target instances, or more, have signalled the state.
func (r *Run) Barrier(ctx context.Context, state string, target int) error {
	if _, err := r.conn.ask(ctx, request{Barrier: &barrierBody{r.stateKey(state), target}}, true); err != nil {
		return fmt.Errorf("waiting for %s to reach %d: %w", state, target, err)
	}
	return nil
}

// SignalAndWait signals a state and waits until target instances have; it returns what Signal does.
func (r *Run) SignalAndWait(ctx context.Context, state string, target int) (int64, error) {
	n, err := r.Signal(ctx, state)
	if err != nil {
		return 0, err
	}
	return n, r.Barrier(ctx, state, target)
}

// Topic is the name of a log that instances share; its items are of type T, and travel as JSON.
type Topic[T any] string

// Publish appends an item and returns its number, from 1.
func (t Topic[T]) Publish(ctx context.Context, run *Run, item T) (int64, error) {
	payload, err := encode(item)
	if err != nil {
		return 0, fmt.Errorf("publishing on %s: %w", string(t), err)
	}
	return run.publish(ctx, run.topicKey(string(t)), string(t), payload)
}

// Subscribe yields every item of the topic, from the first on, and then waits for more. It ends when the loop over it
// does, or with an error, which it yields last: an item that is no T, the end of ctx, a sync service that is gone. After
// a broken connection it goes on where it was.
func (t Topic[T]) Subscribe(ctx context.Context, run *Run) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for payload, err := range run.subscribe(ctx, run.topicKey(string(t))) {
			var item T
			if err == nil {
				err = json.Unmarshal([]byte(payload), &item)
			}
			if err != nil {
				yield(item, fmt.Errorf("reading %s: %w", string(t), err))
				return
			}
			if !yield(item, nil) {
				return
			}
		}
	}
}

// Collect waits for the first n items and returns them.
func (t Topic[T]) Collect(ctx context.Context, run *Run, n int) ([]T, error) {
	items := make([]T, 0, n)
	if n <= 0 {
		return items, nil
	}
	for item, err := range t.Subscribe(ctx, run) {
		if err != nil {
			return items, fmt.Errorf("%w (with %d of %d items)", err, len(items), n)
		}
		if items = append(items, item); len(items) == n {
			break
		}
	}
	return items, nil
}

func (e *Environment) key(rest string) string {
	return "run:" + e.ID + ":plan:" + e.Plan + ":case:" + e.Case + ":" + rest
}

func (e *Environment) stateKey(state string) string { return e.key("states:" + state) }
func (e *Environment) topicKey(topic string) string { return e.key("topics:" + topic) }

func (r *Run) publish(ctx context.Context, key, name string, payload []byte) (int64, error) {
	answer, err := r.conn.ask(ctx, request{Publish: &publishBody{key, payload}}, false)
	if err == nil && answer.Publish == nil {
		err = errNoBody
	}
	if err != nil {
		return 0, fmt.Errorf("publishing on %s: %w", name, err)
	}
	return answer.Publish.Seq, nil
}

// subscription holds what has come in and wasn't read yet.
type subscription struct {
	mu      sync.Mutex
	waiting []string
	err     error
	wake    chan struct{}
	// had counts what came in; skip how much of what comes now was there before the connection broke.
	had, skip int
}

func (s *subscription) take(r reply, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.err = err
	case r.Error != "":
		s.err = fmt.Errorf("the sync service says: %s", r.Error)
	case s.skip > 0:
		s.skip--
		return true
	default:
		s.had++
		s.waiting = append(s.waiting, r.Subscribe)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.err == nil
}

// renew makes it skip what it has: a new subscription begins with the first item.
func (s *subscription) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skip = s.had
}

func (s *subscription) drain() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := s.waiting
	s.waiting = nil
	return items, s.err
}

func (r *Run) subscribe(ctx context.Context, key string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		s := &subscription{wake: make(chan struct{}, 1)}
		id, err := r.conn.start(ctx, request{Subscribe: &topicBody{key}}, &call{again: true, take: s.take, renew: s.renew})
		if err != nil {
			yield("", err)
			return
		}
		defer r.conn.giveUp(id, true)
		for {
			items, err := s.drain()
			for _, item := range items {
				if ctx.Err() != nil {
					break
				}
				if !yield(item, nil) {
					return
				}
			}
			if err == nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				yield("", err)
				return
			}
			select {
			case <-s.wake:
			case <-ctx.Done():
			}
		}
	}
}
