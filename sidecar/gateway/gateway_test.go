package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestRequestsOverOneConnection(t *testing.T) {
	c := dial(t, listenOn(t, open(t, embedded(t), "r")))
	for want := range int64(3) {
		if seq := c.signal("s"); seq != want+1 {
			t.Errorf("signal gave %d, want %d", seq, want+1)
		}
	}
	c.passed(c.barrier("s", 3))
	c.passed(c.barrier("s", 0))
	c.passed(c.barrier("never", -1))
	open := c.barrier("s", 4)
	c.none(open)
	c.signal("s")
	c.passed(open)

	if seq := c.publish("t", `{"n":1.50,"s":"a\"b"}`); seq != 1 {
		t.Errorf("first publish gave %d", seq)
	}
	sub := c.subscribe("t")
	if r := c.get(sub); *r.Subscribe != `{"n":1.50,"s":"a\"b"}` {
		t.Errorf("the earlier item came as %s", *r.Subscribe)
	}
	if seq := c.publish("t", `"two"`); seq != 2 {
		t.Errorf("second publish gave %d", seq)
	}
	if r := c.get(sub); *r.Subscribe != `"two"` {
		t.Errorf("the live item came as %s", *r.Subscribe)
	}
}

func TestBinaryFramesAreRequestsToo(t *testing.T) {
	c := dial(t, listenOn(t, open(t, embedded(t), "r")))
	c.send(websocket.MessageBinary, `{"id":"9","signal_entry":{"state":"s"}}`)
	if r := c.get("9"); r.Signal == nil || r.Signal.Seq != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestErrorsLeaveTheConnectionUp(t *testing.T) {
	c := dial(t, listenOn(t, open(t, embedded(t), "r")))
	for _, bad := range []struct{ frame, id, want string }{
		{`nonsense`, "", "not the JSON"},
		{`{"id":"100"}`, "100", "exactly one"},
		{`{"id":"101","subscribe":{"topic":""}}`, "101", "no name"},
		{`{"id":"102","publish":{"topic":"t","payload":"` + strings.Repeat("x", plainFrame) + `"}}`, "102", "subscribers read at most 32767"},
		{`{"id":"103","publish":{"topic":"t","payload":"` + strings.Repeat("x", 1<<20) + `"}}`, "103", "subscribers read at most 32767"},
	} {
		c.send(websocket.MessageText, bad.frame)
		if r := c.get(bad.id); !strings.Contains(errorOf(r), bad.want) {
			t.Errorf("%.40s: the error is %q, want %q", bad.frame, errorOf(r), bad.want)
		}
	}
	if seq := c.publish("t", "1"); seq != 1 {
		t.Errorf("after the errors a publish gave %d", seq)
	}
	first := c.barrier("s", 1)
	c.send(websocket.MessageText, `{"id":"`+first+`","subscribe":{"topic":"t"}}`)
	if r := c.get(first); !strings.Contains(errorOf(r), "still on") {
		t.Errorf("an id used twice: %+v", r)
	}
}

func TestCancel(t *testing.T) {
	g := open(t, embedded(t), "r")
	c := dial(t, listenOn(t, g))
	sub, wait := c.subscribe("t"), c.barrier("s", 1)
	c.publish("t", "1")
	c.get(sub)
	for _, id := range []string{sub, wait, "unknown"} {
		c.send(websocket.MessageText, `{"id":"`+id+`","is_cancel":true}`)
	}
	c.publish("t", "2")
	c.signal("s")
	c.none(sub)
	c.none(wait)
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, topic := range g.topics {
		if len(topic.watchers) > 0 {
			t.Errorf("%s still has %d watchers", key, len(topic.watchers))
		}
	}
}

func TestLargerFramesAreNegotiated(t *testing.T) {
	url := listenOn(t, open(t, embedded(t), "r"))
	large, plain := dial(t, url+"/?frame=1048576"), dial(t, url)
	got := plain.subscribe("t")
	payload := `"` + strings.Repeat("x", 100_000) + `"`
	if seq := large.publish("t", payload); seq != 1 {
		t.Fatalf("publish gave %d", seq)
	}
	if r := large.get(large.subscribe("t")); *r.Subscribe != payload {
		t.Errorf("came back with %d bytes", len(*r.Subscribe))
	}
	if r := plain.get(got); !strings.Contains(errorOf(r), "this client reads at most 32767") {
		t.Errorf("the plain client got %+v", r)
	}
	if seq := plain.signal("s"); seq != 1 {
		t.Errorf("the plain client's next request gave %d", seq)
	}
	// The largest payload that fits a plain frame arrives, whatever the id.
	fits := `"` + strings.Repeat("y", plainFrame-frameSize(encodeItem([]byte(`""`)))) + `"`
	plain.publish("exact", fits)
	id := strings.Repeat("7", longestID)
	plain.send(websocket.MessageText, `{"id":"`+id+`","subscribe":{"topic":"exact"}}`)
	if r := plain.get(id); *r.Subscribe != fits {
		t.Errorf("the largest payload: %+v", errorOf(r))
	}
}

func TestHandlerAsksWhoItIs(t *testing.T) {
	g := open(t, embedded(t), "r")
	spaces := map[bool]*Space{true: g.Space("a"), false: g.Space("b")}
	first := true
	var mu sync.Mutex
	server := httptest.NewServer(g.Handler(func(remote netip.AddrPort) (Client, bool) {
		mu.Lock()
		defer mu.Unlock()
		if remote.Addr() != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("remote is %v", remote)
		}
		if spaces == nil {
			return Client{}, false
		}
		c := Client{Name: "c", Space: spaces[first]}
		first = false
		return c, true
	}))
	defer server.Close()
	url := strings.Replace(server.URL, "http", "ws", 1)
	a, b := dial(t, url), dial(t, url)
	a.signal("s")
	if seq := b.signal("s"); seq != 1 {
		t.Errorf("a client of another space sees %d signals", seq)
	}
	for path, want := range map[string]int{"/": http.StatusUpgradeRequired, "/?frame=x": http.StatusBadRequest, "/?frame=1": http.StatusBadRequest} {
		if got := status(t, server.URL+path); got != want {
			t.Errorf("%s: status %d, want %d", path, got, want)
		}
	}
	mu.Lock()
	spaces = nil
	mu.Unlock()
	if got := status(t, server.URL); got != http.StatusForbidden {
		t.Errorf("a stranger gets %d", got)
	}
}

// TestAnInfluxDBThatKeepsNothing speaks as the clients of Testground's SDKs do.
func TestAnInfluxDBThatKeepsNothing(t *testing.T) {
	url := strings.Replace(listenOn(t, open(t, embedded(t), "r")), "ws", "http", 1)
	defer http.DefaultClient.CloseIdleConnections()
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/ping", "", http.StatusNoContent},
		{"POST", "/write?db=testground&precision=ns", "results.run,plan=p latency=1 1700000000000000000", http.StatusNoContent},
		{"POST", "/write?db=testground", strings.Repeat("x", 1<<20), http.StatusNoContent},
		{"POST", "/query?db=testground", "q=SHOW+DATABASES", http.StatusOK},
		{"POST", "/", "", http.StatusUpgradeRequired},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatalf("%s %s: %v", c.method, c.path, err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.path, answer.StatusCode, c.status)
		}
	}
}

func status(t *testing.T, url string) int {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	return r.StatusCode
}

func TestRunsAndSpacesAreApart(t *testing.T) {
	r := embedded(t)
	g, other := open(t, r, "run"), open(t, r, "run}:space:x")
	for i, s := range []*Space{g.Space("x"), g.Space("x:state:s"), g.Space("x%"), other.Space("x"), other.Space("")} {
		for _, name := range []string{"s", "s:state:s", "*", "}"} {
			if n, err := s.Signal(t.Context(), name, 1); n != 1 || err != nil {
				t.Errorf("space %d, state %s: %d, %v", i, name, n, err)
			}
		}
	}
}

func TestObserveHearsBeforeTheClient(t *testing.T) {
	var mu sync.Mutex
	var heard []Observation
	g := open(t, embedded(t), "r", func(o *Options) {
		o.Observe = func(x Observation) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, x)
		}
	})
	c := dial(t, listenOn(t, g))
	c.publish("t", `{"a":1}`)
	c.signal("s")
	mu.Lock()
	defer mu.Unlock()
	if len(heard) != 2 || heard[0].Topic != "t" || string(heard[0].Payload) != `{"a":1}` || heard[0].Seq != 1 || heard[0].Space != "s" ||
		heard[1].State != "s" || heard[1].Seq != 1 || heard[1].Client == "" {
		t.Errorf("heard %+v", heard)
	}
}

func TestSpaceBesideItsClients(t *testing.T) {
	g := open(t, embedded(t), "r")
	s, c := g.Space("s"), dial(t, listenOn(t, g))
	wait := c.barrier("ready", 5)
	if n, err := s.Signal(t.Context(), "ready", 5); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	c.passed(wait)
	c.publish("t", `1`)
	if n, err := s.Publish(t.Context(), "t", json.RawMessage(`2`)); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	var got []string
	for payload, err := range s.Subscribe(t.Context(), "t") {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, string(payload)); len(got) == 2 {
			break
		}
	}
	if !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("got %v", got)
	}
	if err := s.Barrier(t.Context(), "ready", 5); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Barrier(short, "ready", 6); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a barrier whose context ended: %v", err)
	}
	for range s.Subscribe(short, "empty") {
		t.Error("an empty topic has an item")
	}
	for name, err := range map[string]error{
		"no JSON":     second(s.Publish(t.Context(), "t", json.RawMessage(`{`))),
		"no topic":    second(s.Publish(t.Context(), "", json.RawMessage(`1`))),
		"no signal":   second(s.Signal(t.Context(), "s", 0)),
		"no state":    s.Barrier(t.Context(), "", 1),
		"too much":    second(s.Publish(t.Context(), "t", json.RawMessage(`"`+strings.Repeat("x", largestFrame)+`"`))),
		"long a name": second(s.Signal(t.Context(), strings.Repeat("x", longestKey+1), 1)),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestCloseEndsWhatWaits(t *testing.T) {
	r := embedded(t)
	g, err := New(Options{Redis: r, Run: "r"})
	if err != nil {
		t.Fatal(err)
	}
	s, c := g.Space("s"), dial(t, listenOn(t, g))
	c.signal("s")
	c.barrier("s", 2)
	c.subscribe("t")
	ended := make(chan error, 2)
	go func() { ended <- s.Barrier(context.Background(), "s", 2) }()
	go func() {
		for _, err := range s.Subscribe(context.Background(), "t") {
			ended <- err
		}
	}()
	time.Sleep(20 * time.Millisecond)
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	}
	<-c.done
	for name, err := range map[string]error{
		"signal":  second(s.Signal(context.Background(), "s", 1)),
		"barrier": s.Barrier(context.Background(), "s", 9),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
	// The next gateway of the run goes on where this one was.
	if n, err := open(t, r, "r").Space("s").Signal(t.Context(), "s", 1); n != 2 || err != nil {
		t.Errorf("the next gateway counts %d, %v", n, err)
	}
}

func TestForget(t *testing.T) {
	r := embedded(t)
	g, other := open(t, r, "r*"), open(t, r, "r2")
	for _, g := range []*Gateway{g, other} {
		if _, err := g.Space("s").Signal(t.Context(), "s", 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys, err := r.Keys(t.Context(), "*").Result()
	for _, k := range keys {
		if !strings.HasPrefix(k, other.prefix) {
			t.Errorf("%s is still there", k)
		}
	}
	if err != nil || len(keys) == 0 {
		t.Errorf("the other run has %v, %v", keys, err)
	}
	if _, err := g.Space("s").Signal(t.Context(), "s", 1); !errors.Is(err, ErrDataLost) {
		t.Errorf("after that a signal gives %v", err)
	}
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("New takes nothing at all")
	}
	r := embedded(t)
	_ = r.Close()
	if _, err := New(Options{Redis: r, Run: "r"}); err == nil || !strings.Contains(err.Error(), "reaching Redis for run r") {
		t.Errorf("without Redis: %v", err)
	}
}

// TestSlowSubscriber has one client that never reads; the others go on, and it finds everything when it reads at last.
func TestSlowSubscriber(t *testing.T) {
	const items = 400
	g := open(t, embedded(t), "r")
	url := listenOn(t, g)
	slow, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.CloseNow()
	if err := slow.Write(t.Context(), websocket.MessageText, []byte(`{"id":"0","subscribe":{"topic":"t"}}`)); err != nil {
		t.Fatal(err)
	}
	fast := dial(t, url)
	sub := fast.subscribe("t")
	filler := strings.Repeat("x", 20_000) // 8 MB in all: more than sockets hold
	for i := range items {
		fast.publish("t", fmt.Sprintf(`"%d %s"`, i, filler))
		if r := fast.get(sub); !strings.HasPrefix(*r.Subscribe, fmt.Sprintf(`"%d `, i)) {
			t.Fatalf("item %d is %.20s", i, *r.Subscribe)
		}
	}
	for i := range items {
		_, frame, err := slow.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(frame), fmt.Sprintf(`"subscribe":"\"%d `, i)) {
			t.Fatalf("the slow one's item %d is %.100s", i, frame)
		}
	}
}

// TestManyRequestsWithoutReading has a client that asks and doesn't read: it is held back, nobody else is.
func TestManyRequestsWithoutReading(t *testing.T) {
	url := listenOn(t, open(t, embedded(t), "r"))
	rude, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rude.CloseNow()
	wrote := make(chan int)
	go func() {
		n := 0
		defer func() { wrote <- n }()
		for ; n < 1_000_000; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := rude.Write(ctx, websocket.MessageText, []byte(`{"id":"0","signal_entry":{}}`))
			cancel()
			if err != nil {
				return
			}
		}
	}()
	if n := <-wrote; n == 1_000_000 {
		t.Error("a million requests were read of a client that reads no reply")
	}
	dial(t, url).signal("s")
}
