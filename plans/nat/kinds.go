package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// kind is what an instance is behind.
type kind string

// The kinds: rendezvous and open stand in the open.
const (
	rendezvous     kind = "rendezvous"
	open           kind = "open"
	fullCone       kind = "full-cone"
	restricted     kind = "restricted"
	portRestricted kind = "port-restricted"
	symmetric      kind = "symmetric"
)

// reach says from where an instance's socket can be reached that has sent to somebody else: a filter in the words of
// RFC 4787, section 5.
type reach string

const (
	fromAnywhere reach = "endpoint-independent"
	fromAddress  reach = "address-dependent"
	fromEndpoint reach = "address and port-dependent"
)

// traits are what an instance can find out about what it is behind.
type traits struct {
	// translated says that others see another address than its own.
	translated bool
	// constant says that all see the same one (endpoint-independent mapping).
	constant bool
	filter   reach
	// hairpin says that two sockets behind it reach each other by their outsides, once both have tried.
	hairpin bool
}

// expected is what RFC 4787 says of each kind.
var expected = map[kind]traits{
	open:           {constant: true, filter: fromAnywhere, hairpin: true},
	fullCone:       {translated: true, constant: true, filter: fromAnywhere, hairpin: true},
	restricted:     {translated: true, constant: true, filter: fromAddress, hairpin: true},
	portRestricted: {translated: true, constant: true, filter: fromEndpoint, hairpin: true},
	symmetric:      {translated: true, constant: false, filter: fromEndpoint, hairpin: false},
}

func (t traits) String() string {
	words := []string{"mapping endpoint-dependent", "filter " + string(t.filter), "no hair-pinning"}
	if t.constant {
		words[0] = "mapping endpoint-independent"
	}
	if t.hairpin {
		words[2] = "hair-pinning"
	}
	if !t.translated {
		words = append([]string{"not translated"}, words[1])
	}
	return strings.Join(words, ", ")
}

// readKind checks a kind as it stands in the parameter `nat`.
func readKind(text string) (kind, error) {
	k := kind(text)
	if _, ok := expected[k]; !ok && k != rendezvous {
		known := append(slices.Sorted(maps.Keys(expected)), rendezvous)
		return "", fmt.Errorf("parameter nat is %q; it has to be one of %v", text, known)
	}
	return k, nil
}

// reachable says whether somebody whom it has never sent to reaches an instance by the address that a rendezvous saw.
func reachable(to kind) bool { return expected[to].filter == fromAnywhere }

// punchable says whether two that send to each other at the same time meet. The address that a rendezvous saw is of no use
// for one whose mapping depends on whom it sends to. It is enough if the other takes in what comes from another port of
// the address that it has sent to.
func punchable(a, b kind) bool {
	blind := func(a, b kind) bool { return !expected[a].constant && expected[b].filter == fromEndpoint }
	return !blind(a, b) && !blind(b, a)
}
