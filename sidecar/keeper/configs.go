//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/groundplan/groundplan/sidecar/keeper/outcome"
)

// Observation is something that an instance has done at the sync service.
type Observation struct {
	// Client and Space are what Client said of it.
	Client string
	Space  string
	// Topic is where it published Payload.
	Topic   string
	Payload []byte
	// Seq is the number of Payload in the topic, from 1 on; 0: not known. What was observed before is not acted on again.
	Seq int64
}

// Observe hears of everything that instances publish, and acts on two kinds: an outcome, after which the instance has
// ten seconds to exit, and a configuration of an instance's network. It returns at once.
func (k *Keeper) Observe(o Observation) {
	if strings.HasSuffix(o.Topic, ":run_events") {
		if said := outcome.Event(o.Payload); said.Said() {
			k.running(o.Space, func(w *world) *place { return w.byName[o.Client] }).said(said)
		}
		return
	}
	if prefix, host, found := strings.Cut(o.Topic, ":topics:network:"); found {
		m := k.running(o.Space, func(w *world) *place { return w.byHost[host] })
		m.configure(wish{n: o.Seq, prefix: prefix, config: o.Payload})
	}
}

// running is what runs at a place, if that belongs to the stage of that name space; else nil.
func (k *Keeper) running(space string, find func(*world) *place) *member {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.world == nil {
		return nil
	}
	p := find(k.world)
	if p == nil || p.runs == nil || p.runs.stage.key != space {
		return nil
	}
	return p.runs
}

// said notes that the member has reported an outcome. Where that is already how it ends, it has a while to exit.
func (m *member) said(report outcome.Report) {
	if m == nil {
		return
	}
	m.look() // it may be gone in a moment
	s := m.stage
	s.note(step{Said: &said{Slot: m.place.slot, Report: report}})
	s.mu.Lock()
	defer s.mu.Unlock()
	m.report.Add(report)
	if !m.ended && m.grace == nil && outcome.Decided(m.group.Outcome, m.report) {
		m.graceLocked()
	}
}

// graceLocked gives the member a while to exit.
func (m *member) graceLocked() {
	m.grace = time.AfterFunc(grace, func() { m.kill("did not exit after it had reported its outcome", false) })
}

// wish is a configuration that was published, not yet applied.
type wish struct {
	n      int64  // of the instance, from 1 on; each is larger than the one before
	prefix string // of the plan's keys: run:R:plan:P:case:C
	config []byte
	// entered is closed once the process that asks is known to run: before it can't be ended.
	entered chan struct{}
}

// configs are the configurations that wait at a place, in order, and what those before have changed.
type configs struct {
	mu      sync.Mutex
	waiting []wish
	busy    bool

	// applying is held while one is put in force, or all are taken back. It guards the rest.
	applying sync.Mutex
	asked    bool         // something was, so that there is something to take back
	address  netip.Prefix // the zero value: its own
}

// configure takes a configuration, to be applied after those before it.
func (m *member) configure(w wish) {
	if m == nil {
		return
	}
	s := m.stage
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.ended || m.fall != nil {
		return
	}
	if w.n == 0 {
		w.n = m.wished + 1
	}
	if w.n <= m.wished {
		return
	}
	m.wished, w.entered = w.n, m.entered
	s.note(step{Wished: &wished{Slot: m.place.slot, N: w.n, Prefix: w.prefix, Config: w.config}})
	m.enqueue(w)
}

// enqueue has a configuration wait for its turn.
func (m *member) enqueue(w wish) {
	c := &m.place.configs
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, w)
	if !c.busy {
		c.busy = true
		m.stage.work.Go(m.applyAll)
	}
}

// take returns what waits longest.
func (c *configs) take() (wish, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		c.busy = false
		return wish{}, false
	}
	next := c.waiting[0]
	c.waiting = c.waiting[1:]
	return next, true
}

// applyAll applies what waits. A configuration that can't be applied ends the instance with that reason.
func (m *member) applyAll() {
	for {
		next, there := m.place.configs.take()
		if !there {
			return
		}
		select {
		case <-next.entered:
		case <-m.stage.ctx.Done(): // nothing is killed but what runs
		}
		err := m.apply(next)
		var refused *Refusal
		switch {
		case err == nil || m.stage.ctx.Err() != nil:
		case errors.As(err, &refused):
			m.end(next, refused.Sentence)
		default:
			m.end(next, "its network could not be configured: "+err.Error())
		}
	}
}

// end ends the process that asked, unless an event has started another in its place meanwhile.
func (m *member) end(asked wish, why string) {
	m.stage.mu.Lock()
	same := m.entered == asked.entered
	m.stage.mu.Unlock()
	if same {
		m.kill(why, false)
	}
}

// apply puts one configuration in force, and signals the state that its plan waits for. A *Refusal says what the
// instance did.
func (m *member) apply(w wish) error {
	k, p, s := m.stage.keeper, m.place, m.stage
	c := &p.configs
	c.applying.Lock()
	defer c.applying.Unlock()
	wanted, callback, err := m.wanted(w)
	if err != nil {
		return err
	}
	c.asked = true
	if err := k.shaping.Configure(s.ctx, p.slot, wanted); err != nil {
		if refused := new(Refusal); errors.As(err, &refused) {
			return &Refusal{"asked of its data network what can't be done: " + refused.Sentence}
		}
		return err
	}
	if before := m.elsewhere(c.address); before != m.elsewhere(wanted.Address) {
		if err := s.moves.announce(s.ctx, p.slot, m.elsewhere(wanted.Address)); err != nil {
			return err
		}
	}
	c.address = wanted.Address
	noted := func() {}
	if callback != "" {
		// Whoever goes on after this process was killed here applies it once more, and signals nothing then.
		if noted, err = k.sync.SignalOnce(s.ctx, s.key, w.prefix+":states:"+callback, fmt.Sprintf("%d:%d", p.slot, w.n)); err != nil {
			return err
		}
	}
	s.note(step{Applied: &applied{Slot: p.slot, N: w.n}})
	noted()
	return nil
}

// wanted is what a configuration asks for, and the state that its plan waits for then.
func (m *member) wanted(w wish) (wanted Config, callback string, err error) {
	asked, err := readConfig(w.config)
	if err != nil {
		return wanted, "", err
	}
	p, fabric := m.place, m.stage.keeper.fabric
	wanted, err = asked.settle(fabric.Subnet(), fabric.Address6(p.slot), p.configs.address, m.address())
	return wanted, asked.Callback, err
}

// address is the member's own on the data network.
func (m *member) address() netip.Prefix {
	return netip.PrefixFrom(m.place.data, m.stage.keeper.fabric.Subnet().Bits())
}

// elsewhere is an address that isn't the member's own; the zero value where it is.
func (m *member) elsewhere(address netip.Prefix) netip.Prefix {
	if address == m.address() {
		return netip.Prefix{}
	}
	return address
}

// restoreNetwork takes back what the plans of the stage have configured, so that the next one begins as this one did.
func (s *stage) restoreNetwork(ctx context.Context) error {
	var slots []int
	for _, m := range s.members {
		if m.place.configs.forget() {
			slots = append(slots, m.place.slot)
		}
	}
	if len(slots) == 0 {
		return nil
	}
	if err := s.keeper.shaping.Restore(ctx, slots); err != nil {
		return fmt.Errorf("restoring what %d instances of stage %s had configured of their network: %w", len(slots), s.ask.Stage, err)
	}
	return nil
}

// restore does the same for one member, between two starts of its program.
func (m *member) restore(ctx context.Context) error {
	p := m.place
	p.configs.applying.Lock() // whatever is being put in force was asked for by the process before
	defer p.configs.applying.Unlock()
	moved := m.elsewhere(p.configs.address).IsValid()
	if !p.configs.forgetLocked() {
		return nil
	}
	if err := m.stage.keeper.shaping.Restore(ctx, []int{p.slot}); err != nil || !moved {
		return err
	}
	return m.stage.moves.announce(ctx, p.slot, netip.Prefix{})
}

// forget forgets what was asked for, and says whether there is something to be taken back.
func (c *configs) forget() bool {
	c.applying.Lock()
	defer c.applying.Unlock()
	return c.forgetLocked()
}

func (c *configs) forgetLocked() bool {
	c.mu.Lock()
	c.waiting = nil
	c.mu.Unlock()
	asked := c.asked
	c.asked, c.address = false, netip.Prefix{}
	return asked
}
