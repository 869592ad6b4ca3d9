package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// roleInstance is the role of an instance's program: it speaks the protocol without any SDK.
const roleInstance = "instance"

// player is an instance at the sync service.
type player struct {
	ctx    context.Context
	conn   *websocket.Conn
	prefix string
	next   int
	count  int
	name   string
}

func beInstance([]string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	p := &player{
		ctx: ctx, name: os.Getenv("TEST_GROUP_ID") + "/" + os.Getenv("GROUNDPLAN_INSTANCE"),
		prefix: fmt.Sprintf("run:%s:plan:%s:case:%s:", os.Getenv("TEST_RUN"), os.Getenv("TEST_PLAN"), os.Getenv("TEST_CASE")),
	}
	var err error
	if p.count, err = strconv.Atoi(os.Getenv("TEST_INSTANCE_COUNT")); err != nil {
		return err
	}
	address := net.JoinHostPort(os.Getenv("SYNC_SERVICE_HOST"), os.Getenv("SYNC_SERVICE_PORT"))
	if p.conn, _, err = websocket.Dial(ctx, "ws://"+address+"/", nil); err != nil {
		return err
	}
	defer p.conn.CloseNow()
	fmt.Println("I am", p.name)
	if err := p.barrier("network-initialized", p.count); err != nil {
		return err
	}
	if err := p.play(os.Getenv("TEST_CASE")); err != nil {
		_ = p.event(fmt.Sprintf(`{"failure_event":{"group":"g","error":%q}}`, err.Error()))
		return err
	}
	fmt.Println(`{"ts":1,"event":{"success_event":{"group":"g"}}}`)
	return p.event(`{"success_event":{"group":"g"}}`)
}

func (p *player) play(name string) error {
	switch name {
	case "together":
		return p.meet("here")
	case "shape":
		return p.shape()
	case "rounds":
		return p.rounds()
	case "sleep":
		time.Sleep(time.Minute)
	}
	return nil
}

// ask makes one request and waits for its answer.
func (p *player) ask(format string, args ...any) (seq int, err error) {
	request := fmt.Sprintf(`{"id":"%d",%s}`, p.next, fmt.Sprintf(format, args...))
	p.next++
	if err := p.conn.Write(p.ctx, websocket.MessageText, []byte(request)); err != nil {
		return 0, err
	}
	_, answer, err := p.conn.Read(p.ctx)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", request, err)
	}
	var said struct {
		ID, Error string
		Signal    *struct{ Seq int } `json:"signal_entry"`
		Publish   *struct{ Seq int }
	}
	if err := json.Unmarshal(answer, &said); err != nil || said.Error != "" || said.ID != strconv.Itoa(p.next-1) {
		return 0, fmt.Errorf("%s: %s %w", request, answer, err)
	}
	switch {
	case said.Signal != nil:
		seq = said.Signal.Seq
	case said.Publish != nil:
		seq = said.Publish.Seq
	}
	return seq, nil
}

func (p *player) event(payload string) error {
	_, err := p.ask(`"publish":{"topic":%q,"payload":%s}`, p.prefix+"run_events", payload)
	return err
}

func (p *player) barrier(state string, target int) error {
	_, err := p.ask(`"barrier":{"state":%q,"target":%d}`, p.prefix+"states:"+state, target)
	return err
}

// meet waits at a state for all instances. Nobody may have been counted twice.
func (p *player) meet(state string) error {
	seq, err := p.ask(`"signal_entry":{"state":%q}`, p.prefix+"states:"+state)
	if err != nil {
		return err
	}
	if seq < 1 || seq > p.count {
		return fmt.Errorf("at %s I am number %d of %d", state, seq, p.count)
	}
	return p.barrier(state, p.count)
}

// rounds meets again and again, and publishes each time.
func (p *player) rounds() error {
	var told struct{ Rounds, Pause string }
	if err := json.Unmarshal([]byte(os.Getenv("GROUNDPLAN_PARAMS")), &told); err != nil {
		return err
	}
	rounds, err := strconv.Atoi(told.Rounds)
	if err != nil {
		return err
	}
	pause, err := time.ParseDuration(told.Pause)
	if err != nil {
		return err
	}
	var seqs []int
	for round := range rounds {
		began := time.Now()
		seq, err := p.ask(`"publish":{"topic":%q,"payload":{"who":%q,"round":%d}}`, p.prefix+"topics:rounds", p.name, round)
		if err != nil {
			return err
		}
		seqs = append(seqs, seq)
		if err := p.meet(fmt.Sprintf("round-%d", round)); err != nil {
			return err
		}
		if took := time.Since(began); took > 500*time.Millisecond {
			fmt.Printf("round %d took %v, from %v on\n", round, took, began)
		}
		time.Sleep(pause)
	}
	text, err := json.Marshal(seqs)
	return errors.Join(err, os.WriteFile(filepath.Join(os.Getenv("TEST_OUTPUTS_PATH"), "seqs.json"), text, 0o644))
}

// shape tells the others its address and finds out how long the way to its counterpart in the other group takes, and to
// its neighbour. Nobody listens there, and that is the answer.
func (p *player) shape() error {
	addresses, err := p.addresses()
	if err != nil {
		return err
	}
	group, index, _ := strings.Cut(p.name, "/")
	other := map[string]string{"a": "b", "b": "a"}[group]
	n, _ := strconv.Atoi(index)
	for _, way := range []struct {
		to    string
		least time.Duration
	}{{other + "/" + index, 120 * time.Millisecond}, {fmt.Sprintf("%s/%d", group, (n+1)%(p.count/2)), 0}} {
		began := time.Now()
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(addresses[way.to], "9"), 20*time.Second)
		took := time.Since(began)
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || took < way.least {
			return fmt.Errorf("to %s at %s: after %v: %w", way.to, addresses[way.to], took, err)
		}
		fmt.Println("to", way.to, took)
	}
	return p.meet("done")
}

// addresses are those of all instances, by name.
func (p *player) addresses() (map[string]string, error) {
	topic := p.prefix + "topics:addresses"
	if _, err := p.ask(`"publish":{"topic":%q,"payload":{"who":%q,"at":%q}}`, topic, p.name, os.Getenv("GROUNDPLAN_DATA_ADDRESS")); err != nil {
		return nil, err
	}
	if err := p.meet("told"); err != nil {
		return nil, err
	}
	request := fmt.Sprintf(`{"id":"%d","subscribe":{"topic":%q}}`, p.next, topic)
	p.next++
	if err := p.conn.Write(p.ctx, websocket.MessageText, []byte(request)); err != nil {
		return nil, err
	}
	all := map[string]string{}
	for len(all) < p.count {
		_, answer, err := p.conn.Read(p.ctx)
		if err != nil {
			return nil, err
		}
		var said struct{ Subscribe string }
		var one struct{ Who, At string }
		if err := errors.Join(json.Unmarshal(answer, &said), json.Unmarshal([]byte(said.Subscribe), &one)); err != nil {
			return nil, fmt.Errorf("%s: %w", answer, err)
		}
		all[one.Who] = one.At
	}
	return all, nil
}
