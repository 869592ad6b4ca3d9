package gateway

import (
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestHeads(t *testing.T) {
	for message, want := range map[string]string{
		`17 {"a": 1}`:                            `17 0 [] {"a": 1}`,
		`17@42 {}`:                               `17 42 [] {}`,
		`17-14-16 {}`:                            `17 0 [14 16] {}`,
		`17@42-14 x y`:                           `17 42 [14] x y`,
		`-14-16 `:                                `0 0 [14 16] `,
		`17 `:                                    `17 0 [] `,
		`17`:                                     "",
		``:                                       "",
		` {}`:                                    "",
		`-14 {}`:                                 "",
		`0 {}`:                                   "",
		`-1`:                                     "",
		`@3 `:                                    "",
		`+1 {}`:                                  "",
		`1@ {}`:                                  "",
		`1@0 {}`:                                 "",
		`1-- {}`:                                 "",
		`1-2@3 {}`:                               "",
		`1e3 {}`:                                 "",
		`9223372036854775808`:                    "",
		strings.Repeat("1", longestHead) + " {}": "",
	} {
		r, err := readHead([]byte(message))
		got := fmt.Sprintf("%d %d %v %s", r.n, r.delivered, r.arrived, r.request)
		if (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%.40q is read as %q, %v", message, got, err)
		}
	}
}

func FuzzHead(f *testing.F) {
	for _, seed := range []string{`17 {}`, `17@42-14-16 {"id":"0"}`, `-1-2 `, `1@1-1`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		r, err := readHead(message)
		if err == nil && (r.n < 0 || r.delivered < 0 || len(r.request) >= len(message) || r.n == 0 && len(r.request) > 0) {
			t.Errorf("%q is read as %+v", message, r)
		}
	})
}

// said is a relay's side of a connection: it writes heads itself.
type said struct {
	t  *testing.T
	ws *websocket.Conn
}

// listenFor serves a gateway to the relays of one client.
func listenFor(t *testing.T, g *Gateway) string {
	t.Helper()
	space := g.Space("s")
	server := httptest.NewServer(g.Handler(func(netip.AddrPort) (Client, bool) { return Client{Name: "g/0", Space: space}, true }))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "http", "ws", 1)
}

func relayTo(t *testing.T, url, session string) *said {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), url+"/?relay="+session, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return &said{t, ws}
}

func (s *said) say(format string, args ...any) {
	s.t.Helper()
	if err := s.ws.Write(s.t.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		s.t.Fatal(err)
	}
}

// hear checks what comes next: its head and a part of the reply.
func (s *said) hear(head, part string) {
	s.t.Helper()
	_, message, err := s.ws.Read(s.t.Context())
	if err != nil {
		s.t.Fatalf("instead of %s %s: %v", head, part, err)
	}
	got, reply, _ := strings.Cut(string(message), " ")
	if got != head || !strings.Contains(reply, part) || part == "" && reply != "" {
		s.t.Errorf("heard %s instead of %s %s", message, head, part)
	}
}

// hearBoth hears two messages that come from two sides, in whichever order.
func (s *said) hearBoth(one, other [2]string) {
	s.t.Helper()
	_, message, err := s.ws.Read(s.t.Context())
	if err != nil {
		s.t.Fatalf("instead of %s and %s: %v", one, other, err)
	}
	if strings.HasPrefix(string(message), other[0]) {
		one, other = other, one
	}
	if got, reply, _ := strings.Cut(string(message), " "); got != one[0] || !strings.Contains(reply, one[1]) {
		s.t.Errorf("heard %s instead of %s", message, one)
	}
	s.hear(other[0], other[1])
}

func TestWhatARelayHears(t *testing.T) {
	s := relayTo(t, listenFor(t, open(t, embedded(t), "r")), "A1")
	s.say(`1 {"id":"0","subscribe":{"topic":"t"}}`)
	s.say(`2 {"id":"1","publish":{"topic":"t","payload":"x"}}`)
	s.hearBoth([2]string{"2=", `"publish":{"seq":1}`}, [2]string{"1+", `"subscribe":"\"x\""`})
	s.say(`3-2 {"id":"2","signal_entry":{"state":"s"}}`)
	s.hear("3=", `"signal_entry":{"seq":1}`)
	s.say(`4 {"id":"3","barrier":{"state":"s","target":1}}`)
	s.hear("4.", `"id":"3"`)
	s.say(`5 {"id":"4","barrier":{"state":"s","target":2}}`)
	s.say(`6 {"id":"4","is_cancel":true}`)
	s.hear("5.", "")
	s.hear("6.", "")
	s.say(`7 {"id":"0","is_cancel":true}`)
	s.hear("1.", "")
	s.hear("7.", "")
	s.say(`8 {"id":"5","is_cancel":true}`)
	s.hear("8.", "")
	s.say(`9 nonsense`)
	s.hear("9.", "not the JSON")
	s.say(`no head`)
	if _, _, err := s.ws.Read(t.Context()); err == nil {
		t.Error("a message without a head is answered")
	}
}

// TestAskedAgain asks for the same again in every way in which a relay may.
func TestAskedAgain(t *testing.T) {
	backends(t, func(t *testing.T, dialRedis func() (net.Conn, error)) {
		var mu sync.Mutex
		var observed []string
		watch := func(who string) func(*Options) {
			return func(o *Options) {
				o.Name = "node"
				o.Observe = func(x Observation) {
					mu.Lock()
					defer mu.Unlock()
					observed = append(observed, fmt.Sprint(who, " ", x.Topic, x.State, " ", x.Seq, " ", x.Again))
				}
			}
		}
		first := open(t, clientOf(t, dialRedis), "r", watch("first"))
		url := listenFor(t, first)
		a := relayTo(t, url, "A")
		publish, signal := `{"id":"0","publish":{"topic":"t","payload":1}}`, `{"id":"1","signal_entry":{"state":"s"}}`
		a.say("1 %s", publish)
		a.hear("1=", `"seq":1`)
		a.say("2 %s", signal)
		a.hear("2=", `"seq":1`)
		// On the same connection, and together with something new.
		a.say("2 %s", signal)
		a.say("3 %s", signal)
		a.say("3 %s", signal)
		a.hear("2=", `"seq":1`)
		a.hear("3=", `"seq":2`)
		a.hear("3=", `"seq":2`)
		// Another session's numbers are its own.
		b := relayTo(t, url, "B")
		b.say("1 %s", publish)
		b.hear("1=", `"seq":2`)
		// On another connection, which takes the place of the first.
		again := relayTo(t, url, "A")
		again.say("1 %s", publish)
		again.hear("1=", `"seq":1`)
		if _, _, err := a.ws.Read(t.Context()); err == nil {
			t.Error("the earlier connection is still there")
		}
		// At another gateway, that takes the first one's place.
		second := open(t, clientOf(t, dialRedis), "r", watch("second"))
		later := relayTo(t, listenFor(t, second), "A")
		later.say("1 %s", publish)
		later.hear("1=", `"seq":1`)
		later.say("3-1 %s", signal)
		later.hear("3=", `"seq":2`)
		later.say(`4@1 {"id":"2","subscribe":{"topic":"t"}}`)
		later.hear("4+", `"subscribe":"1"`) // the second item: the first was delivered
		if err := second.Space("s").Barrier(t.Context(), "s", 2); err != nil {
			t.Error(err)
		}
		// What has arrived is forgotten with the next batch.
		later.say("5-3 %s", signal)
		later.hear("5=", `"seq":3`)
		fields, err := second.redis.HKeys(t.Context(), second.remembered()).Result()
		slices.Sort(fields)
		if len(fields) != 3 || err != nil { // A:2, A:5, B:1
			t.Errorf("remembered is %v, %v", fields, err)
		}
		mu.Lock()
		defer mu.Unlock()
		want := []string{"first t 1 false", "first s 1 false", "first s 2 false", "first t 2 false", "second t 1 true", "second s 2 true", "second s 3 false"}
		if !slices.Equal(observed, want) {
			t.Errorf("observed %v", observed)
		}
	})
}

// TestReplaced has a gateway go on although another of its name has been started: it can't change anything any more.
func TestReplaced(t *testing.T) {
	backends(t, func(t *testing.T, dialRedis func() (net.Conn, error)) {
		name := func(o *Options) { o.Name = "node" }
		first := open(t, clientOf(t, dialRedis), "r", name)
		other := open(t, clientOf(t, dialRedis), "r", func(o *Options) { o.Name = "other" })
		if _, err := first.Space("s").Signal(t.Context(), "s", 1); err != nil {
			t.Fatal(err)
		}
		s := relayTo(t, listenFor(t, first), "A")
		second := open(t, clientOf(t, dialRedis), "r", name)
		s.say(`1 {"id":"0","signal_entry":{"state":"s"}}`)
		if _, message, err := s.ws.Read(t.Context()); err == nil {
			t.Errorf("a relay hears of it: %s", message)
		}
		if _, err := first.Space("s").Signal(t.Context(), "s", 1); err == nil || !strings.Contains(err.Error(), "taken this one's place") {
			t.Errorf("it still signals: %v", err)
		}
		for _, g := range []*Gateway{other, second} {
			if _, err := g.Space("s").Signal(t.Context(), "s", 1); err != nil {
				t.Error(err)
			}
		}
		if n, err := second.Space("s").Signal(t.Context(), "s", 1); n != 4 || err != nil {
			t.Errorf("counted are %d, %v", n, err)
		}
	})
}

// TestClosedGatewaySaysNothingToRelays closes one with everything open.
func TestClosedGatewaySaysNothingToRelays(t *testing.T) {
	r := embedded(t)
	g := open(t, r, "r")
	s := relayTo(t, listenFor(t, g), "A")
	s.say(`1 {"id":"0","subscribe":{"topic":"t"}}`)
	s.say(`2 {"id":"1","barrier":{"state":"s","target":1}}`)
	s.say(`3 {"id":"2","signal_entry":{"state":"other"}}`)
	s.hear("3=", `"seq":1`)
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if _, message, err := s.ws.Read(t.Context()); err == nil {
		t.Errorf("heard %s", message)
	}
}

func TestSessionsHaveIds(t *testing.T) {
	url := listenFor(t, open(t, embedded(t), "r"))
	for _, bad := range []string{"a:b", "%20", strings.Repeat("x", longestID+1)} {
		if _, response, err := websocket.Dial(t.Context(), url+"/?relay="+bad, nil); err == nil || response.StatusCode != 400 {
			t.Errorf("the session %q is taken: %v", bad, err)
		}
	}
}

// TestRelayedAndNot mixes relays, plain clients and the gateway's own on one counter and one log, while Redis is cut off
// and answers get lost.
func TestRelayedAndNot(t *testing.T) {
	backends(t, func(t *testing.T, dialRedis func() (net.Conn, error)) {
		const each = 60
		cut, r := cuttable(t, dialRedis)
		g := open(t, r, "r", func(o *Options) { o.Name = "node" })
		url := listenFor(t, g)
		var trouble, work sync.WaitGroup
		trouble.Go(func() {
			for i := range 12 { // not for good: an answer could be lost each time that it is asked for
				if i%2 == 0 {
					cut.swallowOne()
				} else {
					cut.cut()
				}
				time.Sleep(15 * time.Millisecond)
				cut.mend()
				time.Sleep(15 * time.Millisecond)
			}
		})
		relays := []*said{relayTo(t, url, "A"), relayTo(t, url, "B")}
		plain := dial(t, url)
		space := g.Space("s")
		for _, s := range relays {
			work.Go(func() {
				for n := range each {
					s.say(`%d {"id":"%d","signal_entry":{"state":"c"}}`, 2*n+1, n)
					s.say(`%d {"id":"%d","publish":{"topic":"t","payload":%d}}`, 2*n+2, n, n)
					if n%5 == 0 {
						s.say(`%d {"id":"%d","signal_entry":{"state":"c"}}`, 2*n+1, n)
						_, _, _ = s.ws.Read(t.Context())
					}
					for range 2 {
						if _, m, err := s.ws.Read(t.Context()); err != nil || !strings.Contains(string(m), `"seq":`) {
							t.Errorf("heard %s, %v", m, err)
						}
					}
				}
			})
		}
		work.Go(func() {
			for n := range each {
				plain.signal("c")
				plain.publish("t", fmt.Sprint(n))
				if _, err := space.Signal(t.Context(), "c", 2); err != nil {
					t.Error(err)
				}
			}
		})
		work.Wait()
		trouble.Wait()
		if n, err := space.Signal(t.Context(), "c", 1); n != 5*each+1 || err != nil {
			t.Errorf("counted are %d of %d, %v", n, 5*each+1, err)
		}
		if items := collect(t, space, 3*each); len(items) != 3*each {
			t.Errorf("published are %d", len(items))
		}
	})
}

// BenchmarkSignalsOfRelays is what being remembered costs.
func BenchmarkSignalsOfRelays(b *testing.B) {
	for name, query := range map[string]string{"plain": "", "relayed": "&relay=A"} {
		b.Run(name, func(b *testing.B) {
			clients := plainClientsAt(b, listenOn(b, open(b, embedded(b), "r")), 1000, query)
			for n := int64(1); b.Loop(); n += 2 {
				everybody(clients, func(i int, c *plain) {
					head, ack := "", ""
					if query != "" {
						head = fmt.Sprint(n)
						if n > 1 {
							ack = fmt.Sprint("-", n-2)
						}
						head, ack = head+ack+" ", fmt.Sprint(n+1, " ")
					}
					c.send(b, fmt.Sprintf(`%s{"id":"0","is_cancel":false,"signal_entry":{"state":"run:r:plan:p:case:c:states:s%d"}}`, head, n))
					c.skip(b, 1)
					c.send(b, fmt.Sprintf(`%s{"id":"1","is_cancel":false,"barrier":{"state":"run:r:plan:p:case:c:states:s%d","target":1000}}`, ack, n))
					c.skip(b, 1)
				})
			}
		})
	}
}
