//go:build linux

package keeper

import (
	"encoding/json"
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
		m.configure(wish{prefix: prefix, config: o.Payload})
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
	s.mu.Lock()
	defer s.mu.Unlock()
	m.report.Add(report)
	if !m.ended && m.grace == nil && outcome.Decided(m.group.Outcome, m.report) {
		m.grace = time.AfterFunc(grace, func() { m.kill("did not exit after it had reported its outcome", false) })
	}
}

// config is what a plan asks for its own data network.
type config struct {
	Network  string      `json:"network"`
	IPv4     string      `json:"IPv4"`
	IPv6     string      `json:"IPv6"`
	Enable   bool        `json:"enable"`
	Default  linkShape   `json:"default"`
	Rules    []linkShape `json:"rules"`
	Callback string      `json:"callback_state"`
}

type linkShape struct {
	Latency       float64 `json:"latency"`
	Jitter        float64 `json:"jitter"`
	Bandwidth     float64 `json:"bandwidth"`
	Filter        int     `json:"filter"`
	Loss          float64 `json:"loss"`
	Corrupt       float64 `json:"corrupt"`
	CorruptCorr   float64 `json:"corrupt_corr"`
	Reorder       float64 `json:"reorder"`
	ReorderCorr   float64 `json:"reorder_corr"`
	Duplicate     float64 `json:"duplicate"`
	DuplicateCorr float64 `json:"duplicate_corr"`
	Subnet        string  `json:"subnet"`
}

// asks names the first thing that a shape asks for; empty when it asks for nothing.
func (l linkShape) asks() string {
	switch {
	case l.Latency != 0:
		return "latency"
	case l.Jitter != 0:
		return "jitter"
	case l.Bandwidth != 0:
		return "bandwidth"
	case l.Loss != 0:
		return "loss"
	case l.Corrupt != 0:
		return "corruption"
	case l.Reorder != 0:
		return "reordering"
	case l.Duplicate != 0:
		return "duplication"
	case l.Filter == 1:
		return "rejecting"
	case l.Filter != 0:
		return "dropping"
	}
	return ""
}

// refused says why a configuration can't be applied, as what the instance did; empty when it can.
func (c config) refused() string {
	const cannot = "which this ground cannot shape yet"
	if c.Network != "" && c.Network != "default" {
		return fmt.Sprintf("asked to configure the network %q: there is only one data network, called default", c.Network)
	}
	if c.IPv6 != "" {
		return fmt.Sprintf("asked for the IPv6 address %s on its data network, which has IPv4 only", c.IPv6)
	}
	if asks := c.Default.asks(); asks != "" {
		return fmt.Sprintf("asked for %s on its data network, %s", asks, cannot)
	}
	for _, rule := range c.Rules {
		if asks := rule.asks(); asks != "" {
			return fmt.Sprintf("asked for %s towards %s on its data network, %s", asks, rule.Subnet, cannot)
		}
	}
	return ""
}

// wish is a configuration that was published, not yet applied.
type wish struct {
	prefix string // of the plan's keys: run:R:plan:P:case:C
	config []byte
}

// configs are the configurations that wait at a place, in order, and what those before have changed.
type configs struct {
	mu       sync.Mutex
	waiting  []wish
	busy     bool
	disabled bool
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
	if m.ended {
		return
	}
	c := &m.place.configs
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, w)
	if !c.busy {
		c.busy = true
		s.work.Go(m.applyAll)
	}
}

// applyAll applies what waits. A configuration that can't be applied ends the instance with that reason.
func (m *member) applyAll() {
	select {
	case <-m.entered:
	case <-m.stage.ctx.Done(): // nothing is killed but what runs
	}
	c := &m.place.configs
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.busy = false
			c.mu.Unlock()
			return
		}
		next := c.waiting[0]
		c.waiting = c.waiting[1:]
		refused, err := m.apply(next)
		c.mu.Unlock()
		if err != nil && m.stage.ctx.Err() == nil {
			refused = "its network could not be configured: " + err.Error()
		}
		if refused != "" {
			m.kill(refused, false)
		}
	}
}

// apply applies one configuration, and signals the state that its plan waits for. The place's configs are locked.
func (m *member) apply(w wish) (refused string, err error) {
	var asked config
	if err := json.Unmarshal(w.config, &asked); err != nil {
		return "", fmt.Errorf("understanding it: %w", err)
	}
	if refused := asked.refused(); refused != "" {
		return refused, nil
	}
	k, p := m.stage.keeper, m.place
	if asked.IPv4 != "" {
		address, err := netip.ParsePrefix(asked.IPv4)
		if err != nil {
			return "", fmt.Errorf("understanding its IPv4 address: %w", err)
		}
		if err := p.move(k.fabric, address); err != nil {
			return "", err
		}
	}
	if asked.Enable == p.configs.disabled {
		if err := k.fabric.SetEnabled(p.slot, asked.Enable); err != nil {
			return "", err
		}
		p.configs.disabled = !asked.Enable
	}
	if asked.Callback == "" {
		return "", nil
	}
	return "", k.sync.Signal(m.stage.ctx, m.stage.key, w.prefix+":states:"+asked.Callback, 1)
}

// move gives a place another address on the data network. Plans send masks of their own: only the address counts.
func (p *place) move(fabric Network, to netip.Prefix) error {
	subnet := fabric.Subnet()
	if !subnet.Contains(to.Addr()) {
		return fmt.Errorf("the address %s is outside the data network %s", to.Addr(), subnet)
	}
	to = netip.PrefixFrom(to.Addr(), subnet.Bits())
	current := p.configs.address
	if !current.IsValid() {
		current = netip.PrefixFrom(p.data, subnet.Bits())
	}
	if to == current {
		return nil
	}
	if err := fabric.SetDataAddress(p.slot, to); err != nil {
		return err
	}
	p.configs.address = to
	return nil
}

// restoreNetwork undoes what the plans of a stage configured, so that the next one begins as this one did.
func (k *Keeper) restoreNetwork(members []*member) error {
	var failed []error
	for _, m := range members {
		if err := m.place.restore(k.fabric); err != nil {
			failed = append(failed, fmt.Errorf("restoring the network of %s: %w", m.place.name, err))
		}
	}
	return errors.Join(failed...)
}

func (p *place) restore(fabric Network) error {
	c := &p.configs
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = nil
	if c.address.IsValid() {
		if err := p.move(fabric, netip.PrefixFrom(p.data, fabric.Subnet().Bits())); err != nil {
			return err
		}
		c.address = netip.Prefix{}
	}
	if c.disabled {
		if err := fabric.SetEnabled(p.slot, true); err != nil {
			return err
		}
		c.disabled = false
	}
	return nil
}
