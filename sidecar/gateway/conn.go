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
	ctx    context.Context
	stop   context.CancelFunc

	// wake tells the writer that there is something to write; drained tells the reader that replies were taken.
	wake    chan struct{}
	drained chan struct{}

	mu       sync.Mutex
	replies  [][]byte
	streams  []*stream
	barriers map[string]*waiter // nil while being set up
}

// stream is a subscription of a client. Only the writer moves it.
type stream struct {
	id      string
	watcher *watcher
	next    int // the item to write next, from 0
}

func (g *Gateway) serve(ws *websocket.Conn, k *cork, client Client, frame int) {
	c := &conn{
		g: g, client: client, ws: ws, cork: k, frame: frame,
		wake: make(chan struct{}, 1), drained: make(chan struct{}, 1), barriers: map[string]*waiter{},
	}
	c.ctx, c.stop = context.WithCancel(g.ctx)
	defer c.stop()
	if !g.admit(c) {
		_ = ws.Close(websocket.StatusGoingAway, "the gateway is closed")
		return
	}
	defer g.dismiss(c)
	var writer sync.WaitGroup
	writer.Go(c.write)
	// Without a context: one that ends would close the connection with no word of why.
	ended := context.AfterFunc(c.ctx, func() { _ = ws.CloseNow() })
	defer ended()
	ws.SetReadLimit(int64(max(requestLimit, frame)))
	err := c.read()
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
	for _, w := range barriers {
		if w != nil {
			c.g.withdraw(w)
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
		request, err := decodeRequest(frame.Bytes())
		if frame.Cap() > 64<<10 {
			frame = bytes.Buffer{}
		}
		if err != nil {
			c.reply(appendFailed(nil, request.ID, err))
		} else {
			c.handle(&request)
		}
		if err := c.wait(); err != nil {
			return err
		}
	}
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

func (c *conn) handle(r *request) {
	switch {
	case r.Cancel:
		c.end(r.ID)
	case r.Publish != nil:
		c.publish(r.ID, r.Publish)
	case r.Signal != nil:
		c.signal(r.ID, r.Signal.State)
	case r.Barrier != nil:
		c.barrier(r.ID, r.Barrier)
	case r.Subscribe != nil:
		c.subscribe(r.ID, r.Subscribe.Topic)
	}
}

func (c *conn) publish(id string, r *publishRequest) {
	item := encodeItem(r.Payload)
	if size := frameSize(item); size > c.frame {
		c.reply(appendFailed(nil, id, fmt.Errorf("the payload for topic %s takes %d bytes in a frame, as a string of JSON; "+
			"subscribers read at most %d", r.Topic, size, c.frame)))
		return
	}
	space := c.client.Space
	c.g.commits.add(op{key: space.logs + r.Topic, payload: r.Payload, item: item, done: func(seq int64, err error) {
		if err != nil {
			c.reply(appendFailed(nil, id, fmt.Errorf("publishing on %s: %w", r.Topic, err)))
			return
		}
		c.g.observe(Observation{Client: c.client.Name, Space: space.name, Topic: r.Topic, Payload: r.Payload, Seq: seq})
		c.reply(appendPublished(nil, id, seq))
	}})
}

func (c *conn) signal(id, state string) {
	space := c.client.Space
	c.g.commits.add(op{key: space.counters + state, add: 1, done: func(seq int64, err error) {
		if err != nil {
			c.reply(appendFailed(nil, id, fmt.Errorf("signalling %s: %w", state, err)))
			return
		}
		c.g.observe(Observation{Client: c.client.Name, Space: space.name, State: state, Seq: seq})
		c.reply(appendSignalled(nil, id, seq))
	}})
}

func (c *conn) barrier(id string, r *barrierRequest) {
	if r.Target <= 0 {
		c.reply(appendReply(nil, id, barrierRest))
		return
	}
	if !c.claim(id) {
		return
	}
	w := c.g.wait(c.client.Space.counters+r.State, r.Target, func(err error) {
		c.mu.Lock()
		delete(c.barriers, id)
		c.mu.Unlock()
		if err != nil {
			c.reply(appendFailed(nil, id, fmt.Errorf("waiting for %s to reach %d: %w", r.State, r.Target, err)))
			return
		}
		c.reply(appendReply(nil, id, barrierRest))
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, waits := c.barriers[id]; waits && w != nil {
		c.barriers[id] = w
	}
}

func (c *conn) subscribe(id, topic string) {
	if !c.claim(id) {
		return
	}
	w, err := c.g.watch(c.client.Space.logs+topic, c.wake)
	c.mu.Lock()
	delete(c.barriers, id)
	if err == nil {
		c.streams = append(c.streams, &stream{id: id, watcher: w})
	}
	c.mu.Unlock()
	if err != nil {
		c.reply(appendFailed(nil, id, fmt.Errorf("subscribing to %s: %w", topic, err)))
		return
	}
	c.rouse() // for the items that are there already
}

// claim takes an id for a barrier or subscription; one that is in use gets an error.
func (c *conn) claim(id string) bool {
	c.mu.Lock()
	_, used := c.barriers[id]
	for _, s := range c.streams {
		used = used || s.id == id
	}
	if !used {
		c.barriers[id] = nil
	}
	c.mu.Unlock()
	if used {
		c.reply(appendFailed(nil, id, errors.New("the request's id is that of a barrier or subscription that is still on")))
	}
	return !used
}

// end ends the barrier or subscription of that id, if it is still on. There is no reply.
func (c *conn) end(id string) {
	c.mu.Lock()
	w := c.barriers[id]
	delete(c.barriers, id)
	var ended *stream
	for i, s := range c.streams {
		if s.id == id {
			ended = s
			// A new slice: the writer may be going through the old one.
			c.streams = append(append([]*stream{}, c.streams[:i]...), c.streams[i+1:]...)
			break
		}
	}
	c.mu.Unlock()
	if w != nil {
		c.g.withdraw(w)
	}
	if ended != nil {
		c.g.unwatch(ended.watcher)
	}
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
	if s.next == len(log) {
		if err := c.g.failure(); err != nil {
			c.end(s.id)
			c.send(appendFailed(nil, s.id, err))
		}
		return scratch, false
	}
	for size := 0; s.next < len(log) && size < round; s.next++ {
		item := log[s.next]
		if frameSize(item) > c.frame {
			c.end(s.id)
			c.send(appendFailed(nil, s.id, fmt.Errorf("item %d of the topic takes %d bytes in a frame; this client reads at most %d",
				s.next+1, frameSize(item), c.frame)))
			return scratch, true
		}
		scratch = appendReply(scratch[:0], s.id, item)
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
