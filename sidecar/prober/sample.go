package prober

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/groundplan/groundplan/sidecar/links"
)

// pair is one direction between two instances, and what is asked of it.
type pair struct {
	from, to         links.Instance
	fromName, toName string // group/index
	six              bool   // probed over IPv6
	// first says that no pair of the same groups stands before it.
	first bool
	way   links.Path // from → to
	back  links.Path
	// inbound and outbound are what becomes of new connections into to and into from.
	inbound, outbound links.Policy
}

// sample draws n directions between instances, fewer where there aren't as many. Every direction between two groups, and
// inside a group, gets one before any gets a second; where n is too small for that, those that something is asked of
// come first. What is drawn follows from the seed and from who sits where.
func sample(state *links.State, n int, seed uint64) []pair {
	random := rand.New(rand.NewPCG(seed, 0x70726f6f66))
	groups := byGroup(state.Seats().Instances)
	open := directions(groups, random)
	asked := func(d *direction) int {
		if p := describe(state, d, [2]int{0, len(d.to.members) - 1}); p.way.Shaped() || p.expected() != links.Accept {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(open, func(a, b *direction) int { return asked(a) - asked(b) })
	var pairs []pair
	for round := 0; len(open) > 0 && len(pairs) < n; round++ {
		for _, d := range open[:min(len(open), n-len(pairs))] {
			p := describe(state, d, d.draw(random))
			p.first = round == 0
			if round%3 == 1 {
				p.overIPv6(state)
			}
			pairs = append(pairs, p)
		}
		open = slices.DeleteFunc(open, (*direction).exhausted)
	}
	return pairs
}

// group has the instances of one group, in order.
type group struct {
	name    string
	members []links.Instance
}

func byGroup(instances []links.Instance) []*group {
	var groups []*group
	for _, i := range instances {
		if len(groups) == 0 || groups[len(groups)-1].name != i.Group {
			groups = append(groups, &group{name: i.Group})
		}
		last := groups[len(groups)-1]
		last.members = append(last.members, i)
	}
	return groups
}

// direction is that from one group to another, or inside one.
type direction struct {
	from, to *group
	drawn    map[[2]int]bool
}

// directions are all those with at least one pair, in an order drawn at random.
func directions(groups []*group, random *rand.Rand) []*direction {
	var all []*direction
	for _, from := range groups {
		for _, to := range groups {
			if d := (&direction{from, to, make(map[[2]int]bool)}); !d.exhausted() {
				all = append(all, d)
			}
		}
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// size is how many pairs a direction has.
func (d *direction) size() int {
	if d.from == d.to {
		return len(d.from.members) * (len(d.from.members) - 1)
	}
	return len(d.from.members) * len(d.to.members)
}

func (d *direction) exhausted() bool { return len(d.drawn) >= d.size() }

// draw draws a pair that wasn't drawn before; there has to be one. From a random one on it takes the next that is free.
func (d *direction) draw(random *rand.Rand) [2]int {
	at := [2]int{random.IntN(len(d.from.members)), random.IntN(len(d.to.members))}
	for d.drawn[at] || (d.from == d.to && at[0] == at[1]) {
		if at[1]++; at[1] == len(d.to.members) {
			at = [2]int{(at[0] + 1) % len(d.from.members), 0}
		}
	}
	d.drawn[at] = true
	return at
}

// describe says what is asked of the pair at these places of two groups.
func describe(state *links.State, d *direction, at [2]int) pair {
	from, to := d.from.members[at[0]], d.to.members[at[1]]
	inbound := state.Inbound()
	return pair{
		from: from, to: to,
		fromName: fmt.Sprintf("%s/%d", d.from.name, at[0]), toName: fmt.Sprintf("%s/%d", d.to.name, at[1]),
		way: state.Path(from.Slot, to.Data), back: state.Path(to.Slot, from.Data),
		inbound: inbound[to.Slot], outbound: inbound[from.Slot],
	}
}

// overIPv6 has a pair probed over IPv6, unless a NAT stands between: that is for IPv4.
func (p *pair) overIPv6(state *links.State) {
	if !p.from.Data6.IsValid() || !p.to.Data6.IsValid() || p.natted() {
		return
	}
	p.six = true
	p.way, p.back = state.Path(p.from.Slot, p.to.Data6), state.Path(p.to.Slot, p.from.Data6)
}

func (p *pair) natted() bool {
	return p.way.Private || p.way.Translated || p.back.Private || p.back.Translated
}

// expected is what is to become of the first packet.
func (p *pair) expected() links.Policy {
	switch {
	case p.way.Private, p.way.Translated && p.way.Policy != links.Accept:
		return links.Drop
	case p.way.Policy != links.Accept:
		return p.way.Policy
	}
	return p.inbound
}

// measurable says whether packets get through, if need be as answers to packets that came the other way before.
func (p *pair) measurable() bool {
	if p.way.Private || p.way.Policy != links.Accept {
		return false
	}
	return p.inbound == links.Accept || p.answerable()
}

// answerable says whether packets come through the other way.
func (p *pair) answerable() bool {
	return !p.back.Private && p.back.Policy == links.Accept && p.outbound == links.Accept
}
