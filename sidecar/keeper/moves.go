//go:build linux

package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// What keepers publish in a stage: that an instance has moved, and how many of the moves a node has taken over.
const (
	topicMoves = "moves"
	topicMoved = "moved"
)

// move says that an instance has another address from now on; the zero one: its own again. It may be published twice.
type move struct {
	Node    string       `json:"node"`
	Slot    int          `json:"slot"`
	Address netip.Prefix `json:"address"`
}

// moved says how many of the moves a node has taken over, counted from the first on.
type moved struct {
	Node string `json:"node"`
	Upto int64  `json:"upto"`
}

// moves are those of a stage's instances over all nodes.
type moves struct {
	stage  *stage
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	wake   chan struct{}
	// answering is that the others' answers are listened to: it takes an own instance that moves.
	answering sync.Once

	mu      sync.Mutex
	waiting []move // of instances on other nodes, not taken over yet
	seen    int64  // how many were published that are known
	before  int64  // how many of them another keeper has taken over
	changed chan struct{}
	upto    map[string]int64     // by node
	remote  map[int]netip.Prefix // what was taken over, by slot
}

// newMoves is where instances of a stage move, not followed yet.
func newMoves(s *stage) *moves {
	m := &moves{stage: s, wake: make(chan struct{}, 1), changed: make(chan struct{}), upto: make(map[string]int64), remote: make(map[int]netip.Prefix)}
	m.ctx, m.cancel = context.WithCancel(s.keeper.ctx)
	return m
}

// follow begins to take over where instances on other nodes move. It does nothing where there are none.
func (m *moves) follow() {
	if m.stage.spread() {
		m.work.Go(m.listen)
		m.work.Go(m.takeOver)
	}
}

// recall notes what another keeper has taken over, and again puts that in force.
func (m *moves) recall(before took) {
	m.before = before.Upto
	for _, one := range before.Moves {
		m.remote[one.Slot] = one.Address
	}
}

func (m *moves) again(ctx context.Context) error {
	for _, slot := range slices.Sorted(maps.Keys(m.remote)) {
		if err := m.stage.keeper.mover().Move(ctx, slot, m.remote[slot]); err != nil {
			return fmt.Errorf("taking over once more where instances on other nodes are: %w", err)
		}
	}
	return nil
}

// spread says whether the stage's run has other nodes.
func (s *stage) spread() bool { return s.node != nil && len(s.node.Nodes) > 1 }

// listen hears of moves.
func (m *moves) listen() {
	for document, err := range m.stage.keeper.sync.Subscribe(m.ctx, m.stage.space(), topicMoves) {
		var said move
		if err == nil {
			err = json.Unmarshal(document, &said)
		}
		if err != nil {
			m.fail(fmt.Errorf("hearing of instances that move: %w", err))
			return
		}
		m.mu.Lock()
		m.seen++
		if said.Node != m.stage.node.Name && m.seen > m.before {
			m.waiting = append(m.waiting, said)
		}
		m.mu.Unlock()
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// takeOver puts in force where instances on other nodes have moved, and says so: as many at a time as are known.
func (m *moves) takeOver() {
	for {
		select {
		case <-m.wake:
		case <-m.ctx.Done():
			return
		}
		m.mu.Lock()
		all, upto := m.waiting, m.seen
		m.waiting = nil
		m.mu.Unlock()
		if len(all) == 0 {
			continue // its own
		}
		last, err := m.force(all)
		if err == nil {
			err = m.say(topicMoved, moved{Node: m.stage.node.Name, Upto: upto}, nil)
		}
		if err != nil {
			m.fail(fmt.Errorf("taking over where instances on other nodes are: %w", err))
			return
		}
		m.stage.note(step{Took: &took{Upto: upto, Moves: last}}) // not before it was said: one that wasn't is taken over again
	}
}

// force puts moves in force, of each instance the last, and returns those.
func (m *moves) force(all []move) ([]move, error) {
	at := make(map[int]int, len(all))
	var last []move
	for _, one := range all {
		i, twice := at[one.Slot]
		if !twice {
			i = len(last)
			at[one.Slot], last = i, append(last, one)
		}
		last[i] = one
	}
	for _, one := range last {
		m.mu.Lock()
		m.remote[one.Slot] = one.Address
		m.mu.Unlock()
		if err := m.stage.keeper.mover().Move(m.ctx, one.Slot, one.Address); err != nil {
			return nil, err
		}
	}
	return last, nil
}

func (m *moves) fail(err error) {
	if m.ctx.Err() == nil {
		m.stage.fault(err)
	}
}

func (m *moves) say(topic string, document any, seq *int64) error {
	text, err := json.Marshal(document)
	if err != nil {
		return err
	}
	number, err := m.stage.keeper.sync.Publish(m.ctx, m.stage.space(), topic, text)
	if seq != nil {
		*seq = number
	}
	return err
}

// announce tells all nodes where an own instance is from now on, and returns once they have taken that over.
func (m *moves) announce(ctx context.Context, slot int, address netip.Prefix) error {
	if !m.stage.spread() {
		return nil
	}
	m.answering.Do(func() { m.work.Go(m.hearAnswers) })
	var seq int64
	if err := m.say(topicMoves, move{Node: m.stage.node.Name, Slot: slot, Address: address}, &seq); err != nil {
		return fmt.Errorf("telling the other nodes of its address: %w", err)
	}
	for {
		m.mu.Lock()
		left, changed := m.behind(seq), m.changed
		m.mu.Unlock()
		if !left {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-m.ctx.Done():
			return m.ctx.Err()
		}
	}
}

// behind says whether a node has not taken over the first so many moves.
func (m *moves) behind(seq int64) bool {
	for _, peer := range m.stage.node.Nodes {
		if peer.Name != m.stage.node.Name && m.upto[peer.Name] < seq {
			return true
		}
	}
	return false
}

func (m *moves) hearAnswers() {
	for document, err := range m.stage.keeper.sync.Subscribe(m.ctx, m.stage.space(), topicMoved) {
		var said moved
		if err == nil {
			err = json.Unmarshal(document, &said)
		}
		if err != nil {
			m.fail(fmt.Errorf("hearing how far other nodes have taken over addresses: %w", err))
			return
		}
		m.mu.Lock()
		m.upto[said.Node] = max(m.upto[said.Node], said.Upto)
		close(m.changed)
		m.changed = make(chan struct{})
		m.mu.Unlock()
	}
}

// end takes back what was taken over: every node does that by itself when the stage is over everywhere.
func (m *moves) end(ctx context.Context) error {
	m.cancel()
	m.work.Wait()
	var failed []error
	for _, slot := range slices.Sorted(maps.Keys(m.remote)) {
		if err := m.stage.keeper.mover().Move(ctx, slot, netip.Prefix{}); err != nil {
			failed = append(failed, fmt.Errorf("forgetting where an instance on another node was: %w", err))
		}
	}
	return errors.Join(failed...)
}

// mover is who is told where instances on other nodes are.
func (k *Keeper) mover() Mover {
	if shaping, can := k.shaping.(Mover); can {
		return shaping
	}
	return cannotMove{}
}

type cannotMove struct{}

func (cannotMove) Move(context.Context, int, netip.Prefix) error {
	return errors.New("this sidecar's network can't follow instances of other nodes that change their address")
}
