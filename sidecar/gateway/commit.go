package gateway

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

//go:embed commit.lua
var commitSource string

var commitScript = redis.NewScript(commitSource)

const (
	// A batch is bounded, since Redis serves nobody else while it runs.
	batchOps   = 5000
	batchBytes = 1 << 20
)

// op is a signal or a publish on its way to Redis.
type op struct {
	key string
	// add is how much a signal adds; 0 for a publish.
	add     int64
	payload json.RawMessage
	item    string // the payload as encodeItem made it
	// done is called once, on the goroutine that commits: with the count after it, or why it wasn't done.
	done func(seq int64, err error)
}

// commits are the operations that wait for the next batch.
type commits struct {
	mu      sync.Mutex
	waiting []op
	closed  bool
	wake    chan struct{}
}

func (c *commits) init() { c.wake = make(chan struct{}, 1) }

// add has o done with the next batch.
func (c *commits) add(o op) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		o.done(0, ErrClosed)
		return
	}
	c.waiting = append(c.waiting, o)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *commits) take() []op {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.waiting
	c.waiting = nil
	return taken
}

// close returns what will not be committed any more.
func (c *commits) close() []op {
	rest := c.take()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	rest = append(rest, c.waiting...)
	c.waiting = nil
	return rest
}

// batch is what one script call applies: the operations by key, in the order they came.
type batch struct {
	number int64
	keys   []string
	ops    [][]op // of keys[i]
	index  map[string]int
}

// cut makes a batch of the first operations and returns the others.
func cut(number int64, ops []op) (batch, []op) {
	b := batch{number: number, index: map[string]int{}}
	size := 0
	for n, o := range ops {
		if n >= batchOps || n > 0 && size+len(o.payload) > batchBytes {
			return b, ops[n:]
		}
		i, there := b.index[o.key]
		if !there {
			i = len(b.keys)
			b.index[o.key] = i
			b.keys, b.ops = append(b.keys, o.key), append(b.ops, nil)
		}
		b.ops[i] = append(b.ops[i], o)
		size += len(o.payload)
	}
	return b, nil
}

// commit sends batch after batch until the gateway is closed.
func (g *Gateway) commit() {
	var number int64
	for {
		select {
		case <-g.commits.wake:
		case <-g.ctx.Done():
			for _, o := range g.commits.close() {
				o.done(0, ErrClosed)
			}
			return
		}
		for rest := g.commits.take(); len(rest) > 0; {
			number++
			var b batch
			b, rest = cut(number, rest)
			g.apply(b)
		}
	}
}

// apply brings a batch into Redis, however long that takes, and tells everybody here what came of it.
func (g *Gateway) apply(b batch) {
	counts, err := g.send(b)
	if err != nil {
		for _, ops := range b.ops {
			for _, o := range ops {
				o.done(0, err)
			}
		}
		return
	}
	met := g.take(b, counts)
	for i, ops := range b.ops {
		seq := counts[i]
		for _, o := range ops {
			seq -= max(o.add, 1)
		}
		for _, o := range ops {
			seq += max(o.add, 1)
			o.done(seq, nil)
		}
	}
	for _, w := range met {
		w.done(nil)
	}
}

// take brings the counts after a batch of our own into what is known here, and returns the waiters that are satisfied.
func (g *Gateway) take(b batch, counts []int64) []*waiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	var met []*waiter
	for i, key := range b.keys {
		if b.ops[i][0].add > 0 {
			met = append(met, g.state(key).raise(counts[i])...)
			continue
		}
		t := g.topic(key)
		t.known = max(t.known, counts[i])
		if !t.wanted {
			continue
		}
		items := make([]string, len(b.ops[i]))
		for n, o := range b.ops[i] {
			items[n] = o.item
		}
		if !t.extend(counts[i]-int64(len(items)), items) {
			g.reads.addTopic(t) // others' items stand before ours
		}
	}
	return met
}

// send runs the script until it has an answer.
func (g *Gateway) send(b batch) ([]int64, error) {
	if err := g.failure(); err != nil {
		return nil, err
	}
	keys, args := g.scriptInput(b)
	var wait backoff
	for away := false; ; {
		reply, err := commitScript.Run(g.ctx, g.redis, keys, args...).Text()
		switch {
		case g.ctx.Err() != nil:
			return nil, ErrClosed
		case err == nil && away:
			g.log.Info("Redis is back", "batch", b.number)
			fallthrough
		case err == nil:
			return g.counts(reply, len(b.keys))
		case !passing(err):
			return nil, fmt.Errorf("refused by Redis: %w", err)
		}
		if !away {
			away = true
			g.log.Warn("Redis is away; what was asked for is held until it is back", "error", err)
		}
		if !g.pause(wait.next()) {
			return nil, ErrClosed
		}
	}
}

// scriptInput is what commit.lua takes.
func (g *Gateway) scriptInput(b batch) (keys []string, args []any) {
	keys = []string{g.mark(), g.last()}
	args = []any{strconv.FormatInt(b.number, 10), g.keepSeconds(), g.channel(), g.id}
	for i, key := range b.keys {
		ops := b.ops[i]
		name, _ := json.Marshal(key) // a string always marshals
		keys = append(keys, key, g.awaited(key))
		if ops[0].add > 0 {
			var sum int64
			for _, o := range ops {
				sum += o.add
			}
			args = append(args, "+", name, strconv.FormatInt(sum, 10))
			continue
		}
		args = append(args, ">", name, strconv.Itoa(len(ops)))
		for _, o := range ops {
			args = append(args, []byte(o.payload))
		}
	}
	return keys, args
}

// counts reads the script's answer.
func (g *Gateway) counts(reply string, want int) ([]int64, error) {
	if reply == "lost" {
		g.fail(ErrDataLost)
		return nil, ErrDataLost
	}
	fields := strings.Split(reply, ",")
	counts := make([]int64, len(fields))
	for i, f := range fields {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("a batch was answered by Redis with %q, which is no list of counts", reply)
		}
		counts[i] = n
	}
	if len(counts) != want {
		return nil, fmt.Errorf("a batch of %d keys was answered by Redis with %d counts", want, len(counts))
	}
	return counts, nil
}

// passing is whether an error may go by itself: everything that isn't Redis saying no, and the noes of a Redis that
// starts, fails over or is busy.
func passing(err error) bool {
	if errors.Is(err, redis.ErrClosed) {
		return false
	}
	var no redis.Error
	if !errors.As(err, &no) || errors.Is(err, redis.Nil) {
		return !errors.Is(err, context.Canceled)
	}
	for _, prefix := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF", "UNKILLABLE"} {
		if strings.HasPrefix(no.Error(), prefix) {
			return true
		}
	}
	return false
}
