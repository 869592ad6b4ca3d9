// Package gateway is the sync service of a run: counters that instances signal and wait for, and logs that they publish
// to and read from the first item on. Clients speak JSON over WebSockets (the protocol of Testground's sync service),
// what they share is kept in Redis, and any number of gateways may serve one run from one Redis.
//
// Redis sees one client per gateway, whatever the number of instances:
//
//   - What clients signal and publish is gathered while the batch before is on its way, and applied by one script per
//     batch (commit.lua). It tells all gateways in one message which counts have come to what some gateway waits for,
//     and which logs have grown that some gateway reads; where nobody waits, nobody is told. A barrier of 10,000 clients
//     on 100 gateways is one message, not one per batch.
//   - Barriers and subscriptions wait in the gateway, which says in Redis what it waits for and reads how far that is in
//     one step (await.lua), and does so anew whenever it may have missed a message.
//   - A batch whose answer got lost is sent again under its number, and the script answers what it answered before:
//     nothing is lost or doubled while Redis is away.
package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	// ErrClosed is returned for what a closed gateway is asked for, or was still waiting for.
	ErrClosed = errors.New("the sync gateway was closed")
	// ErrReplaced says that another gateway of the same name has been started.
	ErrReplaced = errors.New("another sync gateway has taken this one's place")
	// ErrDataLost says that Redis no longer has the run's data. Counting on would start sequences over, so that the run
	// can't go on.
	ErrDataLost = errors.New("the data of this run is no longer in Redis (was it restarted without persistence, or emptied?)")
)

// Options says what a gateway serves.
type Options struct {
	Redis redis.UniversalClient
	// Run is the run's id: gateways with the same one share its data.
	Run string
	Log *slog.Logger // nil: says nothing
	// Observe is called after a client's publish or signal has been applied and before the client hears of it, in the
	// order of the log or counter. It must not block. May be nil.
	Observe func(Observation)
	// Name is this gateway's own among those of the run, and the same when it is started anew: what an earlier one of the
	// name had on its way to Redis is not applied any more then. Clients that come through a relay and are asked for again
	// what they had asked an earlier gateway rely on it. May be empty.
	Name string
	// Keep is how long Redis keeps what nobody touches; 0 means 7 days.
	Keep time.Duration
}

// Observation is what a client has done: published Payload to Topic, or signalled State.
type Observation struct {
	Client  string // Client.Name
	Space   string
	Topic   string          // empty for a signal
	State   string          // empty for a publish
	Payload json.RawMessage // not to be changed
	Seq     int64           // from 1, per topic or state
	// Again says that an earlier gateway had applied it already, before it went away: whether that one was told isn't known.
	Again bool
}

// Gateway serves the clients of one run.
type Gateway struct {
	redis   redis.UniversalClient
	id      string // unique per gateway, also across restarts
	prefix  string // of all keys of the run
	log     *slog.Logger
	observe func(Observation)
	keep    time.Duration

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // the gateway's own goroutines and its clients'

	commits commits
	reads   reads

	mu     sync.Mutex
	states map[string]*state // by Redis key
	topics map[string]*topic // by Redis key
	conns  map[*conn]struct{}
	// sessions are the connections of relays.
	sessions map[string]*conn
	// generation counts how often the channel was subscribed to: what is known from an earlier one may have missed a
	// message.
	generation int64
	failed     error // why nothing can go on
	closed     bool
}

// New reaches Redis and starts serving. Whoever has it closes it.
func New(o Options) (*Gateway, error) {
	if o.Redis == nil || o.Run == "" {
		return nil, errors.New("a sync gateway needs a Redis client and a run")
	}
	g := &Gateway{
		redis: o.Redis, id: rand.Text(), prefix: "groundplan:{" + url.QueryEscape(o.Run) + "}:",
		log: o.Log, observe: o.Observe, keep: o.Keep,
		states: map[string]*state{}, topics: map[string]*topic{}, conns: map[*conn]struct{}{},
		sessions: map[string]*conn{},
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.observe == nil {
		g.observe = func(Observation) {}
	}
	if g.keep == 0 {
		g.keep = 7 * 24 * time.Hour
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// The mark is what tells an emptied Redis from a fresh run.
	if err := g.redis.SetNX(ctx, g.mark(), time.Now().UTC().Format(time.RFC3339), g.keep).Err(); err != nil {
		return nil, fmt.Errorf("reaching Redis for run %s: %w", o.Run, err)
	}
	if err := g.fence(ctx, o.Name); err != nil {
		return nil, fmt.Errorf("taking over from an earlier gateway of run %s in Redis: %w", o.Run, err)
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.commits.init()
	g.reads.init()
	g.work.Go(g.commit)
	g.work.Go(g.listen)
	g.work.Go(g.read)
	return g, nil
}

// mark, last and channel are the keys that belong to no space.
func (g *Gateway) mark() string    { return g.prefix + "mark" }
func (g *Gateway) last() string    { return g.prefix + "gateway:" + g.id }
func (g *Gateway) channel() string { return g.prefix + "changes" }

// remembered is the key of what relays may ask for again: by session and number, what became of it.
func (g *Gateway) remembered() string { return g.prefix + "remembered" }

// awaited is the key of what is waited for at a counter or log: the counts of a counter, or anything for a log.
func (g *Gateway) awaited(key string) string {
	return g.prefix + "awaited:" + strings.TrimPrefix(key, g.prefix)
}

// keepSeconds is Options.Keep for a script.
func (g *Gateway) keepSeconds() string { return strconv.FormatInt(int64(g.keep/time.Second), 10) }

// admit takes in a client; false when the gateway is closed. Its goroutine says dismiss at its end.
func (g *Gateway) admit(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.conns[c] = struct{}{}
	g.work.Add(1)
	return true
}

func (g *Gateway) dismiss(c *conn) {
	g.mu.Lock()
	delete(g.conns, c)
	g.mu.Unlock()
	g.unsession(c)
	g.work.Done()
}

// Close disconnects every client and ends what waits with ErrClosed. The data stays in Redis for other gateways, or for
// the next one of this run.
func (g *Gateway) Close() error {
	g.fail(ErrClosed)
	g.mu.Lock()
	g.closed = true
	for c := range g.conns {
		c.stop()
	}
	g.mu.Unlock()
	g.cancel()
	g.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// Not deleted: it keeps a batch that is still held up on its way from being applied once more.
	_ = g.redis.Expire(ctx, g.last(), min(g.keep, time.Hour)).Err() // else it goes when its time is over
	return nil
}

// Forget deletes the run's data from Redis: for the one who knows that the run is over. Gateways of the run that are
// still there fail with ErrDataLost when they are asked for anything more.
func (g *Gateway) Forget(ctx context.Context) error {
	if n, err := g.number(ctx); err != nil {
		return err
	} else if n > 0 {
		if err := g.unclaim(ctx, n); err != nil {
			return err
		}
	}
	each := g.redis.Scan(ctx, 0, globEscape(g.prefix)+"*", 1000).Iterator()
	var keys []string
	for each.Next(ctx) {
		keys = append(keys, each.Val())
	}
	if err := each.Err(); err != nil {
		return fmt.Errorf("listing the run's keys in Redis: %w", err)
	}
	for len(keys) > 0 {
		n := min(len(keys), 1000)
		if err := g.redis.Unlink(ctx, keys[:n]...).Err(); err != nil {
			return fmt.Errorf("deleting the run's keys from Redis: %w", err)
		}
		keys = keys[n:]
	}
	return nil
}

func globEscape(s string) string {
	var b []byte
	for i := range len(s) {
		switch s[i] {
		case '*', '?', '[', ']', '\\', '^':
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(b)
}

// fail ends everything that waits, now and from now on. The first reason counts.
func (g *Gateway) fail(err error) {
	g.mu.Lock()
	if g.failed != nil {
		g.mu.Unlock()
		return
	}
	g.failed = err
	var ended []*waiter
	for _, s := range g.states {
		ended = append(ended, s.takeAll()...)
	}
	for _, t := range g.topics {
		t.wakeAll()
	}
	g.mu.Unlock()
	for _, w := range ended {
		w.done(err)
	}
	if !errors.Is(err, ErrClosed) {
		g.log.Error("the sync gateway can't go on", "error", err)
	}
}

// failure is why nothing can go on, nil while all is well.
func (g *Gateway) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed
}

// pause waits for d, and says whether the gateway is still open.
func (g *Gateway) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-g.ctx.Done():
		return false
	}
}

// backoff doubles from 5 ms to half a second: Redis that comes back is noticed within that.
type backoff time.Duration

func (b *backoff) next() time.Duration {
	d := max(time.Duration(*b), 5*time.Millisecond)
	*b = backoff(min(2*d, 500*time.Millisecond))
	return d
}
