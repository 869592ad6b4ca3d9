package nat

import "encoding/binary"

// endpoint is an IPv4 address and a port, or the identifier that takes its place in ICMP queries.
type endpoint struct {
	address uint32
	port    uint16
}

// Numbers of protocols, and where their headers hold what is rewritten.
const (
	protocolICMP = 1
	protocolTCP  = 6
	protocolUDP  = 17

	sourceAt, destinationAt = 12, 16 // in an IPv4 header
	shortestIP              = 20
	shortestICMP            = 8
	shortestTCP             = 20
	shortestUDP             = 8
	leastEmbedded           = 8 // bytes of a packet that an ICMP error carries behind the IP header
)

// Types of ICMP messages.
const (
	echoReply, echoRequest           = 0, 8
	timestampRequest, timestampReply = 13, 14
	unreachable, quench              = 3, 4
	timeExceeded, parameterProblem   = 11, 12
)

// Flags of a TCP header.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	_
	flagACK
)

// none stands for a field that a packet doesn't have.
const none = -1

// header says where an IPv4 packet holds what is rewritten: as offsets into the bytes that it is in.
type header struct {
	ip, transport int
	protocol      uint8
	// sourcePort and destinationPort are none where the protocol has none, checksum where the packet is too short for it.
	sourcePort, destinationPort int
	checksum                    int
}

// packet is an IPv4 packet of a session. An ICMP error belongs to the session of the packet that it carries: its source
// and destination are the destination and source of that one, so that a router treats it like any packet on that way.
type packet struct {
	bytes []byte
	outer header
	// inner is the packet that an ICMP error carries.
	inner               header
	failure             bool
	source, destination endpoint
	flags               uint8 // of TCP
	query               bool  // of ICMP
	// later says that this is a fragment without a transport header: only addresses are known. first says that such follow.
	first, later bool
}

// protocol is that of the session.
func (p *packet) protocol() uint8 {
	if p.failure {
		return p.inner.protocol
	}
	return p.outer.protocol
}

// sender is who the packet says that it is from.
func (p *packet) sender() uint32 { return binary.BigEndian.Uint32(p.bytes[sourceAt:]) }

// receiver is whom the packet is for.
func (p *packet) receiver() uint32 { return binary.BigEndian.Uint32(p.bytes[destinationAt:]) }

// identification is the number that all fragments of a packet share.
func (p *packet) identification() uint16 { return binary.BigEndian.Uint16(p.bytes[4:]) }

// parse finds its way in an IPv4 packet. It refuses what can't be translated: other protocols than UDP, TCP and ICMP,
// what is cut short, and messages of ICMP that belong to no session.
func parse(b []byte) (packet, bool) {
	if len(b) < shortestIP || b[0]>>4 != 4 {
		return packet{}, false
	}
	length, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if length < shortestIP || total < length || total > len(b) {
		return packet{}, false
	}
	b = b[:total]
	p := packet{bytes: b, outer: header{transport: length, protocol: b[9], checksum: none, sourcePort: none, destinationPort: none}}
	place := binary.BigEndian.Uint16(b[6:])
	p.first = place&0x3fff == 0x2000
	p.later = place&0x1fff != 0
	p.source.address, p.destination.address = p.sender(), p.receiver()
	if p.later {
		return p, true
	}
	var ok bool
	switch p.outer.protocol {
	case protocolUDP:
		ok = len(b) >= length+shortestUDP
	case protocolTCP:
		ok = len(b) >= length+shortestTCP
		if ok {
			p.flags = b[length+13]
		}
	case protocolICMP:
		if len(b) < length+shortestICMP {
			return packet{}, false
		}
		p.query = queries(b[length])
		ok = p.query || p.parseFailure()
	}
	if !ok {
		return packet{}, false
	}
	if !p.failure {
		p.outer.locate(b)
		p.source.port, p.destination.port = p.outer.ports(b)
	}
	return p, true
}

func queries(kind byte) bool {
	return kind == echoRequest || kind == echoReply || kind == timestampRequest || kind == timestampReply
}

// parseFailure reads the packet inside an ICMP error.
func (p *packet) parseFailure() bool {
	switch p.bytes[p.outer.transport] {
	case unreachable, quench, timeExceeded, parameterProblem:
	default:
		return false
	}
	ip := p.outer.transport + shortestICMP
	b := p.bytes
	if p.first || len(b) < ip+shortestIP || b[ip]>>4 != 4 || binary.BigEndian.Uint16(b[ip+6:])&0x1fff != 0 {
		return false
	}
	length := int(b[ip]&0xf) * 4
	if length < shortestIP || len(b) < ip+length+leastEmbedded {
		return false
	}
	p.failure = true
	p.inner = header{ip: ip, transport: ip + length, protocol: b[ip+9]}
	switch p.inner.protocol {
	case protocolUDP, protocolTCP:
	case protocolICMP:
		if !queries(b[p.inner.transport]) {
			return false
		}
	default:
		return false
	}
	p.inner.locate(b)
	p.outer.checksum = p.outer.transport + 2
	p.source.address = binary.BigEndian.Uint32(b[ip+destinationAt:])
	p.destination.address = binary.BigEndian.Uint32(b[ip+sourceAt:])
	p.destination.port, p.source.port = p.inner.ports(b)
	return true
}

// locate finds ports and checksum of a header whose transport and protocol are known.
func (h *header) locate(b []byte) {
	h.sourcePort, h.destinationPort = h.transport, h.transport+2
	switch h.protocol {
	case protocolUDP:
		h.checksum = h.transport + 6
	case protocolTCP:
		h.checksum = h.transport + 16
	case protocolICMP:
		// Whoever asks is known by the identifier.
		h.sourcePort, h.destinationPort, h.checksum = h.transport+4, none, h.transport+2
		if kind := b[h.transport]; kind == echoReply || kind == timestampReply {
			h.sourcePort, h.destinationPort = none, h.transport+4
		}
	}
	if h.checksum+2 > len(b) {
		h.checksum = none
	}
}

func (h *header) ports(b []byte) (source, destination uint16) {
	if h.sourcePort != none {
		source = binary.BigEndian.Uint16(b[h.sourcePort:])
	}
	if h.destinationPort != none {
		destination = binary.BigEndian.Uint16(b[h.destinationPort:])
	}
	return source, destination
}

// setSource makes another endpoint the source of the session.
func (p *packet) setSource(to endpoint) {
	if p.failure {
		p.wrap(p.inner.rewrite(p.bytes, destinationAt, p.inner.destinationPort, to))
		p.outer.rewrite(p.bytes, sourceAt, none, to)
	} else {
		p.outer.rewrite(p.bytes, sourceAt, p.outer.sourcePort, to)
	}
	p.source = to
}

// setDestination makes another endpoint the destination of the session.
func (p *packet) setDestination(to endpoint) {
	if p.failure {
		p.wrap(p.inner.rewrite(p.bytes, sourceAt, p.inner.sourcePort, to))
		p.outer.rewrite(p.bytes, destinationAt, none, to)
	} else {
		p.outer.rewrite(p.bytes, destinationAt, p.outer.destinationPort, to)
	}
	p.destination = to
}

// wrap carries changes of the inner packet into the checksum of the ICMP error around it.
func (p *packet) wrap(changes uint32) { adjust(p.bytes, p.outer.checksum, changes) }

// rewrite replaces an address and a port, and mends the checksums that cover them. It returns the changes of all words
// together, for a checksum around.
func (h *header) rewrite(b []byte, addressAt, portAt int, to endpoint) (changes uint32) {
	address := replace(b, h.ip+addressAt, uint16(to.address>>16)) + replace(b, h.ip+addressAt+2, uint16(to.address))
	changes = address + adjust(b, h.ip+10, address)
	var covered uint32
	if h.protocol != protocolICMP {
		covered = address // by the pseudo header
	}
	if portAt != none {
		port := replace(b, portAt, to.port)
		covered += port
		changes += port
	}
	absent := h.checksum == none || h.protocol == protocolUDP && b[h.checksum] == 0 && b[h.checksum+1] == 0
	if covered == 0 || absent {
		return changes
	}
	changes += adjust(b, h.checksum, covered)
	if h.protocol == protocolUDP && b[h.checksum] == 0 && b[h.checksum+1] == 0 {
		changes += replace(b, h.checksum, 0xffff) // 0 would say that there is none
	}
	return changes
}

// replace puts a word and returns by what that changes the ones' complement sum over it (RFC 1624).
func replace(b []byte, at int, word uint16) uint32 {
	before := binary.BigEndian.Uint16(b[at:])
	binary.BigEndian.PutUint16(b[at:], word)
	return uint32(^before) + uint32(word)
}

// adjust mends a checksum for changes of the words it covers. It returns its own change.
func adjust(b []byte, at int, changes uint32) uint32 {
	sum := uint32(^binary.BigEndian.Uint16(b[at:])) + changes
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return replace(b, at, ^uint16(sum))
}
