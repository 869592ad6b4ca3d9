package userspace

import (
	"encoding/binary"
	"net/netip"
)

const (
	ethernetHeader = 14
	ipv6Header     = 40
	// mostFrame is the longest frame: the link's 1,500 bytes and their Ethernet header.
	mostFrame = 1500 + ethernetHeader
	// mostPackets bounds how many packets are under way at once, and so the memory: 200 MiB. At 1 Gbit/s and 200 ms
	// they are 17,000.
	mostPackets = 1 << 17
	// slab is how many are allocated at once.
	slab = 256
)

// packet is a frame under way.
type packet struct {
	frame []byte
	flow  *flow // nil: of nobody that the state knows
	next  *packet
}

// pool keeps packets for later use.
type pool struct {
	free *packet
	made int
}

// take returns a packet with a copy of the frame; nil when too many are under way.
func (p *pool) take(frame []byte) *packet {
	if len(frame) > mostFrame || p.free == nil && !p.grow() {
		return nil
	}
	taken := p.free
	p.free, taken.next = taken.next, nil
	taken.frame = taken.frame[:len(frame)]
	copy(taken.frame, frame)
	return taken
}

func (p *pool) grow() bool {
	if p.made >= mostPackets {
		return false
	}
	packets, frames := make([]packet, slab), make([]byte, slab*mostFrame)
	for i := range packets {
		packets[i].frame = frames[i*mostFrame : i*mostFrame : (i+1)*mostFrame]
		p.give(&packets[i])
	}
	p.made += slab
	return true
}

func (p *pool) give(back *packet) {
	back.flow, back.next = nil, p.free
	p.free = back
}

// size is what bandwidth counts: the IP packet.
func (p *packet) size() int { return len(p.frame) - ethernetHeader }

// corrupt flips a bit behind the IP header, and leaves the checksums as they are.
func (p *packet) corrupt(random uint64) {
	h := readHeader(p.frame[ethernetHeader:])
	if payload := p.frame[ethernetHeader+h.length:]; h.ok && len(payload) > 0 {
		bit := random % uint64(8*len(payload))
		payload[bit/8] ^= 1 << (bit % 8)
	}
}

// header is what an IP packet says of itself.
type header struct {
	ok   bool
	ipv6 bool
	// length is that of the header; of IPv6 without extensions.
	length int
	// from and to are the addresses; of IPv6 the last four bytes.
	from, to uint32
	// prefix has what stands before them in both IPv6 addresses.
	fromPrefix, toPrefix [12]byte
}

// readHeader reads that of a packet.
func readHeader(p []byte) header {
	if len(p) < 20 {
		return header{}
	}
	switch p[0] >> 4 {
	case 4:
		h := header{length: int(p[0]&15) * 4, from: binary.BigEndian.Uint32(p[12:]), to: binary.BigEndian.Uint32(p[16:])}
		h.ok = h.length >= 20 && h.length <= len(p)
		return h
	case 6:
		if len(p) < ipv6Header {
			return header{}
		}
		return header{
			ok: true, ipv6: true, length: ipv6Header,
			from: binary.BigEndian.Uint32(p[20:]), fromPrefix: [12]byte(p[8:]),
			to: binary.BigEndian.Uint32(p[36:]), toPrefix: [12]byte(p[24:]),
		}
	}
	return header{}
}

// forwardable says that a frame is an IP packet for somebody beyond the link, and not the noise of the link itself.
func forwardable(frame []byte) bool {
	if len(frame) < ethernetHeader+20 || frame[0]&1 != 0 {
		return false
	}
	kind := binary.BigEndian.Uint16(frame[12:])
	return kind == 0x0800 || kind == 0x86dd
}

// turn addresses a frame back to the end that it came from.
func turn(frame []byte) {
	var to [6]byte
	copy(to[:], frame[:6])
	copy(frame[:6], frame[6:12])
	copy(frame[6:12], to[:])
}

func ipv4(a uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, a)))
}

func ipv6(prefix [12]byte, a uint32) netip.Addr {
	var all [16]byte
	copy(all[:], prefix[:])
	binary.BigEndian.PutUint32(all[12:], a)
	return netip.AddrFrom16(all)
}
