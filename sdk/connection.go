package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// ErrUnanswered is in the error of a signal or publish whose answer was lost with the connection: whether it was done is
// not known, and doing it again might do it twice.
var ErrUnanswered = errors.New("the connection to the sync service broke before it answered; it may have been done or not")

// ErrUnreachable is in the error of everything once the sync service couldn't be reached for a minute.
var ErrUnreachable = errors.New("the sync service can't be reached")

// errNoBody is a reply without what was asked for.
var errNoBody = errors.New("the sync service's reply has no sequence number")

// errClosed ends what still waits when the run is over.
var errClosed = errors.New("the run is over")

const (
	// frame is the largest message that is read, in bytes; the service is told when connecting.
	frame = 16 << 20
	// reachIn is how long reaching the service is tried.
	reachIn = time.Minute
)

// connection is to the sync service. It is made again when it breaks: barriers and subscriptions go on as if nothing
// had happened.
type connection struct {
	url    string
	reach  time.Duration
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	next atomic.Int64 // id of a request

	mu sync.Mutex
	// calls are the requests that something is still expected for, by id.
	calls map[string]*call
	ws    *websocket.Conn // nil while there is none
	up    chan struct{}   // closed while there is one
	ended error           // why there will be none any more

	writing sync.Mutex
}

// call is a request and who waits for its replies.
type call struct {
	message []byte
	// again is whether it can be asked again over a new connection; sent whether it went out over the present one.
	again bool
	sent  bool
	// take is called with each reply, or once with an error, by one goroutine at a time. It must not block. It says
	// whether more is expected.
	take func(reply, error) (more bool)
	// renew is called before it is asked again.
	renew func()
}

func connect(address string, reach time.Duration) *connection {
	c := &connection{
		url:   "ws://" + address + "/?frame=" + strconv.Itoa(frame),
		reach: reach,
		calls: map[string]*call{}, up: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.work.Go(c.run)
	return c
}

// close ends everything that waits.
func (c *connection) close() {
	c.mu.Lock()
	ws := c.ws
	c.mu.Unlock()
	if ws != nil {
		_ = ws.Close(websocket.StatusNormalClosure, "")
	}
	c.cancel()
	c.work.Wait()
	c.end(errClosed)
}

// run keeps a connection until close, or until there is none to be had.
func (c *connection) run() {
	for c.ctx.Err() == nil {
		ws, err := c.dial()
		if err != nil {
			if c.ctx.Err() == nil {
				c.end(err)
			}
			return
		}
		c.established(ws)
		c.read(ws)
		c.broken(ws)
	}
}

// dial tries until it has a connection, the service refuses, or the time for it is over.
func (c *connection) dial() (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.reach)
	defer cancel()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		attempt, done := context.WithTimeout(ctx, 10*time.Second)
		ws, response, err := websocket.Dial(attempt, c.url, nil) //nolint:bodyclose // the library closes it
		done()
		if err == nil {
			ws.SetReadLimit(frame)
			return ws, nil
		}
		if response != nil && response.StatusCode >= 400 && response.StatusCode < 500 && response.StatusCode != http.StatusTooManyRequests {
			return nil, fmt.Errorf("the sync service at %s refuses this instance: %w", c.url, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, c.url, err)
		}
	}
}

// established asks again what was asked before.
func (c *connection) established(ws *websocket.Conn) {
	c.mu.Lock()
	c.ws = ws
	close(c.up)
	var messages [][]byte
	for _, k := range c.calls {
		if k.again && !k.sent {
			k.sent = true
			k.renew()
			messages = append(messages, k.message)
		}
	}
	c.mu.Unlock()
	for _, m := range messages {
		c.write(ws, m)
	}
}

// broken fails what can't be asked again.
func (c *connection) broken(ws *websocket.Conn) {
	_ = ws.CloseNow()
	c.mu.Lock()
	c.ws = nil
	c.up = make(chan struct{})
	var lost []*call
	for id, k := range c.calls {
		if k.sent && !k.again {
			delete(c.calls, id)
			lost = append(lost, k)
		}
		k.sent = false
	}
	c.mu.Unlock()
	for _, k := range lost {
		k.take(reply{}, ErrUnanswered)
	}
}

func (c *connection) read(ws *websocket.Conn) {
	defer context.AfterFunc(c.ctx, func() { _ = ws.CloseNow() })()
	for {
		// Without a context: one that ends would break the connection.
		_, message, err := ws.Read(context.Background())
		if err != nil {
			return
		}
		var r reply
		if json.Unmarshal(message, &r) != nil {
			return // not the protocol: another connection may do better, or none
		}
		c.mu.Lock()
		k := c.calls[r.ID]
		c.mu.Unlock()
		if k == nil {
			continue // was given up
		}
		if !k.take(r, nil) {
			c.forget(r.ID)
		}
	}
}

func (c *connection) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
}

// end fails everything, now and from now on.
func (c *connection) end(err error) {
	c.mu.Lock()
	if c.ended == nil {
		c.ended = err
	}
	calls := c.calls
	c.calls = map[string]*call{}
	select {
	case <-c.up:
	default:
		close(c.up)
	}
	c.mu.Unlock()
	for _, k := range calls {
		k.take(reply{}, err)
	}
}

// start sends a request and returns its id. It waits for a connection at most as long as ctx.
func (c *connection) start(ctx context.Context, r request, k *call) (string, error) {
	r.ID = strconv.FormatInt(c.next.Add(1)-1, 10)
	var err error
	if k.message, err = encode(r); err != nil {
		return "", err
	}
	for {
		c.mu.Lock()
		ws, up, ended := c.ws, c.up, c.ended
		if ended == nil && ws != nil {
			k.sent = true
			c.calls[r.ID] = k
		}
		c.mu.Unlock()
		switch {
		case ended != nil:
			return "", ended
		case ws != nil:
			c.write(ws, k.message)
			return r.ID, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// giveUp forgets a call; a barrier or subscription is cancelled at the service too.
func (c *connection) giveUp(id string, cancel bool) {
	c.mu.Lock()
	_, there := c.calls[id]
	delete(c.calls, id)
	ws := c.ws
	c.mu.Unlock()
	if there && cancel && ws != nil {
		message, _ := json.Marshal(request{ID: id, Cancel: true}) // always marshals
		c.write(ws, message)
	}
}

// write sends a message. A failure breaks the connection, and its reader finds out.
func (c *connection) write(ws *websocket.Conn, message []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if ws.Write(ctx, websocket.MessageText, message) != nil {
		_ = ws.CloseNow()
	}
}

// ask sends a request that has one reply, and waits for it.
func (c *connection) ask(ctx context.Context, r request, again bool) (reply, error) {
	type answer struct {
		reply reply
		err   error
	}
	answers := make(chan answer, 1)
	id, err := c.start(ctx, r, &call{
		again: again, renew: func() {},
		take: func(r reply, err error) bool {
			if err == nil && r.Error != "" {
				err = errors.New(r.Error)
			}
			select {
			case answers <- answer{r, err}:
			default: // has its answer
			}
			return false
		},
	})
	if err != nil {
		return reply{}, err
	}
	select {
	case a := <-answers:
		return a.reply, a.err
	case <-ctx.Done():
		c.giveUp(id, again)
		return reply{}, context.Cause(ctx)
	}
}
