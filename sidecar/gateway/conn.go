package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/coder/websocket"
)

const (
	// patience is how many replies may wait for a client before no more of its requests are read.
	patience = 4096
	// round is how many bytes of a subscription are written before replies and other subscriptions have their turn.
	round = 64 << 10
)

// conn is a client's connection. One goroutine reads and starts what is asked for; one writes. What a client is behind
// with costs no more than a number: a subscription is a place in the topic's log, which all subscribers share.
type conn struct {
	g      *Gateway
	client Client
	ws     *websocket.Conn
	cork   *cork
	frame  int // the largest that the client reads, in bytes
	// session is that of the client's relay; empty where there is none.
	session string
	ctx     context.Context
	stop    context.CancelFunc

	// wake tells the writer that there is something to write; drained tells the reader that replies were taken.
	wake    chan struct{}
	drained chan struct{}
	// heard is closed when nothing more is read.
	heard chan struct{}

	mu       sync.Mutex
	replies  [][]byte
	streams  []*stream
	barriers map[string]*barrier
}

// barrier is one that a client waits for; its waiter is nil while being set up.
type barrier struct {
	to     asked
	waiter *waiter
}

// stream is a subscription of a client. Only the writer moves it.
type stream struct {
	to      asked
	watcher *watcher
	next    int // the item to write next, from 0
}

func (g *Gateway) serve(ws *websocket.Conn, k *cork, client Client, frame int, session string) {
	c := &conn{
		g: g, client: client, ws: ws, cork: k, frame: frame, session: session,
		wake: make(chan struct{}, 1), drained: make(chan struct{}, 1), heard: make(chan struct{}), barriers: map[string]*barrier{},
	}
	c.ctx, c.stop = context.WithCancel(g.ctx)
	defer c.stop()
	if !g.admit(c) {
		_ = ws.Close(websocket.StatusGoingAway, "the gateway is closed")
		return
	}
	defer g.dismiss(c)
	g.supersede(c)
	var writer sync.WaitGroup
	writer.Go(c.write)
	// Without a context: one that ends would close the connection with no word of why.
	ended := context.AfterFunc(c.ctx, func() { _ = ws.CloseNow() })
	defer ended()
	ws.SetReadLimit(int64(max(requestLimit, frame) + longestHead))
	err := c.read()
	close(c.heard)
	c.stop()
	writer.Wait()
	_ = ws.CloseNow()
	c.leave()
	if s := websocket.CloseStatus(err); s != websocket.StatusNormalClosure && s != websocket.StatusGoingAway && g.ctx.Err() == nil {
		g.log.Debug("a client of the sync gateway went without a goodbye", "client", client.Name, "error", err)
	}
}

// leave withdraws what the client waits for.
func (c *conn) leave() {
	c.mu.Lock()
	streams, barriers := c.streams, c.barriers
	c.streams, c.barriers = nil, nil
	c.mu.Unlock()
	for _, s := range streams {
		c.g.unwatch(s.watcher)
	}
	for _, b := range barriers {
		if b.waiter != nil {
			c.g.withdraw(b.waiter)
		}
	}
}

// read starts what the client asks for, until the connection ends.
func (c *conn) read() error {
	var frame bytes.Buffer
	for {
		_, r, err := c.ws.Reader(context.Background())
		if err != nil {
			return err
		}
		frame.Reset()
		if _, err := frame.ReadFrom(r); err != nil {
			return err
		}
		if err := c.take(frame.Bytes()); err != nil {
			return err
		}
		if frame.Cap() > 64<<10 {
			frame = bytes.Buffer{}
		}
		if err := c.wait(); err != nil {
			return err
		}
	}
}

// take takes in one message: a request, or what a relay makes of it.
func (c *conn) take(message []byte) error {
	of := relayed{request: message}
	if c.session != "" {
		var err error
		if of, err = readHead(message); err != nil {
			return err
		}
		c.g.forget(c, of.arrived)
		if len(of.request) == 0 {
			return nil
		}
	}
	request, err := decodeRequest(of.request)
	to := asked{request.ID, of.n}
	if err != nil {
		c.fail(to, err)
		return nil
	}
	c.handle(to, &request, of.delivered)
	return nil
}

// wait holds the reader back while too many replies wait.
func (c *conn) wait() error {
	for {
		c.mu.Lock()
		waiting := len(c.replies)
		c.mu.Unlock()
		if waiting < patience {
			return nil
		}
		select {
		case <-c.drained:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

func (c *conn) handle(to asked, r *request, delivered int) {
	switch {
	case r.Cancel:
		c.cancel(to)
	case r.Publish != nil:
		c.publish(to, r.Publish)
	case r.Signal != nil:
		c.signal(to, r.Signal.State)
	case r.Barrier != nil:
		c.barrier(to, r.Barrier)
	case r.Subscribe != nil:
		c.subscribe(to, r.Subscribe.Topic, delivered)
	}
}

// fail replies with an error. A relay hears nothing of a gateway that is closed: it asks the next one.
func (c *conn) fail(to asked, err error) {
	if c.session != "" && (errors.Is(err, ErrClosed) || errors.Is(err, ErrReplaced)) {
		c.stop()
		return
	}
	c.reply(appendFailed(c.head(to, markLast), to.id, err))
}

func (c *conn) publish(to asked, r *publishRequest) {
	item := encodeItem(r.Payload)
	if size := frameSize(item); size > c.frame {
		c.fail(to, fmt.Errorf("the payload for topic %s takes %d bytes in a frame, as a string of JSON; "+
			"subscribers read at most %d", r.Topic, size, c.frame))
		return
	}
	space := c.client.Space
	o := op{key: space.logs + r.Topic, payload: r.Payload, item: item, memory: c.memory(to)}
	o.done = func(d done, err error) {
		if err != nil {
			c.fail(to, fmt.Errorf("publishing on %s: %w", r.Topic, err))
			return
		}
		c.observe(Observation{Space: space.name, Topic: r.Topic, Payload: r.Payload}, d)
		c.reply(appendPublished(c.head(to, markRemembered), to.id, d.seq))
	}
	c.g.commits.add(o)
}

func (c *conn) signal(to asked, state string) {
	space := c.client.Space
	c.g.commits.add(op{key: space.counters + state, add: 1, memory: c.memory(to), done: func(d done, err error) {
		if err != nil {
			c.fail(to, fmt.Errorf("signalling %s: %w", state, err))
			return
		}
		c.observe(Observation{Space: space.name, State: state}, d)
		c.reply(appendSignalled(c.head(to, markRemembered), to.id, d.seq))
	}})
}

// observe tells of what the client has done, unless this gateway has told already.
func (c *conn) observe(o Observation, d done) {
	if !d.told {
		o.Client, o.Seq, o.Again = c.client.Name, d.seq, d.again
		c.g.observe(o)
	}
}

func (c *conn) barrier(to asked, r *barrierRequest) {
	if r.Target <= 0 {
		c.reply(appendReply(c.head(to, markLast), to.id, barrierRest))
		return
	}
	if !c.claim(to) {
		return
	}
	w := c.g.wait(c.client.Space.counters+r.State, r.Target, func(err error) {
		c.mu.Lock()
		delete(c.barriers, to.id)
		c.mu.Unlock()
		if err != nil {
			c.fail(to, fmt.Errorf("waiting for %s to reach %d: %w", r.State, r.Target, err))
			return
		}
		c.reply(appendReply(c.head(to, markLast), to.id, barrierRest))
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, waits := c.barriers[to.id]; waits && w != nil {
		b.waiter = w
	}
}

// subscribe begins a subscription, of which that many items were delivered already.
func (c *conn) subscribe(to asked, topic string, delivered int) {
	if !c.claim(to) {
		return
	}
	w, err := c.g.watch(c.client.Space.logs+topic, c.wake)
	c.mu.Lock()
	delete(c.barriers, to.id)
	if err == nil {
		c.streams = append(c.streams, &stream{to: to, watcher: w, next: delivered})
	}
	c.mu.Unlock()
	if err != nil {
		c.fail(to, fmt.Errorf("subscribing to %s: %w", topic, err))
		return
	}
	c.rouse() // for the items that are there already
}

// claim takes an id for a barrier or subscription; one that is in use gets an error.
func (c *conn) claim(to asked) bool {
	c.mu.Lock()
	_, used := c.barriers[to.id]
	for _, s := range c.streams {
		used = used || s.to.id == to.id
	}
	if !used {
		c.barriers[to.id] = &barrier{to: to}
	}
	c.mu.Unlock()
	if used {
		c.fail(to, errors.New("the request's id is that of a barrier or subscription that is still on"))
	}
	return !used
}

// cancel ends the barrier or subscription of that id. The client gets no reply, but its relay is to know that what was
// open isn't any more.
func (c *conn) cancel(to asked) {
	was, ended := c.end(to.id)
	if c.session == "" {
		return
	}
	if ended {
		c.reply(c.head(was, markLast))
	}
	c.reply(c.head(to, markLast))
}

// end ends the barrier or subscription of that id, if it is still on.
func (c *conn) end(id string) (was asked, ended bool) {
	c.mu.Lock()
	b := c.barriers[id]
	delete(c.barriers, id)
	var s *stream
	for i, each := range c.streams {
		if each.to.id == id {
			s = each
			// A new slice: the writer may be going through the old one.
			c.streams = append(append([]*stream{}, c.streams[:i]...), c.streams[i+1:]...)
			break
		}
	}
	c.mu.Unlock()
	if s != nil {
		c.g.unwatch(s.watcher)
		return s.to, true
	}
	if b == nil {
		return asked{}, false
	}
	if b.waiter != nil {
		c.g.withdraw(b.waiter)
	}
	return b.to, true
}

// reply queues a frame.
func (c *conn) reply(frame []byte) {
	c.mu.Lock()
	c.replies = append(c.replies, frame)
	c.mu.Unlock()
	c.rouse()
}

func (c *conn) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write sends what is there to send, until the connection ends.
func (c *conn) write() {
	defer c.stop()
	var replies [][]byte
	var scratch []byte
	for {
		select {
		case <-c.wake:
		case <-c.ctx.Done():
			return
		}
		for more := true; more; {
			c.mu.Lock()
			replies, c.replies = c.replies, replies[:0]
			streams := c.streams
			c.mu.Unlock()
			more = len(replies) > 0
			c.cork.hold()
			for i, frame := range replies {
				c.send(frame)
				replies[i] = nil
			}
			for _, s := range streams {
				var wrote bool
				scratch, wrote = c.advance(s, scratch)
				more = more || wrote
			}
			if c.cork.release() != nil {
				return
			}
			select {
			case c.drained <- struct{}{}:
			default:
			}
		}
	}
}

// advance writes a subscription's next items, a round's worth.
func (c *conn) advance(s *stream, scratch []byte) (_ []byte, wrote bool) {
	log := s.watcher.topic.log()
	if s.next >= len(log) {
		if err := c.g.failure(); err != nil {
			c.end(s.to.id)
			c.fail(s.to, err)
		}
		return scratch, false
	}
	for size := 0; s.next < len(log) && size < round; s.next++ {
		item := log[s.next]
		if frameSize(item) > c.frame {
			c.end(s.to.id)
			c.send(appendFailed(c.head(s.to, markLast), s.to.id, fmt.Errorf("item %d of the topic takes %d bytes in a frame; this client reads at most %d",
				s.next+1, frameSize(item), c.frame)))
			return scratch, true
		}
		scratch = appendReply(c.appendHead(scratch[:0], s.to, markItem), s.to.id, item)
		c.send(scratch)
		size += len(scratch)
	}
	if cap(scratch) > 2*round {
		scratch = nil
	}
	return scratch, true
}

// send hands a frame to the corked connection; a failure shows when the cork is released.
func (c *conn) send(frame []byte) {
	_ = c.ws.Write(context.Background(), websocket.MessageText, frame)
}
