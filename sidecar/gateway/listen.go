package gateway

import (
	"context"
	_ "embed" // await.lua
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// change is the message that commit.lua sends after a batch.
type change struct {
	From   string   `json:"from"`
	Counts []int64  `json:"counts"`
	Keys   []string `json:"keys"`
}

// silence is how long the subscription may be quiet before it is asked whether it still lives.
const silence = 3 * time.Second

// listen takes in what other gateways changed, until the gateway is closed.
func (g *Gateway) listen() {
	var wait backoff
	for g.ctx.Err() == nil {
		if g.follow() {
			wait = 0
		}
		if !g.pause(wait.next()) {
			return
		}
	}
}

// follow subscribes and takes in messages until the connection breaks. It says whether there was one.
func (g *Gateway) follow() (worked bool) {
	subscription := g.redis.Subscribe(g.ctx, g.channel())
	defer subscription.Close()
	// Its reads don't heed the context.
	defer context.AfterFunc(g.ctx, func() { _ = subscription.Close() })()
	quiet := 0
	for {
		message, err := subscription.ReceiveTimeout(g.ctx, silence)
		var timeout net.Error
		switch {
		case g.ctx.Err() != nil:
			return worked
		case errors.As(err, &timeout) && timeout.Timeout():
			if quiet++; quiet > 2 || subscription.Ping(g.ctx) != nil {
				return worked
			}
			continue
		case err != nil:
			return worked
		}
		quiet = 0
		switch m := message.(type) {
		case *redis.Subscription:
			worked = true
			g.renew()
		case *redis.Message:
			g.hear(m.Payload)
		}
	}
}

// renew begins a generation: what waits is read anew, since messages may have been missed.
func (g *Gateway) renew() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.generation++
	for _, s := range g.states {
		if len(s.waiters) > 0 {
			g.reads.addState(s)
		}
	}
	for _, t := range g.topics {
		if t.wanted {
			g.reads.addTopic(t)
		}
	}
	if g.generation > 1 {
		g.reads.addMark()
	}
}

// hear takes in one change.
func (g *Gateway) hear(payload string) {
	var c change
	if err := json.Unmarshal([]byte(payload), &c); err != nil || len(c.Keys) != len(c.Counts) {
		g.log.Warn("a message on the run's channel is not one of a gateway", "message", payload, "error", err)
		return
	}
	if c.From == g.id {
		return // known from the answer
	}
	var met []*waiter
	g.mu.Lock()
	for i, key := range c.Keys {
		if s := g.states[key]; s != nil {
			met = append(met, s.raise(c.Counts[i])...)
		}
		if t := g.topics[key]; t != nil {
			t.known = max(t.known, c.Counts[i])
			if t.behind() {
				g.reads.addTopic(t)
			}
		}
	}
	g.mu.Unlock()
	for _, w := range met {
		w.done(nil)
	}
}

// reads are the states and topics to be read from Redis.
type reads struct {
	mu     sync.Mutex
	states map[*state]struct{}
	topics map[*topic]struct{}
	mark   bool
	wake   chan struct{}
}

func (r *reads) init() {
	r.states, r.topics = map[*state]struct{}{}, map[*topic]struct{}{}
	r.wake = make(chan struct{}, 1)
}

func (r *reads) addState(s *state) {
	r.mu.Lock()
	r.states[s] = struct{}{}
	r.mu.Unlock()
	r.rouse()
}

func (r *reads) addTopic(t *topic) {
	r.mu.Lock()
	r.topics[t] = struct{}{}
	r.mu.Unlock()
	r.rouse()
}

// addMark has it found out whether Redis still has the run's data.
func (r *reads) addMark() {
	r.mu.Lock()
	r.mark = true
	r.mu.Unlock()
	r.rouse()
}

func (r *reads) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reads) take() (states []*state, topics []*topic, mark bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.states {
		states = append(states, s)
	}
	for t := range r.topics {
		topics = append(topics, t)
	}
	clear(r.states)
	clear(r.topics)
	mark, r.mark = r.mark, false
	return states, topics, mark
}

// read reads what was asked for until the gateway is closed. It has a goroutine of its own since the one that listens
// must not wait for Redis: an embedded Redis waits for its listeners.
func (g *Gateway) read() {
	for {
		select {
		case <-g.reads.wake:
		case <-g.ctx.Done():
			return
		}
		states, topics, mark := g.reads.take()
		if mark && !g.insist(g.checkMark) {
			return
		}
		for _, s := range states {
			if !g.insist(func() error { return g.readState(s) }) {
				return
			}
		}
		for _, t := range topics {
			if !g.insist(func() error { return g.readTopic(t) }) {
				return
			}
		}
	}
}

// insist repeats a reading until Redis has answered, and says whether the gateway is still open.
func (g *Gateway) insist(reading func() error) bool {
	var wait backoff
	for {
		err := reading()
		switch {
		case err == nil:
			return true
		case g.ctx.Err() != nil:
			return false
		case !passing(err):
			g.fail(fmt.Errorf("reading from Redis: %w", err))
			return true
		case !g.pause(wait.next()):
			return false
		}
	}
}

//go:embed await.lua
var awaitSource string

var awaitScript = redis.NewScript(awaitSource)

// readState says in Redis what is awaited here of a counter, reads it, and lets those go on who waited for what it is.
func (g *Gateway) readState(s *state) error {
	g.mu.Lock()
	before := s.count
	args := []any{g.keepSeconds()}
	for target := range s.waiters {
		args = append(args, target)
	}
	g.mu.Unlock()
	count, err := awaitScript.Run(g.ctx, g.redis, []string{s.key, g.awaited(s.key)}, args...).Int64()
	if err != nil {
		return err
	}
	if count < before {
		return g.checkMark()
	}
	g.mu.Lock()
	met := s.raise(count)
	g.mu.Unlock()
	for _, w := range met {
		w.done(nil)
	}
	return nil
}

// portion is how many items of a log are read at a time.
const portion = 500

// readTopic reads what is missing of a log. Before the first time it says in Redis that the log is read here.
func (g *Gateway) readTopic(t *topic) error {
	if err := g.awaitTopic(t); err != nil {
		return err
	}
	for {
		first := int64(len(t.log()))
		payloads, err := g.redis.LRange(g.ctx, t.key, first, first+portion-1).Result()
		if err != nil {
			return err
		}
		items := make([]string, len(payloads))
		for i, p := range payloads {
			items[i] = encodeItem([]byte(p))
		}
		g.mu.Lock()
		t.extend(first, items)
		behind := t.behind()
		g.mu.Unlock()
		switch {
		case behind && len(payloads) == 0:
			return g.checkMark()
		case len(payloads) < portion && !behind:
			return nil
		}
	}
}

func (g *Gateway) awaitTopic(t *topic) error {
	g.mu.Lock()
	generation, known := g.generation, t.awaited
	g.mu.Unlock()
	if generation == known {
		return nil
	}
	if err := g.redis.Set(g.ctx, g.awaited(t.key), "", g.keep).Err(); err != nil {
		return err
	}
	g.mu.Lock()
	t.awaited = generation
	g.mu.Unlock()
	return nil
}

// checkMark finds out whether Redis still has the run's data.
func (g *Gateway) checkMark() error {
	n, err := g.redis.Exists(g.ctx, g.mark()).Result()
	if err == nil && n == 0 {
		g.fail(ErrDataLost)
	}
	return err
}
