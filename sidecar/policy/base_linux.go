package policy

import (
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/fabric"
)

// The names of what always stands.
const (
	tableName    = "groundplan"
	entranceName = "entrance"
	sourcesName  = "sources"
	shapedName   = "shaped"
	rejectedName = "rejected"
	arrivalsName = "arrivals" // what comes from other nodes
	homesName    = "homes"    // the NATs on this one
	onwardName   = "onward"
)

// entrancePriority is that of rules which change packets before they are routed ("mangle").
const entrancePriority = -150

// What is remembered of what instances send, to know answers by: as many flows as any, and for longer than most programs
// leave a connection silent.
const maxFlows = 1 << 20

var flowTimeout uint64 = 3 * 60 * 1000 // ms; tests don't wait for so long

// family is what differs between IPv4 and IPv6.
type family struct {
	name                string
	protocol            byte
	key                 uint32 // length of an address
	keyType             uint32
	source, destination uint32 // offsets of the addresses
	echo, echoRequest   byte   // protocol and type of a ping
	continued           []expression
}

var families = [2]family{
	{
		name: "4", protocol: unix.NFPROTO_IPV4, key: 4, keyType: typeIPv4, source: 12, destination: 16,
		echo: unix.IPPROTO_ICMP, echoRequest: 8,
		continued: []expression{load(network, 6, 2, register(0)), and(register(0), 0x1f, 0xff), unequal(register(0), 0, 0)},
	},
	{
		name: "6", protocol: unix.NFPROTO_IPV6, key: 16, keyType: typeIPv6, source: 8, destination: 24,
		echo: unix.IPPROTO_ICMPV6, echoRequest: 128,
		continued: []expression{fragment(2, 2, register(0)), and(register(0), 0xff, 0xf8), unequal(register(0), 0, 0)},
	},
}

const (
	network   = unix.NFT_PAYLOAD_NETWORK_HEADER
	transport = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

// Names of what there is once for each family.
func (f family) blocked() string { return "blocked" + f.name }
func (f family) flows() string   { return "flows" + f.name }
func (f family) sent() string    { return "sent" + f.name }

// fresh is the chain for new connections that are rejected or dropped.
func (f family) fresh(what fate) string {
	if what == rejected {
		return "reject-new" + f.name
	}
	return "drop-new" + f.name
}

// base makes all that doesn't depend on a state. The entrance comes last: until then nothing is in force.
func (b *batch) base(o Options) {
	b.table()
	b.chain(shapedName)
	b.rule(shapedName, put(register(0), native(fabric.ShaperMark)), setMark(register(0)))
	b.chain(rejectedName)
	b.rule(rejectedName, meta(unix.NFT_META_L4PROTO, register(0)), equal(register(0), unix.IPPROTO_TCP), reset())
	b.rule(rejectedName, prohibited())
	b.set(set{name: sourcesName, key: 4, keyType: typeIndex, verdicts: true})
	for _, f := range families {
		b.inbound(f)
	}
	if o.TunnelIndex > 0 {
		b.tunnel(o.TunnelIndex)
	}
	b.entrance(entranceName, unix.NF_INET_PRE_ROUTING, entrancePriority)
	if o.ShaperIndex > 0 {
		b.rule(entranceName, meta(unix.NFT_META_IIF, register(0)), equal(register(0), native(uint32(o.ShaperIndex))...), decide(accept()))
	}
	if o.TunnelIndex > 0 {
		b.rule(entranceName, meta(unix.NFT_META_IIF, register(0)), equal(register(0), native(uint32(o.TunnelIndex))...), decide(follow(arrivalsName)))
	}
	b.rule(entranceName, meta(unix.NFT_META_IIF, register(0)), decideBy(sourcesName, register(0)))
	for _, f := range families {
		b.rule(entranceName, f.only(decide(follow(f.sent())))...)
	}
}

// tunnel makes what packets from other nodes meet. They have been shaped, and go to instances here: whatever doesn't, is
// lost, for two nodes that take each other for its home would send it to and fro.
func (b *batch) tunnel(index int) {
	b.set(set{name: homesName, key: 4, keyType: typeIPv4, verdicts: true})
	b.chain(arrivalsName)
	v4 := families[0]
	b.rule(arrivalsName, v4.only(load(network, v4.destination, v4.key, register(0)), decideBy(homesName, register(0)))...)
	for _, f := range families {
		b.rule(arrivalsName, f.only(load(network, f.destination, f.key, register(0)), decideBy(f.blocked(), register(0)))...)
	}
	b.entrance(onwardName, unix.NF_INET_FORWARD, 0)
	b.rule(onwardName, meta(unix.NFT_META_IIF, register(0)), equal(register(0), native(uint32(index))...),
		meta(unix.NFT_META_OIF, register(0)), equal(register(0), native(uint32(index))...), decide(drop()))
}

// inbound makes what new connections are known and blocked by.
func (b *batch) inbound(f family) {
	b.set(set{name: f.blocked(), key: f.key, keyType: f.keyType, verdicts: true})
	b.set(set{name: f.flows(), key: 2*f.key + 12, size: maxFlows, timeout: flowTimeout})
	protocol := meta(unix.NFT_META_L4PROTO, register(0))
	tcp, udp := equal(register(0), unix.IPPROTO_TCP), equal(register(0), unix.IPPROTO_UDP)
	flags, first := []expression{load(transport, 13, 1, register(0)), and(register(0), 0x17)}, byte(0x02)

	for _, what := range []fate{rejected, dropped} {
		name, end := f.fresh(what), decide(drop())
		if what == rejected {
			end = decide(follow(rejectedName))
		}
		b.chain(name)
		b.rule(name, append(f.continued[:len(f.continued):len(f.continued)], decide(accept()))...)
		b.rule(name, protocol, tcp, flags[0], flags[1], unequal(register(0), first), decide(accept()))
		b.rule(name, append(f.flow(f.destination, f.source, 2, 0), in(f.flows(), register(0)), decide(accept()))...)
		b.rule(name, protocol, tcp, end)
		b.rule(name, protocol, udp, end)
		b.rule(name, protocol, equal(register(0), f.echo), load(transport, 0, 1, register(0)), equal(register(0), f.echoRequest), end)
	}

	sent := f.sent()
	b.chain(sent)
	keep := append(f.flow(f.source, f.destination, 0, 2), remember(f.flows(), register(0)))
	b.rule(sent, append([]expression{protocol, udp}, keep...)...)
	b.rule(sent, append([]expression{protocol, tcp, flags[0], flags[1], equal(register(0), first)}, keep...)...)
	b.rule(sent, load(network, f.destination, f.key, register(0)), decideBy(f.blocked(), register(0)))
}

// only goes on with packets of the family.
func (f family) only(further ...expression) []expression {
	return append([]expression{meta(unix.NFT_META_NFPROTO, register(0)), equal(register(0), f.protocol)}, further...)
}

// flow loads the key of a flow: the addresses and ports at these offsets, and the protocol.
func (f family) flow(from, to, fromPort, toPort uint32) []expression {
	words := f.key / 4
	return []expression{
		load(network, from, f.key, register(0)), load(network, to, f.key, register(words)),
		load(transport, fromPort, 2, register(2*words)), load(transport, toPort, 2, register(2*words+1)),
		meta(unix.NFT_META_L4PROTO, register(2*words+2)),
	}
}
