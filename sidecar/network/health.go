package network

import (
	"fmt"
	"time"

	"github.com/groundplan/groundplan/sidecar/shaper"
)

// A run's figures can't be trusted when a larger share of its packets than tooLate left behind their time. A few that one
// moment's stall of the machine has delayed don't count: there have to be more than aFew.
const (
	tooLate = 0.01
	aFew    = 25
)

// Overload is one sentence about what the shaping could not keep up with since the last ResetOverload: packets were lost
// though nobody had asked for it, or too many left late. It is empty when it could.
func (n *Network) Overload() string {
	n.health.Lock()
	defer n.health.Unlock()
	for i, s := range n.shapers {
		if said := overload(s.Name(), since(s.Health(), n.baseline[i])); said != "" {
			return said
		}
	}
	return ""
}

// ResetOverload begins anew to look for overload.
func (n *Network) ResetOverload() {
	n.health.Lock()
	defer n.health.Unlock()
	for i, s := range n.shapers {
		n.baseline[i] = s.Health()
	}
}

// since is what has happened between two moments.
func since(now, before shaper.Health) shaper.Health {
	return shaper.Health{
		Packets: now.Packets - before.Packets, Lost: now.Lost - before.Lost, Late: now.Late - before.Late,
		CPU: now.CPU - before.CPU,
	}
}

// overload says what is wrong, if anything.
func overload(name string, h shaper.Health) string {
	const advice = "send less, shape fewer links, or use a machine with more or idler processors"
	switch {
	case h.Lost > 0:
		return fmt.Sprintf("shaping in %s could not keep up: of %d packets %d were lost though nobody had asked for it (%s)",
			name, h.Packets+h.Lost, h.Lost, advice)
	case h.Late > aFew && float64(h.Late) > tooLate*float64(h.Packets):
		return fmt.Sprintf("shaping in %s could not keep up: of %d packets %d left more than %v behind their time (%s)",
			name, h.Packets, h.Late, shaper.LateAfter.Round(time.Millisecond), advice)
	}
	return ""
}
