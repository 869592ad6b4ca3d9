//go:build linux

package keeper

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
)

// config is what a plan asks for its own data network, as Testground's SDKs write it.
type config struct {
	Network  string     `json:"network"`
	IPv4     string     `json:"IPv4"`
	IPv6     string     `json:"IPv6"`
	Enable   bool       `json:"enable"`
	Default  linkShape  `json:"default"`
	Rules    []linkRule `json:"rules"`
	Callback string     `json:"callback_state"`
}

// linkShape is in nanoseconds, bits per second and percent. Its writers always write all of it: what is zero is not
// asked for.
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
}

type linkRule struct {
	linkShape
	Subnet string `json:"subnet"`
}

func readConfig(document []byte) (config, error) {
	var c config
	if err := json.Unmarshal(document, &c); err != nil {
		return c, refuse("asked for a configuration of its data network that can't be read: %v", err)
	}
	return c, nil
}

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// settle translates the configuration, for an instance that has the address current (the zero value: its own) and can
// only have that IPv6 address. The error is a *Refusal about what the instance did.
func (c config) settle(subnet netip.Prefix, own6 netip.Addr, current, own netip.Prefix) (Config, error) {
	if c.Network != "" && c.Network != "default" {
		return Config{}, refuse("asked to configure the network %q: there is only one data network, called default", c.Network)
	}
	if err := c.checkIPv6(own6); err != nil {
		return Config{}, err
	}
	wanted := Config{Address: current, Enabled: c.Enable}
	if !current.IsValid() {
		wanted.Address = own
	}
	var err error
	if c.IPv4 != "" {
		if wanted.Address, err = address(c.IPv4, subnet); err != nil {
			return Config{}, err
		}
	}
	if wanted.Plan.Default, err = c.Default.shape(); err != nil {
		return Config{}, err
	}
	for _, r := range c.Rules {
		rule, err := r.rule()
		if err != nil {
			return Config{}, err
		}
		wanted.Plan.Rules = append(wanted.Plan.Rules, rule)
	}
	return wanted, nil
}

// checkIPv6 takes only the address that the instance has.
func (c config) checkIPv6(own netip.Addr) error {
	if c.IPv6 == "" {
		return nil
	}
	asked, err := netip.ParsePrefix(c.IPv6)
	if err != nil {
		return refuse("asked for the IPv6 address %q on its data network, which is none (write it as fd67::2/96)", c.IPv6)
	}
	if asked.Addr() != own {
		return refuse("asked for the IPv6 address %s on its data network: that one can't be changed, it is %s", asked.Addr(), own)
	}
	return nil
}

// address reads an IPv4 address on the data network. Plans send masks of their own: only the address counts.
func address(text string, subnet netip.Prefix) (netip.Prefix, error) {
	asked, err := netip.ParsePrefix(text)
	if err != nil {
		return asked, refuse("asked for the address %q on its data network, which is none (write it as 10.0.0.7/16)", text)
	}
	if !subnet.Contains(asked.Addr()) {
		return asked, refuse("asked for the address %s, which is outside the data network %s", asked.Addr(), subnet)
	}
	return netip.PrefixFrom(asked.Addr(), subnet.Bits()), nil
}

// rule is the shape towards a part of the data network.
func (r linkRule) rule() (links.Rule, error) {
	to, err := netip.ParsePrefix(r.Subnet)
	if err != nil {
		return links.Rule{}, refuse("asked for a rule towards %q on its data network, which is no subnet (write it as 10.0.1.0/24)", r.Subnet)
	}
	shape, err := r.shape()
	return links.Rule{To: to.Masked(), Shape: shape}, err
}

// policies are what becomes of packets, by their number in Filter; accepting is not asked for.
var policies = [...]string{"", "reject", "drop"}

// shape translates a shape.
func (l linkShape) shape() (links.Shape, error) {
	var s links.Shape
	if l.Filter < 0 || l.Filter >= len(policies) {
		return s, refuse("asked for the filter %d on its data network: there are 0 (accept), 1 (reject) and 2 (drop)", l.Filter)
	}
	s.Policy = policies[l.Filter]
	for _, q := range []struct {
		name  string
		value float64
		to    **pipelines.Duration
	}{{"latency", l.Latency, &s.Latency}, {"jitter", l.Jitter, &s.Jitter}} {
		if q.value < 0 || q.value > math.MaxInt64/2 {
			return s, refuse("asked for a %s of %v nanoseconds on its data network: it is between 0 and %v", q.name, q.value, time.Duration(math.MaxInt64/2))
		}
		if q.value != 0 {
			*q.to = new(pipelines.Duration(q.value))
		}
	}
	if l.Bandwidth < 0 || l.Bandwidth > math.MaxInt64/2 {
		return s, refuse("asked for a bandwidth of %v bits per second on its data network, which can't be", l.Bandwidth)
	}
	if l.Bandwidth != 0 {
		s.Bandwidth = new(max(pipelines.Bandwidth(l.Bandwidth), 1))
	}
	return s, l.shares(&s)
}

// shares translates what is given in percent.
func (l linkShape) shares(s *links.Shape) error {
	for _, q := range []struct {
		name  string
		value float64
		to    **pipelines.Share
	}{
		{"loss", l.Loss, &s.Loss}, {"corrupt", l.Corrupt, &s.Corrupt}, {"corrupt_corr", l.CorruptCorr, &s.CorruptCorrelation},
		{"reorder", l.Reorder, &s.Reorder}, {"reorder_corr", l.ReorderCorr, &s.ReorderCorrelation},
		{"duplicate", l.Duplicate, &s.Duplicate}, {"duplicate_corr", l.DuplicateCorr, &s.DuplicateCorrelation},
	} {
		if !(q.value >= 0 && q.value <= 100) {
			return refuse("asked for a %s of %v%% on its data network: a share is between 0 and 100", q.name, q.value)
		}
		if q.value != 0 {
			*q.to = new(pipelines.Share(q.value / 100))
		}
	}
	return nil
}
