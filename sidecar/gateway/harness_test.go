package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// open starts a gateway of a run on a Redis, for as long as the test takes.
func open(t testing.TB, r redis.UniversalClient, run string, change ...func(*Options)) *Gateway {
	t.Helper()
	o := Options{Redis: r, Run: run}
	for _, f := range change {
		f(&o)
	}
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

func embedded(t testing.TB) *redis.Client {
	t.Helper()
	r, stop, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop() })
	return r
}

// listenOn serves a gateway's space "s" over HTTP and returns the URL.
func listenOn(t testing.TB, g *Gateway) string {
	t.Helper()
	space := g.Space("s")
	server := httptest.NewServer(g.Handler(func(remote netip.AddrPort) (Client, bool) {
		return Client{Name: remote.String(), Space: space}, true
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "http", "ws", 1)
}

// reply is what a client reads; pointers tell null from a value.
type reply struct {
	ID      *string `json:"id"`
	Error   *string `json:"error"`
	Publish *struct {
		Seq int64 `json:"seq"`
	} `json:"publish"`
	Subscribe *string `json:"subscribe"`
	Signal    *struct {
		Seq int64 `json:"seq"`
	} `json:"signal_entry"`
}

// client is a plain client: requests out, replies sorted by id.
type client struct {
	t    testing.TB
	ws   *websocket.Conn
	mu   sync.Mutex
	next int
	byID map[string]chan reply
	done chan struct{}
	err  error // why reading ended
}

func dial(t testing.TB, url string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ws, response, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response // of an upgrade: has no body
	if !strings.Contains(url, "frame=") {
		ws.SetReadLimit(plainFrame)
	} else {
		ws.SetReadLimit(-1)
	}
	c := &client{t: t, ws: ws, byID: map[string]chan reply{}, done: make(chan struct{})}
	go c.read()
	t.Cleanup(func() { _ = ws.CloseNow(); <-c.done })
	return c
}

func (c *client) read() {
	defer close(c.done)
	for {
		_, frame, err := c.ws.Read(context.Background())
		if err != nil {
			c.err = err
			return
		}
		var r reply
		if err := json.Unmarshal(frame, &r); err != nil || r.ID == nil || r.Error == nil || r.Subscribe == nil {
			c.t.Errorf("a reply that clients can't read: %s (%v)", frame, err)
			continue
		}
		c.replies(*r.ID) <- r
	}
}

func (c *client) replies(id string) chan reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[id] == nil {
		c.byID[id] = make(chan reply, 5000)
	}
	return c.byID[id]
}

// ask sends a request with the given body and returns its id.
func (c *client) ask(body string) string {
	c.mu.Lock()
	id := fmt.Sprint(c.next)
	c.next++
	c.mu.Unlock()
	c.send(websocket.MessageText, `{"id":"`+id+`","is_cancel":false,`+body+`}`)
	return id
}

func (c *client) send(kind websocket.MessageType, frame string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.ws.Write(ctx, kind, []byte(frame)); err != nil {
		c.t.Errorf("writing a request: %v", err)
	}
}

// get waits for the next reply to a request.
func (c *client) get(id string) reply {
	select {
	case r := <-c.replies(id):
		return r
	case <-time.After(patienceOfTests):
		c.t.Errorf("no reply to request %s", id)
		return reply{}
	case <-c.done:
		select {
		case r := <-c.replies(id):
			return r
		default:
		}
		c.t.Errorf("no reply to request %s: %v", id, c.err)
		return reply{}
	}
}

// none checks that nothing is there for a request.
func (c *client) none(id string) {
	c.t.Helper()
	select {
	case r := <-c.replies(id):
		c.t.Errorf("request %s has an unexpected reply: %+v", id, r)
	case <-time.After(30 * time.Millisecond):
	}
}

const patienceOfTests = 30 * time.Second

func (c *client) publish(topic, payload string) int64 {
	r := c.get(c.ask(`"publish":{"topic":"` + topic + `","payload":` + payload + `}`))
	if r.Publish == nil {
		c.t.Errorf("publish on %s: %s", topic, errorOf(r))
		return 0
	}
	return r.Publish.Seq
}

func (c *client) signal(state string) int64 {
	r := c.get(c.ask(`"signal_entry":{"state":"` + state + `"}`))
	if r.Signal == nil {
		c.t.Errorf("signal %s: %s", state, errorOf(r))
		return 0
	}
	return r.Signal.Seq
}

func (c *client) barrier(state string, target int) string {
	return c.ask(fmt.Sprintf(`"barrier":{"state":%q,"target":%d}`, state, target))
}

func (c *client) subscribe(topic string) string {
	return c.ask(`"subscribe":{"topic":"` + topic + `"}`)
}

func errorOf(r reply) string {
	if r.Error == nil {
		return "no reply"
	}
	return *r.Error
}

// passed checks that a barrier let go.
func (c *client) passed(id string) {
	c.t.Helper()
	if r := c.get(id); errorOf(r) != "" || r.Publish != nil || r.Signal != nil {
		c.t.Errorf("barrier %s: %+v %s", id, r, errorOf(r))
	}
}

// cutter is a proxy to Redis that can be cut.
type cutter struct {
	listener net.Listener
	backend  func() (net.Conn, error)
	mu       sync.Mutex
	away     bool
	conns    map[net.Conn]struct{}
	// swallow, when set, lets a batch through to Redis and drops the connection before the answer.
	swallow bool
	work    sync.WaitGroup
}

func cuttable(t testing.TB, backend func() (net.Conn, error)) (*cutter, *redis.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, backend: backend, conns: map[net.Conn]struct{}{}}
	c.work.Go(c.accept)
	r := redis.NewClient(&redis.Options{Addr: l.Addr().String(), Protocol: 2, MaxRetries: -1})
	t.Cleanup(func() {
		_ = r.Close()
		_ = l.Close()
		c.cut()
		c.work.Wait()
	})
	return c, r
}

func (c *cutter) accept() {
	for {
		in, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		away := c.away
		c.mu.Unlock()
		out, err := c.backend()
		if away || err != nil {
			_ = in.Close()
			if out != nil {
				_ = out.Close()
			}
			continue
		}
		c.mu.Lock()
		c.conns[in], c.conns[out] = struct{}{}, struct{}{}
		c.mu.Unlock()
		c.work.Go(func() { c.pass(in, out, false) })
		c.work.Go(func() { c.pass(out, in, true) })
	}
}

func (c *cutter) pass(from, to net.Conn, answers bool) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		drop := answers && c.swallow && buf[0] == '$' // a script's answer, not a subscription's message
		if drop {
			c.swallow = false
		}
		c.mu.Unlock()
		if drop {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut ends every connection and refuses new ones until mend.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = true
	for conn := range c.conns {
		_ = conn.Close()
	}
	clear(c.conns)
}

func (c *cutter) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = false
}

func (c *cutter) swallowOne() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.swallow = true
}

// heavy skips what takes long under -short.
func heavy(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds and a thousand connections: left out of short tests")
	}
}
