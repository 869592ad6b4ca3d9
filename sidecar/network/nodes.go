package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/groundplan/groundplan/sidecar/links"
)

// away says whether a slot is on another node.
func (n *Network) away(slot int) bool {
	if n.nodes == nil {
		return false
	}
	node := n.nodes.NodeOf(slot)
	return node.IsValid() && node != n.nodes.NodeAddress()
}

// there says whether an instance is on the network. Over nodes that is every one that a node is said to hold, so that all
// of them see the same network.
func (n *Network) there(slot int) bool {
	return n.fabric.Present(slot) || n.nodes != nil && n.nodes.NodeOf(slot).IsValid()
}

// meet takes over how instances of this node are seated, which a network before this one may have changed.
func (n *Network) meet(all []*change) {
	if n.nodes == nil {
		return
	}
	slots := 0
	for _, c := range all {
		for _, slot := range c.slots {
			n.meetAt(slot)
		}
		if c.seats {
			probe := n.asked.clone()
			c.to(&probe)
			for _, g := range probe.groups {
				slots += g.Instances
			}
		}
	}
	for slot := range slots {
		n.meetAt(slot)
	}
}

func (n *Network) meetAt(slot int) {
	address, enabled, ok := n.nodes.Seated(slot)
	if !ok {
		return
	}
	found := seat{address: address, disabled: !enabled}
	if _, own := n.fabric.Addresses(slot); address.Addr() == own {
		found.address = netip.Prefix{}
	}
	n.seated[slot] = found
	if found == (seat{}) {
		delete(n.seated, slot)
	}
	if !n.met[slot] {
		n.met[slot] = true
		n.asked = n.asked.clone()
		n.asked.configure(slot, found, n.asked.layers.Plans[slot])
	}
}

// together refuses NATs with instances on several nodes behind them.
func (n *Network) together(state *links.State) error {
	if n.nodes == nil {
		return nil
	}
	for _, r := range state.Routers() {
		home := n.nodes.NodeOf(r.Slots[0])
		i := slices.IndexFunc(r.Slots, func(slot int) bool { return n.nodes.NodeOf(slot) != home })
		if i < 0 {
			continue
		}
		return &Refusal{fmt.Sprintf("the instances behind one NAT are spread over several nodes (%s and %s): a NAT works on the node that all instances behind it are on (place their groups on one node, or give each instance a NAT of its own with `perInstance: true`)",
			name(state, r.Slots[0]), name(state, r.Slots[i]))}
	}
	return nil
}

// name is how a person knows the instance in a slot.
func name(state *links.State, slot int) string {
	first := 0
	for _, g := range state.Seats().Groups {
		if slot < first+g.Instances {
			return fmt.Sprintf("%s/%d", g.Name, slot-first)
		}
		first += g.Instances
	}
	return fmt.Sprint("slot ", slot)
}

// homes sorts the NATs into those on this node and those on others.
func (n *Network) homes(state *links.State) (here, away []links.Router) {
	for _, r := range state.Routers() {
		if n.away(r.Slots[0]) {
			away = append(away, r)
		} else {
			here = append(here, r)
		}
	}
	return here, away
}

// lead has packets for the NATs on other nodes go there.
func (n *Network) lead(away []links.Router) error {
	if n.nodes == nil {
		return nil
	}
	homes := make(map[netip.Addr]int, len(away))
	for _, r := range away {
		homes[r.External] = r.Slots[0]
	}
	return n.nodes.SetHomes(homes)
}
