package gateway

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
	// batchForgotten is how many fields are forgotten with a batch.
	batchForgotten = 1000
)

// op is a signal or a publish on its way to Redis.
type op struct {
	key string
	// add is how much a signal adds; 0 for a publish.
	add     int64
	payload json.RawMessage
	item    string // the payload as encodeItem made it
	// memory is the field under which it is remembered, and not done when it is there; empty: it is done.
	memory string
	// done is called once, on the goroutine that commits: with what came of it, or why it wasn't done.
	done func(d done, err error)
}

// counts is how much the op adds to its counter or log.
func (o *op) counts() int64 { return max(o.add, 1) }

// done is what came of an op.
type done struct {
	seq int64 // the count after it
	// again says that it was remembered, and told that it was this gateway that did it then.
	again, told bool
}

// commits are the operations that wait for the next batch.
type commits struct {
	mu      sync.Mutex
	waiting []op
	// forgotten are fields that need not be remembered any more.
	forgotten []string
	closed    bool
	wake      chan struct{}
}

func (c *commits) init() { c.wake = make(chan struct{}, 1) }

// add has o done with the next batch.
func (c *commits) add(o op) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		o.done(done{}, ErrClosed)
		return
	}
	c.waiting = append(c.waiting, o)
	c.mu.Unlock()
	c.rouse()
}

func (c *commits) take() (ops []op, forgotten []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ops, forgotten = c.waiting, c.forgotten
	c.waiting, c.forgotten = nil, nil
	return ops, forgotten
}

// forget has fields not remembered any more from the next batch on; many of them are a batch by themselves.
func (c *commits) forget(fields []string) {
	c.mu.Lock()
	c.forgotten = append(c.forgotten, fields...)
	many := len(c.forgotten) >= batchForgotten
	c.mu.Unlock()
	if many {
		c.rouse()
	}
}

func (c *commits) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// close returns what will not be committed any more.
func (c *commits) close() []op {
	rest, _ := c.take()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	rest = append(rest, c.waiting...)
	c.waiting = nil
	return rest
}

// batch is what one script call applies: the operations by key, in the order they came but what nobody remembers first.
type batch struct {
	number int64
	keys   []string
	ops    [][]op // of keys[i]
	// forgotten are fields that need not be remembered any more.
	forgotten []string
}

// cut makes a batch of the first operations and returns the others. None of a batch is asked for twice in it.
func cut(number int64, ops []op) (b batch, rest []op) {
	b.number = number
	index, memories := map[string]int{}, map[string]bool{}
	size := 0
	for n, o := range ops {
		if n >= batchOps || n > 0 && size+len(o.payload) > batchBytes || memories[o.memory] {
			rest = ops[n:]
			break
		}
		if o.memory != "" {
			memories[o.memory] = true
		}
		i, there := index[o.key]
		if !there {
			i = len(b.keys)
			index[o.key] = i
			b.keys, b.ops = append(b.keys, o.key), append(b.ops, nil)
		}
		b.ops[i] = append(b.ops[i], o)
		size += len(o.payload)
	}
	if len(memories) > 0 {
		for _, ops := range b.ops {
			slices.SortStableFunc(ops, func(x, y op) int { return cmp.Compare(min(1, len(x.memory)), min(1, len(y.memory))) })
		}
	}
	return b, rest
}

// remembered are the fields of a key's operations; those without come before them.
func remembered(ops []op) []string {
	var fields []string
	for _, o := range ops {
		if o.memory != "" {
			fields = append(fields, o.memory)
		}
	}
	return fields
}

// commit sends batch after batch until the gateway is closed.
func (g *Gateway) commit() {
	var number int64
	for {
		select {
		case <-g.commits.wake:
		case <-g.ctx.Done():
			for _, o := range g.commits.close() {
				o.done(done{}, ErrClosed)
			}
			return
		}
		rest, forgotten := g.commits.take()
		for len(rest) > 0 || len(forgotten) > 0 {
			number++
			var b batch
			b, rest = cut(number, rest)
			n := min(len(forgotten), batchForgotten)
			b.forgotten, forgotten = forgotten[:n], forgotten[n:]
			g.apply(b)
		}
	}
}

// apply brings a batch into Redis, however long that takes, and tells everybody here what came of it.
func (g *Gateway) apply(b batch) {
	result, err := g.send(b)
	if err != nil {
		for _, ops := range b.ops {
			for _, o := range ops {
				o.done(done{}, err)
			}
		}
		return
	}
	met := g.take(b, result)
	for i, ops := range b.ops {
		seq := result.counts[i]
		for _, o := range ops {
			if _, again := result.again[o.memory]; !again {
				seq -= o.counts()
			}
		}
		for _, o := range ops {
			d, again := result.again[o.memory]
			if !again {
				seq += o.counts()
				d = done{seq: seq}
			}
			o.done(d, nil)
		}
	}
	for _, w := range met {
		w.done(nil)
	}
}

// take brings the counts after a batch of our own into what is known here, and returns the waiters that are satisfied.
func (g *Gateway) take(b batch, r result) []*waiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	var met []*waiter
	for i, key := range b.keys {
		if b.ops[i][0].add > 0 {
			met = append(met, g.state(key).raise(r.counts[i])...)
			continue
		}
		t := g.topic(key)
		t.known = max(t.known, r.counts[i])
		if !t.wanted {
			continue
		}
		items := make([]string, 0, len(b.ops[i]))
		for _, o := range b.ops[i] {
			if _, again := r.again[o.memory]; !again {
				items = append(items, o.item)
			}
		}
		if !t.extend(r.counts[i]-int64(len(items)), items) {
			g.reads.addTopic(t) // others' items stand before ours
		}
	}
	return met
}

// result is what came of a batch.
type result struct {
	counts []int64 // after it, by key
	// again is, by memory, what had been done before.
	again map[string]done
}

// send runs the script until it has an answer.
func (g *Gateway) send(b batch) (result, error) {
	if err := g.failure(); err != nil {
		return result{}, err
	}
	keys, args := g.scriptInput(b)
	var wait backoff
	for away := false; ; {
		reply, err := commitScript.Run(g.ctx, g.redis, keys, args...).Text()
		switch {
		case g.ctx.Err() != nil:
			return result{}, ErrClosed
		case err == nil && away:
			g.log.Info("Redis is back", "batch", b.number)
			fallthrough
		case err == nil:
			return g.result(reply, b)
		case !passing(err):
			return result{}, fmt.Errorf("refused by Redis: %w", err)
		}
		if !away {
			away = true
			g.log.Warn("Redis is away; what was asked for is held until it is back", "error", err)
		}
		if !g.pause(wait.next()) {
			return result{}, ErrClosed
		}
	}
}

// scriptInput is what commit.lua takes.
func (g *Gateway) scriptInput(b batch) (keys []string, args []any) {
	keys = []string{g.mark(), g.last(), g.remembered()}
	args = []any{strconv.FormatInt(b.number, 10), g.keepSeconds(), g.channel(), g.id, strconv.Itoa(len(b.forgotten))}
	for _, field := range b.forgotten {
		args = append(args, field)
	}
	var fields []string
	for _, ops := range b.ops {
		fields = append(fields, remembered(ops)...)
	}
	args = append(args, strconv.Itoa(len(fields)))
	for _, field := range fields {
		args = append(args, field)
	}
	for i, key := range b.keys {
		ops := b.ops[i]
		name, _ := json.Marshal(key) // a string always marshals
		keys = append(keys, key, g.awaited(key))
		kind, m := ">", len(remembered(ops))
		var sum int64
		for _, o := range ops[:len(ops)-m] {
			sum += o.counts()
		}
		if ops[0].add > 0 {
			kind = "+"
		}
		args = append(args, kind, name, strconv.FormatInt(sum, 10), strconv.Itoa(m))
		for _, o := range ops {
			if kind == ">" {
				args = append(args, []byte(o.payload))
			}
		}
	}
	return keys, args
}

// result reads the script's answer.
func (g *Gateway) result(reply string, b batch) (result, error) {
	switch reply {
	case "lost":
		g.fail(ErrDataLost)
		return result{}, ErrDataLost
	case "late":
		g.fail(ErrReplaced)
		return result{}, ErrReplaced
	}
	strange := fmt.Errorf("a batch of %d keys was answered by Redis with %q, which is no list of their counts", len(b.keys), reply)
	counts, again, _ := strings.Cut(reply, "|")
	var r result
	for field := range strings.SplitSeq(counts, ",") {
		if counts == "" {
			break
		}
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return r, strange
		}
		r.counts = append(r.counts, n)
	}
	if len(r.counts) != len(b.keys) {
		return r, strange
	}
	if again == "" {
		return r, nil
	}
	var fields []string
	for _, ops := range b.ops {
		fields = append(fields, remembered(ops)...)
	}
	r.again = make(map[string]done)
	for each := range strings.SplitSeq(again, ",") {
		var at, seq int64
		var by string
		if n, err := fmt.Sscanf(each, "%d=%d %s", &at, &seq, &by); n != 3 || err != nil || at < 1 || at > int64(len(fields)) {
			return r, strange
		}
		r.again[fields[at-1]] = done{seq: seq, again: true, told: by == g.id}
	}
	return r, nil
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
