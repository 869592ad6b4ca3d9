// Package nat translates addresses as routers between a private and a public network do: full-cone, restricted,
// port-restricted and symmetric NAT in the words of RFC 4787 (UDP), RFC 5382 (TCP) and RFC 5508 (ICMP).
//
//	type             mapping                      filtering                    port
//	full-cone        endpoint-independent         endpoint-independent         kept where it is free
//	restricted       endpoint-independent         address-dependent            kept where it is free
//	port-restricted  endpoint-independent         address and port-dependent   kept where it is free
//	symmetric        address and port-dependent   address and port-dependent   drawn for every remote endpoint
//
// All hair-pin with the external source address, drop unsolicited packets without an answer, refresh mappings of UDP by
// outgoing packets only, and translate ICMP errors with the packet that these carry. Fragments follow their first one.
// Protocols other than UDP, TCP and ICMP don't pass.
//
// It is pure: packets in, packets out, and the time is the caller's.
package nat

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

// NAT is all routers of a data network. Its methods may be called from several goroutines.
type NAT struct {
	mu     sync.Mutex
	random *rand.Rand
	log    *slog.Logger
	// seats are the instances by address, homes the routers that instances are behind by slot, external the routers by
	// their address.
	seats    map[uint32]int
	homes    map[int]*router
	external map[uint32]*router
	// away has the addresses of routers on other nodes, with an instance behind each.
	away      map[uint32]int
	fragments fragments
	epoch     time.Time
}

// New makes a NAT without routers. Ports that aren't kept are drawn from the seed.
func New(seed uint64, log *slog.Logger) *NAT {
	return &NAT{random: rand.New(rand.NewPCG(seed, 0x4e4154)), log: log}
}

// Apply puts routers in force in place of those before. One that stays as it was keeps its mappings, but those of
// instances that are no longer behind it or that have another address. instances are all of the data network. Routers
// that are away are on other nodes, where all packets for them go. An error changes nothing.
func (n *NAT) Apply(routers, away []links.Router, instances []links.Instance) error {
	others := make(map[uint32]int, len(away))
	for _, r := range away {
		external, err := ipv4(r.External)
		if err != nil {
			return fmt.Errorf("the external address of a NAT on another node: %w", err)
		}
		others[external] = r.Slots[0]
	}
	seats := make(map[uint32]int, len(instances))
	addresses := make(map[int]uint32, len(instances))
	for _, i := range instances {
		if a, err := ipv4(i.Data); err == nil { // one that is off the network has none
			seats[a], addresses[i.Slot] = i.Slot, a
		}
	}
	homes, external := map[int]*router{}, make(map[uint32]*router, len(routers))
	var faults []error
	for _, of := range routers {
		faults = append(faults, n.add(of, addresses, homes, external))
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keep(homes, external)
	n.seats, n.homes, n.external, n.away = seats, homes, external, others
	return nil
}

// add makes a router and puts it where it can be found.
func (n *NAT) add(of links.Router, addresses map[int]uint32, homes map[int]*router, external map[uint32]*router) error {
	behind := make(map[int]uint32, len(of.Slots))
	r, err := newRouter(of, behind, n.random, n.log)
	if err != nil {
		return err
	}
	if external[r.external] != nil {
		return fmt.Errorf("two NATs have the external address %v", of.External)
	}
	external[r.external] = r
	for _, slot := range of.Slots {
		if homes[slot] != nil {
			return fmt.Errorf("instance %d is behind two NATs, %v and %v", slot, address(homes[slot].external), of.External)
		}
		homes[slot] = r
		if a, ok := addresses[slot]; ok {
			behind[slot] = a
		}
	}
	return nil
}

// keep puts the routers that are there already in place of new ones that are like them.
func (n *NAT) keep(homes map[int]*router, external map[uint32]*router) {
	for address, r := range external {
		old := n.external[address]
		if old == nil || !old.like(r) {
			continue
		}
		old.seat(r.addresses)
		external[address] = old
	}
	for slot, r := range homes {
		homes[slot] = external[r.external]
	}
}

// Translate takes an IPv4 packet that the instance in slot from has sent across the NATs on its way, and changes it in
// place, never its length. to is the slot that it is for now; not ok: it is to be dropped, whatever is in it.
// A packet that crosses no NAT stays as it is. Times may come from any clock, but always from the same.
func (n *NAT) Translate(bytes []byte, from int, now time.Time) (to int, ok bool) {
	p, ok := parse(bytes)
	if !ok {
		return 0, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.epoch.IsZero() {
		n.epoch = now
	}
	at := now.Sub(n.epoch)
	home := n.homes[from]
	if home != nil && p.sender() != home.addresses[from] {
		return 0, false
	}
	if slot, ok := n.seats[p.receiver()]; ok && n.homes[slot] == home {
		return slot, true // both are public or behind the same router
	}
	if p.later {
		return n.fragments.follow(&p, at)
	}
	key := keyOf(&p)
	to, ok = n.cross(&p, home, from, at)
	if ok && p.first {
		n.fragments.remember(key, &p, to, at)
	}
	return to, ok
}

// cross takes a packet out of the sender's router, if any, and into the receiver's, if any.
func (n *NAT) cross(p *packet, home *router, from int, now time.Duration) (to int, ok bool) {
	far := n.external[p.receiver()]
	if far == nil {
		slot, ok := n.away[p.receiver()]
		if !ok {
			slot, ok = n.seats[p.receiver()]
		}
		if !ok || n.homes[slot] != nil {
			return 0, false // nobody is there, or nobody who can be seen from here
		}
		to = slot
	}
	if p.failure && (p.source.address != p.sender() && home != nil || p.destination.address != p.receiver()) {
		return 0, false // it is about a packet of others
	}
	if home != nil && !home.leave(p, from, now) {
		return 0, false
	}
	if far != nil {
		return far.enter(p, now)
	}
	return to, true
}
