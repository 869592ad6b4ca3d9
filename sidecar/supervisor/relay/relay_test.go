package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestThroughTheRelay(t *testing.T) {
	w := newWorld(t)
	w.start()
	c := dial(t, w.url)
	sub := c.subscribe("t")
	wait := c.barrier("s", 2)
	if c.signal("s") != 1 || c.publish("t", `{"a":"b c"}`) != 1 {
		t.Error("the first signal or item is not the first")
	}
	if r := c.get(sub); r.Subscribe != `{"a":"b c"}` {
		t.Errorf("the item is %+v", r)
	}
	c.none(wait)
	c.signal("s")
	if r := c.get(wait); r.Error != "" {
		t.Errorf("the barrier says %+v", r)
	}
	if r := c.get(c.ask(`"publish":{"topic":"t","payload":%q}`, strings.Repeat("x", 40_000))); !strings.Contains(r.Error, "at most 32767") {
		t.Errorf("a payload that is too large: %+v", r)
	}
	c.send(websocket.MessageText, "nonsense")
	if r := c.get(""); !strings.Contains(r.Error, "not the JSON") {
		t.Errorf("nonsense is answered with %+v", r)
	}
	if err := c.ws.Ping(t.Context()); err != nil {
		t.Errorf("a ping: %v", err)
	}
	if err := c.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("closing: %v", err)
	}
}

func TestLargeFramesThroughTheRelay(t *testing.T) {
	w := newWorld(t)
	w.start()
	c := dial(t, w.url+"/?frame=8388608")
	payload := `"` + strings.Repeat("y", 2<<20) + `"`
	sub := c.subscribe("t")
	c.publish("t", payload)
	if r := c.get(sub); r.Subscribe != payload {
		t.Errorf("%d bytes came back", len(r.Subscribe))
	}
	small := dial(t, w.url)
	// It is hung up on while it writes, and may not see the word of why.
	_ = small.ws.Write(t.Context(), websocket.MessageText, []byte(strings.Repeat("z", smallest+1)))
	select {
	case <-small.done:
	case <-time.After(patience):
		t.Error("a message that is too large is taken")
	}
}

func TestBeforeThereIsAGateway(t *testing.T) {
	w := newWorld(t)
	go func() {
		time.Sleep(100 * time.Millisecond)
		w.start()
	}()
	c := dial(t, w.url)
	if c.signal("s") != 1 {
		t.Error("the first signal isn't the first")
	}
	// One that gives up.
	w.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := websocket.Dial(ctx, w.url, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dialling without a gateway: %v", err)
	}
	w.start()
	if c.signal("s") != 2 {
		t.Error("the second signal isn't the second")
	}
}

func TestWhatIsNoWebSocket(t *testing.T) {
	w := newWorld(t)
	url := strings.Replace(w.url, "ws", "http", 1)
	get := func(path string) int {
		response, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		_, _ = io.Copy(io.Discard, response.Body)
		http.DefaultClient.CloseIdleConnections()
		return response.StatusCode
	}
	if got := get("/"); got != http.StatusServiceUnavailable {
		t.Errorf("without a gateway: %d", got)
	}
	w.start()
	dial(t, w.url)
	if got := get("/"); got != http.StatusUpgradeRequired {
		t.Errorf("no upgrade: %d", got)
	}
	if _, response, err := websocket.Dial(t.Context(), w.url+"/?frame=1", nil); err == nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("a frame of 1: %v, %v", response, err)
	}
}

func TestCancelThroughTheRelay(t *testing.T) {
	w := newWorld(t)
	w.start()
	c := dial(t, w.url)
	sub, wait := c.subscribe("t"), c.barrier("s", 1)
	c.publish("t", "1")
	c.get(sub)
	for _, id := range []string{sub, wait, "unknown"} {
		c.send(websocket.MessageText, `{"id":"`+id+`","is_cancel":true}`)
	}
	c.publish("t", "2")
	w.kill()
	w.start()
	c.signal("s")
	c.publish("t", "3")
	c.none(sub)
	c.none(wait)
}

// TestGatewayIsKilled has clients publish, signal, wait and read while the gateway is killed twenty times: nothing is
// lost, doubled or out of order, and no client notices.
func TestGatewayIsKilled(t *testing.T) {
	const clients, kills, least = 4, 20, 30
	w := newWorld(t)
	w.start()
	harassed := make(chan struct{})
	go func() {
		defer close(harassed)
		for range kills {
			time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
			w.kill()
			w.start()
			time.Sleep(time.Duration(20+rand.IntN(60)) * time.Millisecond)
		}
	}()
	var all []*client
	var subs []string
	for range clients {
		c := dial(t, w.url)
		all, subs = append(all, c), append(subs, c.subscribe("t"))
	}
	seqs := make([][]int64, clients)
	signals := make([][]int64, clients)
	rounds := make([]int, clients)
	var mu sync.Mutex
	over := -1 // the round after which all stop
	var work sync.WaitGroup
	for i, c := range all {
		work.Go(func() {
			for n := 0; ; n++ {
				mu.Lock()
				select {
				case <-harassed:
					if over < 0 && n >= least {
						over = n + 1
					}
				default:
				}
				last := over >= 0 && n > over
				mu.Unlock()
				if last || t.Failed() {
					rounds[i] = n
					return
				}
				seqs[i] = append(seqs[i], c.publish("t", fmt.Sprintf(`"%d.%d"`, i, n)))
				signals[i] = append(signals[i], c.signal("all"))
				c.signal(fmt.Sprint("round", n))
				id := c.barrier(fmt.Sprint("round", n), clients)
				if r := c.get(id); r.Error != "" {
					t.Errorf("barrier %d of client %d: %+v", n, i, r)
				}
				defer c.none(id)
			}
		})
	}
	work.Wait()
	<-harassed
	if t.Failed() {
		return
	}
	total := 0
	for _, n := range rounds {
		total += n
	}
	t.Logf("%d rounds, %d items", rounds[0], total)
	unbroken(t, "items", seqs, total)
	unbroken(t, "signals", signals, total)
	var order []string
	for i, c := range all {
		var got []string
		for range total {
			got = append(got, c.get(subs[i]).Subscribe)
		}
		c.none(subs[i])
		if order == nil {
			order = got
		}
		if !slices.Equal(got, order) {
			t.Errorf("client %d reads another order", i)
		}
	}
	slices.Sort(order)
	if n := len(slices.Compact(order)); n != total {
		t.Errorf("%d different items of %d were read", n, total)
	}
	for i := range all {
		if !slices.IsSorted(seqs[i]) {
			t.Errorf("the items of client %d are not in its order", i)
		}
	}
}

// unbroken checks that numbers are 1, 2, … without a gap.
func unbroken(t *testing.T, what string, by [][]int64, total int) {
	t.Helper()
	numbers := slices.Concat(by...)
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != int64(i+1) {
			t.Fatalf("%s: number %d stands at place %d of %d", what, n, i+1, total)
		}
	}
}

// TestNothingIsRememberedForever looks into Redis after answers have arrived.
func TestNothingIsRememberedForever(t *testing.T) {
	w := newWorld(t)
	w.start()
	c := dial(t, w.url)
	for range 50 {
		c.signal("s")
	}
	var ids []string
	for range 1000 { // many at once, and nothing after them
		ids = append(ids, c.ask(`"signal_entry":{"state":"s"}`))
	}
	for _, id := range ids {
		c.get(id)
	}
	c.signal("s")
	time.Sleep(50 * time.Millisecond)
	c.signal("s")
	for _, key := range w.redis.Keys() {
		if strings.HasSuffix(key, ":remembered") {
			fields, err := w.redis.HKeys(key)
			if err != nil || len(fields) > 2*mostAcks {
				t.Errorf("%d answers are remembered, %v", len(fields), err)
			}
		}
	}
}

// TestBacklog has a client ask for much while there is no gateway.
func TestBacklog(t *testing.T) {
	w := newWorld(t)
	w.start()
	c := dial(t, w.url)
	c.signal("s")
	w.kill()
	var ids []string
	for i := range 500 {
		ids = append(ids, c.ask(`"publish":{"topic":"t","payload":"%d%s"}`, i, strings.Repeat("x", 1000)))
	}
	w.start()
	for i, id := range ids {
		if r := c.get(id); r.Publish == nil || r.Publish.Seq != int64(i+1) {
			t.Fatalf("item %d: %+v", i, r)
		}
	}
}

// TestLeavingClients has clients leave at any moment, also while there is no gateway.
func TestLeavingClients(t *testing.T) {
	w := newWorld(t)
	w.start()
	for i := range 40 {
		if i == 20 {
			w.kill()
		}
		c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "ws://"))
		if err != nil {
			t.Fatal(err)
		}
		hello := "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
		_, _ = c.Write([]byte(hello[:min(len(hello), i*20)]))
		if i%20 > 10 && i < 20 {
			if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
				t.Error(err)
			}
			_, _ = c.Write([]byte{0x81, 0x85, 0, 0}[:i%5])
		}
		_ = c.Close()
	}
}
