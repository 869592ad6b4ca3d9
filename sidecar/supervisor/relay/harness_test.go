package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/sidecar/gateway"
)

// A process with this variable is a gateway: on the socket that it names, over the Redis of the other one.
const (
	socketVariable = "GROUNDPLAN_TEST_SOCKET"
	redisVariable  = "GROUNDPLAN_TEST_REDIS"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketVariable); socket != "" {
		fmt.Println(serveGateway(socket, redis.NewClient(&redis.Options{Addr: os.Getenv(redisVariable), Protocol: 2})))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func serveGateway(socket string, r *redis.Client) error {
	g, err := gateway.New(gateway.Options{Redis: r, Run: "r", Name: "node"})
	if err != nil {
		return err
	}
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	space := g.Space("s")
	return http.Serve(l, g.Handler(func(netip.AddrPort) (gateway.Client, bool) { return gateway.Client{Name: "g/0", Space: space}, true }))
}

// world is a relay, a Redis, and a gateway that is killed now and then.
type world struct {
	t      *testing.T
	socket string
	redis  *miniredis.Miniredis
	url    string

	mu      sync.Mutex
	gateway *exec.Cmd
}

func newWorld(t *testing.T) *world {
	dir, err := os.MkdirTemp("", "relay") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, socket: filepath.Join(dir, "sync.sock"), redis: miniredis.NewMiniRedis()}
	if err := w.redis.Start(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "ws://" + l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- (&Relay{Socket: w.socket, Log: t.Logf}).Serve(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		w.kill()
		if err := <-served; err != nil {
			t.Error(err)
		}
		w.redis.Close()
		_ = os.RemoveAll(dir)
	})
	return w
}

// start starts a gateway.
func (w *world) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), socketVariable+"="+w.socket, redisVariable+"="+w.redis.Addr(), "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		w.t.Error(err)
		return
	}
	w.gateway = cmd
}

// kill kills it.
func (w *world) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gateway != nil {
		_ = w.gateway.Process.Kill()
		_ = w.gateway.Wait()
		w.gateway = nil
	}
}

// reply is what a client reads.
type reply struct {
	ID      string `json:"id"`
	Error   string `json:"error"`
	Publish *struct {
		Seq int64 `json:"seq"`
	} `json:"publish"`
	Subscribe string `json:"subscribe"`
	Signal    *struct {
		Seq int64 `json:"seq"`
	} `json:"signal_entry"`
}

// client is one of the plain protocol, that a relay is nothing to.
type client struct {
	t    *testing.T
	ws   *websocket.Conn
	mu   sync.Mutex
	next int
	byID map[string]chan reply
	done chan struct{}
	err  error
}

func dial(t *testing.T, url string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(-1)
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
		if err := json.Unmarshal(frame, &r); err != nil {
			c.t.Errorf("a reply that can't be read: %s: %v", frame, err)
			continue
		}
		c.replies(r.ID) <- r
	}
}

func (c *client) replies(id string) chan reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[id] == nil {
		c.byID[id] = make(chan reply, 10_000)
	}
	return c.byID[id]
}

// ask sends a request and returns its id.
func (c *client) ask(format string, args ...any) string {
	c.mu.Lock()
	id := fmt.Sprint(c.next)
	c.next++
	c.mu.Unlock()
	kind := websocket.MessageText
	if c.next%2 == 0 {
		kind = websocket.MessageBinary // as the Rust SDK does
	}
	c.send(kind, `{"id":"`+id+`","is_cancel":false,`+fmt.Sprintf(format, args...)+`}`)
	return id
}

func (c *client) send(kind websocket.MessageType, frame string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
	case <-time.After(patience):
		c.t.Errorf("no reply to request %s", id)
	case <-c.done:
		c.t.Errorf("no reply to request %s: %v", id, c.err)
	}
	return reply{Error: "none"}
}

// none checks that nothing more is there for a request.
func (c *client) none(id string) {
	c.t.Helper()
	select {
	case r := <-c.replies(id):
		c.t.Errorf("request %s has one more reply: %+v", id, r)
	default:
	}
}

func (c *client) publish(topic, payload string) int64 {
	r := c.get(c.ask(`"publish":{"topic":%q,"payload":%s}`, topic, payload))
	if r.Publish == nil {
		c.t.Errorf("publishing: %+v", r)
		return 0
	}
	return r.Publish.Seq
}

func (c *client) signal(state string) int64 {
	r := c.get(c.ask(`"signal_entry":{"state":%q}`, state))
	if r.Signal == nil {
		c.t.Errorf("signalling: %+v", r)
		return 0
	}
	return r.Signal.Seq
}

func (c *client) barrier(state string, target int) string {
	return c.ask(`"barrier":{"state":%q,"target":%d}`, state, target)
}

func (c *client) subscribe(topic string) string { return c.ask(`"subscribe":{"topic":%q}`, topic) }
