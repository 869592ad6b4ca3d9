package keeper

import (
	"fmt"

	"github.com/groundplan/groundplan/pipelines"
)

// unsupported says what of a data network's state this ground can't make, as a sentence about the first thing found;
// empty when it can make all of it.
func unsupported(n pipelines.Network) string {
	const cannot = ", which this ground cannot shape yet"
	if asks := shaped(n.Default); asks != "" {
		return "the network asks for " + asks + " by default" + cannot
	}
	for _, l := range n.Links {
		if asks := shaped(l.Shape); asks != "" {
			return fmt.Sprintf("the network asks for %s from %s to %s%s", asks, l.From, l.To, cannot)
		}
	}
	for from, row := range n.Matrix {
		for to, latency := range row {
			if latency != 0 {
				return fmt.Sprintf("the network asks for latency from region %s to region %s%s", from, to, cannot)
			}
		}
	}
	for _, b := range n.Inbound {
		if b.Policy != "" && b.Policy != "accept" {
			return fmt.Sprintf("the network asks to %s inbound connections%s", b.Policy, cannot)
		}
	}
	if len(n.NAT) > 0 {
		return fmt.Sprintf("the network asks for %s NAT%s", n.NAT[0].Type, cannot)
	}
	if n.Access != "" && n.Access != pipelines.AccessNone {
		return fmt.Sprintf("the network asks for access to the %s%s", n.Access, ", which this ground cannot give yet")
	}
	return ""
}

// shaped names the first thing that a shape asks for; empty when it asks for nothing.
func shaped(s pipelines.Shape) string {
	switch {
	case set(s.Latency):
		return "latency"
	case set(s.Jitter):
		return "jitter"
	case set(s.Bandwidth):
		return "bandwidth"
	case set(s.Loss), set(s.LossCorr):
		return "loss"
	case set(s.Duplicate):
		return "duplication"
	case set(s.Reorder):
		return "reordering"
	case set(s.Corrupt):
		return "corruption"
	case set(s.Queue):
		return "a queue length"
	case s.Policy != "" && s.Policy != "accept":
		return "the policy " + s.Policy
	}
	return ""
}

func set[T comparable](value *T) bool {
	var zero T
	return value != nil && *value != zero
}
