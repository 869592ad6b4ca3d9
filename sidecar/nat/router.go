package nat

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/sidecar/links"
)

// filtering says from where packets may come to a mapping (RFC 4787, section 5).
type filtering uint8

const (
	endpointIndependent filtering = iota // from everywhere
	addressDependent                     // from addresses that it has sent to
	endpointDependent                    // from addresses and ports that it has sent to
)

// behaviour is what makes a type of NAT.
type behaviour struct {
	filtering filtering
	// dependent says that there is a mapping for every remote endpoint, with a port that has nothing to do with that of
	// the others. Else one mapping serves all, and keeps the port where it can.
	dependent bool
}

// behaviours are those of the types that the language has.
var behaviours = map[links.NATType]behaviour{
	"full-cone":       {filtering: endpointIndependent},
	"restricted":      {filtering: addressDependent},
	"port-restricted": {filtering: endpointDependent},
	"symmetric":       {filtering: endpointDependent, dependent: true},
}

// sample is how many entries are looked at for ones to be forgotten whenever one is added.
const sample = 4

// exhaustedFor is how long no port is looked for after none was left.
const exhaustedFor = time.Second

// insideKey finds the mapping of an outgoing packet. The remote endpoint is only set where mappings depend on it.
type insideKey struct {
	protocol uint8
	local    endpoint
	remote   endpoint
}

// outsideKey finds the mapping of an incoming packet.
type outsideKey struct {
	protocol uint8
	port     uint16
	remote   endpoint
}

// portKey counts mappings.
type portKey struct {
	protocol uint8
	port     uint16
}

// router is one NAT with its mappings.
type router struct {
	external uint32
	kind     links.NATType
	behaviour
	timeout time.Duration
	// addresses are those of the instances behind it, by slot.
	addresses map[int]uint32
	inside    map[insideKey]*mapping
	outside   map[outsideKey]*mapping
	used      map[portKey]int // how many mappings have a port
	// exhausted says until when no port is looked for, by protocol.
	exhausted map[uint8]time.Duration
	random    *rand.Rand
	log       *slog.Logger
}

func newRouter(of links.Router, addresses map[int]uint32, random *rand.Rand, log *slog.Logger) (*router, error) {
	b, ok := behaviours[of.Type]
	if !ok {
		return nil, fmt.Errorf("there is no NAT of type %q", of.Type)
	}
	external, err := ipv4(of.External)
	if err != nil {
		return nil, fmt.Errorf("the external address of a NAT: %w", err)
	}
	timeout := of.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	return &router{
		external: external, kind: of.Type, behaviour: b, timeout: timeout, addresses: addresses,
		inside: map[insideKey]*mapping{}, outside: map[outsideKey]*mapping{},
		used: map[portKey]int{}, exhausted: map[uint8]time.Duration{}, random: random, log: log,
	}, nil
}

// like says whether another router does the same, whoever is behind it.
func (r *router) like(other *router) bool {
	return r.external == other.external && r.kind == other.kind && r.timeout == other.timeout
}

// seat says who is behind the router from now on. Mappings of those that are gone or have another address go with them.
func (r *router) seat(addresses map[int]uint32) {
	if maps.Equal(r.addresses, addresses) {
		return
	}
	r.addresses = addresses
	for _, m := range r.inside {
		if address, ok := addresses[m.slot]; !ok || address != m.inside.local.address {
			r.remove(m)
		}
	}
}

// leave takes a packet from an instance out: its source becomes an endpoint of the router.
func (r *router) leave(p *packet, slot int, now time.Duration) bool {
	key := insideKey{protocol: p.protocol(), local: p.source}
	if r.dependent {
		key.remote = p.destination
	}
	m := r.inside[key]
	if p.failure {
		if m == nil || !m.live(now) {
			return false
		}
		p.setSource(endpoint{r.external, m.outside.port})
		return true
	}
	var s *session
	if m != nil {
		s = m.session(p.destination, now)
		if s == nil && !m.live(now) {
			r.remove(m)
			m = nil
		}
	}
	if s == nil && !p.opensOut() {
		return false
	}
	if m == nil {
		if m = r.add(key, p, slot, now); m == nil {
			return false
		}
	}
	if s == nil {
		s = m.open(p.destination, 0, now)
	}
	switch p.protocol() {
	case protocolTCP:
		s.follow(p.flags, goingOut, now)
	case protocolUDP:
		s.expires = now + r.timeout
	default:
		s.expires = now + queryTimeout
	}
	p.setSource(endpoint{r.external, m.outside.port})
	return true
}

// enter takes a packet to the instance whose mapping it is for.
func (r *router) enter(p *packet, now time.Duration) (slot int, ok bool) {
	key := outsideKey{protocol: p.protocol(), port: p.destination.port}
	if r.dependent {
		key.remote = p.source
	}
	m := r.outside[key]
	if m == nil {
		return 0, false
	}
	if p.failure {
		// It may come from anywhere on the way, and changes nothing about how long the mapping stays.
		if !m.live(now) {
			return 0, false
		}
		p.setDestination(m.inside.local)
		return m.slot, true
	}
	s := m.session(p.source, now)
	if s == nil {
		until, admitted := r.admits(m, p.source, now)
		if !admitted || !p.opensIn() {
			return 0, false
		}
		s = m.open(p.source, until, now)
	}
	if p.protocol() == protocolTCP {
		s.follow(p.flags, comingIn, now)
	}
	p.setDestination(m.inside.local)
	return m.slot, true
}

// admits says whether the filter lets a remote endpoint in that has no session, and until when.
func (r *router) admits(m *mapping, remote endpoint, now time.Duration) (until time.Duration, ok bool) {
	switch r.filtering {
	case endpointIndependent:
		return m.latest(now, func(endpoint) bool { return true })
	case addressDependent:
		if m.addresses[remote.address] == 0 {
			return 0, false
		}
		return m.latest(now, func(known endpoint) bool { return known.address == remote.address })
	default:
		return 0, false
	}
}

// opensOut says whether an outgoing packet may begin a session. A TCP segment in the middle of a connection does, as
// with Linux's own NAT: the other side then refuses it, and the instance learns that its connection is gone.
func (p *packet) opensOut() bool {
	switch p.protocol() {
	case protocolTCP:
		return p.flags&flagRST == 0
	case protocolICMP:
		return p.outer.sourcePort != none // asks
	default:
		return true
	}
}

// opensIn says whether an incoming packet that the filter lets in may begin a session.
func (p *packet) opensIn() bool {
	switch p.protocol() {
	case protocolTCP:
		return p.flags&flagSYN != 0 && p.flags&(flagACK|flagRST) == 0
	case protocolICMP:
		return false
	default:
		return true
	}
}

// add makes a mapping, nil when no port is left.
func (r *router) add(key insideKey, p *packet, slot int, now time.Duration) *mapping {
	r.forget(now)
	outside, ok := r.choose(key, now)
	if !ok {
		return nil
	}
	m := &mapping{slot: slot, inside: key, outside: outside, sessions: map[endpoint]*session{}}
	if r.filtering == addressDependent {
		m.addresses = map[uint32]int{}
	}
	r.inside[key], r.outside[outside] = m, m
	r.used[portKey{outside.protocol, outside.port}]++
	return m
}

func (r *router) remove(m *mapping) {
	delete(r.inside, m.inside)
	delete(r.outside, m.outside)
	port := portKey{m.outside.protocol, m.outside.port}
	if r.used[port]--; r.used[port] == 0 {
		delete(r.used, port)
	}
}

// forget drops a few mappings whose time is over, so that those that nobody asks for anymore don't pile up.
func (r *router) forget(now time.Duration) {
	looked := 0
	for _, m := range r.inside {
		if !m.live(now) {
			r.remove(m)
		}
		if looked++; looked == sample {
			return
		}
	}
}

// tries is how many ports are drawn before all are looked at.
const tries = 32

// choose finds a port. Ports below 1024 stay below (RFC 4787, REQ-3).
func (r *router) choose(key insideKey, now time.Duration) (outsideKey, bool) {
	of := outsideKey{protocol: key.protocol, port: key.local.port, remote: key.remote}
	if !r.dependent && r.free(of, now) {
		return of, true
	}
	if r.exhausted[key.protocol] > now {
		return of, false
	}
	low, count := 1024, 1<<16-1024
	if key.local.port < 1024 {
		low, count = 1, 1023
	}
	// A port that no other mapping has shows nothing of those of others. When there is none, one that others have towards
	// other endpoints will do, which only mappings that depend on the endpoint can be told apart by.
	for range tries {
		of.port = uint16(low + r.random.IntN(count))
		if r.used[portKey{of.protocol, of.port}] == 0 {
			return of, true
		}
	}
	for start, i := r.random.IntN(count), 0; i < count; i++ {
		of.port = uint16(low + (start+i)%count)
		if r.free(of, now) {
			return of, true
		}
	}
	r.exhausted[key.protocol] = now + exhaustedFor
	r.log.Warn("a NAT has no port left; packets that need one are dropped",
		slog.String("external", address(r.external).String()), slog.Int("protocol", int(key.protocol)), slog.Int("mappings", len(r.inside)))
	return of, false
}

// free says whether no mapping has a key; one whose time is over goes.
func (r *router) free(key outsideKey, now time.Duration) bool {
	m := r.outside[key]
	if m == nil {
		return true
	}
	if m.live(now) {
		return false
	}
	r.remove(m)
	return true
}

// ipv4 is an address as a number.
func ipv4(a netip.Addr) (uint32, error) {
	if !a.Is4() {
		return 0, fmt.Errorf("%v is not an IPv4 address", a)
	}
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), nil
}

func address(a uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}
