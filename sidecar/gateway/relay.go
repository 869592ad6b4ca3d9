package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// A relay (sidecar/supervisor/relay) stands between a client and the gateway, and says with /?relay=SESSION that it does.
// It keeps the client's connection when this one is gone, and asks the next gateway anew for what wasn't answered. Each
// message in both directions has a head then, which ends at the first space: its package says how heads are written.
//
// What a relayed client signals and publishes is remembered in Redis with its number, in the same step in which it is
// done: asked for again, here or by another gateway, it gets the answer that it got before and isn't done twice. Once
// the relay says that it has the answer, it is forgotten.

// longestHead bounds the head of a message, in bytes: a relay acknowledges at most some hundred answers at a time.
const longestHead = 8 << 10

// asked is a request that is to be answered.
type asked struct {
	id string // the client's
	n  int64  // the relay's number; 0 where there is no relay
}

// The marks of what a relay is told about a request.
const (
	markItem       = '+' // more may come
	markRemembered = '=' // the last, which is remembered
	markLast       = '.' // the last
)

// relayed is a message of a relay without its head.
type relayed struct {
	n         int64
	delivered int     // items of a subscription that are not to be sent again
	arrived   []int64 // answers that need not be remembered any more
	request   []byte  // empty: nothing is asked
}

var errHead = errors.New("a relay's message has no head that can be read")

// readHead takes the head off a relay's message.
func readHead(message []byte) (relayed, error) {
	end := bytes.IndexByte(message[:min(len(message), longestHead)], ' ')
	if end < 0 {
		return relayed{}, errHead
	}
	r := relayed{request: message[end+1:]}
	parts := bytes.Split(message[:end], []byte{'-'})
	number, delivered, resumed := bytes.Cut(parts[0], []byte{'@'})
	var err error
	if len(number) > 0 {
		r.n, err = natural(number)
	}
	if resumed && err == nil {
		var n int64
		n, err = natural(delivered)
		r.delivered = int(n)
	}
	for _, part := range parts[1:] {
		if err != nil {
			break
		}
		var n int64
		n, err = natural(part)
		r.arrived = append(r.arrived, n)
	}
	if err != nil || r.n == 0 && (resumed || len(r.request) > 0) {
		return relayed{}, errHead
	}
	return r, nil
}

// natural reads a number from 1 on.
func natural(digits []byte) (int64, error) {
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil || n < 1 || digits[0] == '+' {
		return 0, errHead
	}
	return n, nil
}

// head begins a reply: for a relay with its head.
func (c *conn) head(to asked, mark byte) []byte { return c.appendHead(nil, to, mark) }

func (c *conn) appendHead(b []byte, to asked, mark byte) []byte {
	if c.session == "" {
		return b
	}
	return append(strconv.AppendInt(b, to.n, 10), mark, ' ')
}

// memory is the field under which a request that changes something is remembered; empty: it isn't.
func (c *conn) memory(to asked) string {
	if c.session == "" {
		return ""
	}
	return c.session + ":" + strconv.FormatInt(to.n, 10)
}

// checkSession refuses what is no id of a session.
func checkSession(id string) error {
	for _, r := range id {
		if !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
			return fmt.Errorf("relay=%q: letters and digits are needed", id)
		}
	}
	if len(id) > longestID {
		return fmt.Errorf("relay=: at most %d letters and digits are allowed", longestID)
	}
	return nil
}

// forget has answers not remembered any more, since they have arrived.
func (g *Gateway) forget(c *conn, arrived []int64) {
	if len(arrived) == 0 {
		return
	}
	fields := make([]string, len(arrived))
	for i, n := range arrived {
		fields[i] = c.memory(asked{n: n})
	}
	g.commits.forget(fields)
}

// supersede makes c the connection of its session. An earlier one may still hold requests that were asked for anew on
// this one: nothing of it is read any more when this returns.
func (g *Gateway) supersede(c *conn) {
	if c.session == "" {
		return
	}
	g.mu.Lock()
	before := g.sessions[c.session]
	g.sessions[c.session] = c
	g.mu.Unlock()
	if before != nil {
		before.stop()
		<-before.heard
	}
}

func (g *Gateway) unsession(c *conn) {
	if c.session == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sessions[c.session] == c {
		delete(g.sessions, c.session)
	}
}

// fence sees to it that nothing of an earlier gateway of this name is applied any more: a batch of it may be held up
// anywhere on its way.
func (g *Gateway) fence(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	key := g.prefix + "name:" + name
	before, err := g.redis.Get(ctx, key).Result()
	if err == nil {
		err = g.redis.Set(ctx, g.prefix+"gateway:"+before, lastOfAll, g.keep).Err()
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	return g.redis.Set(ctx, key, g.id, g.keep).Err()
}

// lastOfAll is a gateway's last reply that no batch comes after: see commit.lua.
const lastOfAll = "9007199254740991 "
