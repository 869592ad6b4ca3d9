package gateway

import (
	"sync/atomic"
)

// state is a counter as this gateway knows it. Gateway.mu guards it.
type state struct {
	key     string
	count   int64                          // the highest heard of; never above the true one
	waiters map[int64]map[*waiter]struct{} // by target, which Redis knows or is about to be told
}

// waiter waits for a state's count. Its done is called once, without Gateway.mu, unless it is withdrawn first.
type waiter struct {
	state  *state
	target int64
	done   func(error)
}

// state finds or makes the state of a key. Callers hold g.mu.
func (g *Gateway) state(key string) *state {
	s := g.states[key]
	if s == nil {
		s = &state{key: key, waiters: map[int64]map[*waiter]struct{}{}}
		g.states[key] = s
	}
	return s
}

// wait calls done once the state's count is at least target. The waiter that it returns can be withdrawn; it is nil
// when done was called already.
func (g *Gateway) wait(key string, target int64, done func(error)) *waiter {
	g.mu.Lock()
	s := g.state(key)
	if err := g.failed; err != nil || s.count >= target {
		g.mu.Unlock()
		done(err)
		return nil
	}
	w := &waiter{state: s, target: target, done: done}
	if s.waiters[target] == nil {
		s.waiters[target] = map[*waiter]struct{}{}
		g.reads.addState(s)
	}
	s.waiters[target][w] = struct{}{}
	g.mu.Unlock()
	return w
}

// withdraw says whether w was still waiting.
func (g *Gateway) withdraw(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	group := w.state.waiters[w.target]
	if _, waits := group[w]; !waits {
		return false
	}
	delete(group, w)
	if len(group) == 0 {
		delete(w.state.waiters, w.target)
	}
	return true
}

// raise takes in a count and returns the waiters that it satisfies. Callers hold Gateway.mu.
func (s *state) raise(count int64) []*waiter {
	if count <= s.count {
		return nil
	}
	s.count = count
	var met []*waiter
	for target, group := range s.waiters {
		if target <= count {
			for w := range group {
				met = append(met, w)
			}
			delete(s.waiters, target)
		}
	}
	return met
}

// takeAll returns all waiters and forgets them. Callers hold Gateway.mu.
func (s *state) takeAll() []*waiter {
	var all []*waiter
	for _, group := range s.waiters {
		for w := range group {
			all = append(all, w)
		}
	}
	clear(s.waiters)
	return all
}

// topic is a log as this gateway knows it. Gateway.mu guards it, except that items may be loaded at any time.
type topic struct {
	key   string
	known int64 // its length as far as heard of
	// wanted is whether somebody subscribed: until then the log isn't kept here.
	wanted bool
	// awaited is the generation in which Redis was told so, -1 before.
	awaited int64
	// items are the first ones of the log, encoded for replies, without a gap. The slice is only ever appended to.
	items    atomic.Pointer[[]string]
	watchers map[*watcher]struct{}
}

// watcher is woken, by a channel with room for one, when a topic has more items.
type watcher struct {
	topic *topic
	wake  chan<- struct{}
}

// topic finds or makes the topic of a key. Callers hold g.mu.
func (g *Gateway) topic(key string) *topic {
	t := g.topics[key]
	if t == nil {
		t = &topic{key: key, awaited: -1, watchers: map[*watcher]struct{}{}}
		t.items.Store(new([]string))
		g.topics[key] = t
	}
	return t
}

// watch has wake signalled whenever the topic has more items; those that are there already don't signal.
func (g *Gateway) watch(key string, wake chan<- struct{}) (*watcher, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed != nil {
		return nil, g.failed
	}
	t := g.topic(key)
	w := &watcher{topic: t, wake: wake}
	t.watchers[w] = struct{}{}
	if !t.wanted {
		t.wanted = true
		g.reads.addTopic(t)
	}
	return w, nil
}

func (g *Gateway) unwatch(w *watcher) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(w.topic.watchers, w)
}

// log is the items known so far, from the first.
func (t *topic) log() []string { return *t.items.Load() }

// extend takes in items that stand in the log from position first (0 for the first item) on. What is known already is
// skipped; it says false when there is a gap before them. Callers hold Gateway.mu.
func (t *topic) extend(first int64, items []string) bool {
	old := t.log()
	skip := int64(len(old)) - first
	if skip < 0 {
		return false
	}
	if skip >= int64(len(items)) {
		return true
	}
	longer := append(old, items[skip:]...)
	t.items.Store(&longer)
	t.known = max(t.known, int64(len(longer)))
	t.wakeAll()
	return true
}

// behind is whether items are known to be in Redis that aren't here.
func (t *topic) behind() bool { return t.wanted && t.known > int64(len(t.log())) }

// wakeAll wakes the subscribers. Callers hold Gateway.mu.
func (t *topic) wakeAll() {
	for w := range t.watchers {
		select {
		case w.wake <- struct{}{}:
		default: // it is awake and will look
		}
	}
}
