package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// ErrNotShaped is returned where the network can't be configured.
var ErrNotShaped = errors.New("the network of this run can't be configured by its instances")

// Link is how traffic fares on its way out. What is zero is not interfered with.
type Link struct {
	Latency   time.Duration
	Jitter    time.Duration
	Bandwidth Bandwidth // bits per second: 20 * sdk.Mbit
	Filter    Filter
	// Shares of the packets, between 0 and 1.
	Loss, Corrupt, Reorder, Duplicate Share
	// How much the fate of a packet depends on that of the one before, between 0 and 1.
	CorruptCorrelation, ReorderCorrelation, DuplicateCorrelation Share
}

// Filter is what becomes of packets.
type Filter int

// The filters: let through, refuse with an answer, or lose without a word.
const (
	Accept Filter = iota
	Reject
	Drop
)

// Rule is the link to a part of the data network.
type Rule struct {
	Link
	To netip.Prefix
}

// Network is what an instance asks of its data network. The zero value is a network as it is without any configuration.
type Network struct {
	// Disconnected takes the instance off the data network.
	Disconnected bool
	// Address gives the instance another address there; when it isn't valid the address stays.
	Address netip.Prefix
	Default Link
	Rules   []Rule
	// Closed keeps the instance from everything beyond the data network.
	Closed bool
}

// link is a Link on the wire; bandwidth is in bits per second, shares in percent.
type link struct {
	Latency       time.Duration `json:"latency"`
	Jitter        time.Duration `json:"jitter"`
	Bandwidth     Bandwidth     `json:"bandwidth"`
	Filter        Filter        `json:"filter"`
	Loss          float64       `json:"loss"`
	Corrupt       float64       `json:"corrupt"`
	CorruptCorr   float64       `json:"corrupt_corr"`
	Reorder       float64       `json:"reorder"`
	ReorderCorr   float64       `json:"reorder_corr"`
	Duplicate     float64       `json:"duplicate"`
	DuplicateCorr float64       `json:"duplicate_corr"`
}

type rule struct {
	link
	Subnet string `json:"subnet"`
}

type configuration struct {
	Network  string  `json:"network"`
	IPv4     *string `json:"IPv4"`
	IPv6     *string `json:"IPv6"`
	Enable   bool    `json:"enable"`
	Default  link    `json:"default"`
	Rules    []rule  `json:"rules"`
	Callback string  `json:"callback_state"`
	Routing  string  `json:"routing_policy"`
}

// ConfigureNetwork changes the instance's data network and returns when the change is in force. It replaces what an
// earlier call asked for. A configuration that can't be applied ends the instance, with the reason in its outcome.
func (r *Run) ConfigureNetwork(ctx context.Context, n Network) error {
	if !r.Shaped {
		return ErrNotShaped
	}
	if r.Host == "" {
		return errors.New("configuring the network: the instance doesn't know its host name")
	}
	r.configs.Lock()
	r.configured++
	callback := "network-configured-" + r.Host + "-" + strconv.Itoa(r.configured)
	r.configs.Unlock()
	c, err := n.wire(callback)
	if err != nil {
		return fmt.Errorf("configuring the network: %w", err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("configuring the network: %w", err)
	}
	topic := "network:" + r.Host
	if _, err := r.publish(ctx, r.topicKey(topic), topic, payload); err != nil {
		return fmt.Errorf("configuring the network: %w", err)
	}
	return r.Barrier(ctx, callback, 1)
}

func (n *Network) wire(callback string) (configuration, error) {
	c := configuration{Network: "default", Enable: !n.Disconnected, Callback: callback, Routing: "allow_all", Rules: []rule{}}
	if n.Closed {
		c.Routing = "deny_all"
	}
	if n.Address.IsValid() {
		text := n.Address.String()
		if n.Address.Addr().Is4() {
			c.IPv4 = &text
		} else {
			c.IPv6 = &text
		}
	}
	var err error
	if c.Default, err = n.Default.wire(); err != nil {
		return c, err
	}
	for i, r := range n.Rules {
		if !r.To.IsValid() {
			return c, fmt.Errorf("rule %d: To is no network", i)
		}
		l, err := r.wire()
		if err != nil {
			return c, fmt.Errorf("rule %d, to %s: %w", i, r.To, err)
		}
		c.Rules = append(c.Rules, rule{l, r.To.String()})
	}
	return c, nil
}

func (l *Link) wire() (link, error) {
	if l.Latency < 0 || l.Jitter < 0 || l.Bandwidth < 0 || l.Filter < Accept || l.Filter > Drop {
		return link{}, errors.New("latency, jitter and bandwidth can't be negative, and a filter is Accept, Reject or Drop")
	}
	shares := []Share{l.Loss, l.Corrupt, l.Reorder, l.Duplicate, l.CorruptCorrelation, l.ReorderCorrelation, l.DuplicateCorrelation}
	for _, s := range shares {
		if !(s >= 0 && s <= 1) {
			return link{}, fmt.Errorf("%v is no share: those are between 0 and 1", float64(s))
		}
	}
	percent := func(s Share) float64 { return 100 * float64(s) }
	return link{
		Latency: l.Latency, Jitter: l.Jitter, Bandwidth: l.Bandwidth, Filter: l.Filter,
		Loss: percent(l.Loss), Corrupt: percent(l.Corrupt), CorruptCorr: percent(l.CorruptCorrelation),
		Reorder: percent(l.Reorder), ReorderCorr: percent(l.ReorderCorrelation),
		Duplicate: percent(l.Duplicate), DuplicateCorr: percent(l.DuplicateCorrelation),
	}, nil
}

// DataAddress is the instance's address on the data network, as it is now. Where there is no such network it is the
// loopback address.
func (e *Environment) DataAddress() (netip.Addr, error) {
	if !e.Subnet.IsValid() {
		if e.data.IsValid() {
			return e.data, nil
		}
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("looking for the data address: %w", err)
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && e.Subnet.Contains(p.Addr().Unmap()) {
			return p.Addr().Unmap(), nil
		}
	}
	if e.data.IsValid() { // while it is disconnected
		return e.data, nil
	}
	if !e.Shaped {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	return netip.Addr{}, fmt.Errorf("no interface has an address in the data network %s", e.Subnet)
}

// DataAddress6 is the instance's IPv6 address on the data network. It stays the same when DataAddress is changed. Where
// the data network has no IPv6 it is not valid.
func (e *Environment) DataAddress6() (netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("looking for the IPv6 data address: %w", err)
	}
	for _, i := range interfaces {
		addresses, err := i.Addrs()
		if err != nil {
			return netip.Addr{}, fmt.Errorf("looking for the IPv6 data address of %s: %w", i.Name, err)
		}
		if a := e.beside(addresses); a.IsValid() {
			return a, nil
		}
	}
	return netip.Addr{}, nil
}

// beside is the IPv6 address on an interface that has one in the data network; not valid when there is none.
func (e *Environment) beside(addresses []net.Addr) (six netip.Addr) {
	ours := false
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a.String())
		switch own := p.Addr().Unmap(); {
		case err != nil:
		case own.Is4():
			ours = ours || (e.Subnet.IsValid() && e.Subnet.Contains(own))
		case own.IsGlobalUnicast() && !six.IsValid():
			six = own
		}
	}
	if !ours {
		return netip.Addr{}
	}
	return six
}
