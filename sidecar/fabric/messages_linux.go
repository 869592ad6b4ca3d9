package fabric

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/rtnetlink"
)

// end is one end of a veth pair. Its index is chosen by us, so that it is known before the pair exists and everything
// about a link can be sent in one batch.
type end struct {
	name     string
	index    int
	hardware net.HardwareAddr
	// mtu is how long its packets may be; 0: as long as the kernel says.
	mtu int
}

// veth creates a pair: near in the socket's namespace, far in the namespace of that descriptor.
func (b *batch) veth(near, far end, farNamespace int) {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(near.index)
	request.AddData(message)
	for _, a := range near.attributes() {
		request.AddData(a)
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC).Index = int32(far.index)
	for _, a := range far.attributes() {
		peer.AddChild(a)
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(farNamespace)))
	request.AddData(info)
	b.Add(rtnetlink.Step{What: "creating the link " + near.name + "–" + far.name}, request)
}

func (e end) attributes() []*nl.RtAttr {
	all := []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(e.name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, e.hardware),
		// The default is a queue per processor of the machine, in both directions.
		nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1)),
		nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1)),
	}
	if e.mtu > 0 {
		all = append(all, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(e.mtu))))
	}
	return all
}

// up and down switch a link.
func (b *batch) up(index int)   { b.setFlags("bringing a link up", index, unix.IFF_UP) }
func (b *batch) down(index int) { b.setFlags("taking a link down", index, 0) }

func (b *batch) setFlags(what string, index int, flags uint32) {
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index, message.Change, message.Flags = int32(index), unix.IFF_UP, flags
	b.link(rtnetlink.Step{What: what}, unix.RTM_NEWLINK, message)
}

// addressedByHand keeps a link, which is not up yet, from giving itself an IPv6 address. A kernel without IPv6 will do.
func (b *batch) addressedByHand(index int) {
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	families.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(addressesByHand))
	b.link(rtnetlink.Step{What: "keeping a link from addressing itself", Done: unix.EAFNOSUPPORT}, unix.RTM_NEWLINK, message, families)
}

// addressesByHand is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addressesByHand = 1

// group puts a link into a group, and deleteGroup deletes all links of one: many at once are deleted in the time of one.
// A link that isn't there, and a group without links, will do.
func (b *batch) group(index int, group uint32) {
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	b.link(rtnetlink.Step{What: "grouping links", Done: unix.ENODEV}, unix.RTM_NEWLINK, message, nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
}

func (b *batch) deleteGroup(group uint32) {
	b.link(rtnetlink.Step{What: "deleting links", Done: unix.ENODEV}, unix.RTM_DELLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
}

func (b *batch) link(s rtnetlink.Step, kind int, message *nl.IfInfomsg, attributes ...*nl.RtAttr) {
	request := nl.NewNetlinkRequest(kind, 0)
	request.AddData(message)
	for _, a := range attributes {
		request.AddData(a)
	}
	b.Add(s, request)
}

// address gives a link an address. The mask is only shown: routes are made by route.
func (b *batch) address(index int, address netip.Prefix) {
	b.setAddress("giving out the address "+address.String(), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, address)
}

// deleteAddress takes an address from a link.
func (b *batch) deleteAddress(index int, address netip.Prefix) {
	b.setAddress("taking the address "+address.String()+" away", unix.RTM_DELADDR, 0, index, address)
}

func (b *batch) setAddress(what string, kind, flags, index int, address netip.Prefix) {
	request := nl.NewNetlinkRequest(kind, flags)
	message := nl.NewIfAddrmsg(int(family(address.Addr())))
	message.Index = uint32(index)
	message.Prefixlen = uint8(address.Bits())
	request.AddData(message)
	raw := address.Addr().AsSlice()
	request.AddData(nl.NewRtAttr(unix.IFA_LOCAL, raw))
	request.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, raw))
	// Whether somebody else has an IPv6 address need not be asked: it can be used at once.
	request.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NOPREFIXROUTE|unix.IFA_F_NODAD)))
	b.Add(rtnetlink.Step{What: what}, request)
}

// route is a route; via and source may be missing.
type route struct {
	to          netip.Prefix
	index       int
	via, source netip.Addr
	// table is where it stands; 0: the main one.
	table uint8
}

// family is that of an address, as the kernel counts them.
func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// route adds a route or replaces the one to the same prefix.
func (b *batch) route(r route) {
	b.setRoute(rtnetlink.Step{What: "routing to " + r.to.String()}, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, unix.RTN_UNICAST, r)
}

// deleteRoute deletes a route if it is there.
func (b *batch) deleteRoute(r route) {
	b.setRoute(rtnetlink.Step{What: "no longer routing to " + r.to.String(), Done: unix.ESRCH}, unix.RTM_DELROUTE, 0, unix.RTN_UNICAST, r)
}

// blackhole drops, without a word, what no longer prefix leads on.
func (b *batch) blackhole(to netip.Prefix) {
	b.setRoute(rtnetlink.Step{What: "routing " + to.String() + " nowhere"}, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, unix.RTN_BLACKHOLE, route{to: to})
}

func (b *batch) setRoute(s rtnetlink.Step, kind, flags int, typ uint8, r route) {
	request := nl.NewNetlinkRequest(kind, flags)
	message := nl.NewRtMsg()
	message.Family, message.Dst_len, message.Type = family(r.to.Addr()), uint8(r.to.Bits()), typ
	if r.table != 0 {
		message.Table = r.table
	}
	switch {
	case kind == unix.RTM_DELROUTE:
		message.Scope = unix.RT_SCOPE_NOWHERE // whatever its scope is
	case typ == unix.RTN_UNICAST && !r.via.IsValid():
		message.Scope = unix.RT_SCOPE_LINK
	default:
		message.Scope = unix.RT_SCOPE_UNIVERSE
	}
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.RTA_DST, r.to.Addr().AsSlice()))
	if r.index != 0 {
		request.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(r.index))))
	}
	if r.via.IsValid() {
		message.Flags = unix.RTNH_F_ONLINK
		request.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, r.via.AsSlice()))
	}
	if r.source.IsValid() {
		request.AddData(nl.NewRtAttr(unix.RTA_PREFSRC, r.source.AsSlice()))
	}
	b.Add(s, request)
}

// neighbour says for good which hardware address an address has.
func (b *batch) neighbour(index int, address netip.Addr, hardware net.HardwareAddr) {
	request := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	request.AddData(&netlink.Ndmsg{Family: family(address), Index: uint32(index), State: netlink.NUD_PERMANENT})
	request.AddData(nl.NewRtAttr(unix.NDA_DST, address.AsSlice()))
	request.AddData(nl.NewRtAttr(unix.NDA_LLADDR, hardware))
	b.Add(rtnetlink.Step{What: "naming the neighbour " + address.String()}, request)
}

// deleteNeighbour forgets a neighbour if it is known.
func (b *batch) deleteNeighbour(index int, address netip.Addr) {
	request := nl.NewNetlinkRequest(unix.RTM_DELNEIGH, 0)
	request.AddData(&netlink.Ndmsg{Family: family(address), Index: uint32(index)})
	request.AddData(nl.NewRtAttr(unix.NDA_DST, address.AsSlice()))
	b.Add(rtnetlink.Step{What: "forgetting the neighbour " + address.String(), Done: unix.ENOENT}, request)
}

// markRule has packets of one family that bear a mark routed by a table of their own.
func (b *batch) markRule(family uint8, mark uint32, table uint8) {
	request := nl.NewNetlinkRequest(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	message := nl.NewRtMsg() // a rule's header has the same layout
	message.Family, message.Table, message.Type = family, table, unix.FR_ACT_TO_TBL
	message.Protocol, message.Scope = 0, 0
	request.AddData(message)
	request.AddData(nl.NewRtAttr(nl.FRA_PRIORITY, nl.Uint32Attr(uint32(table))))
	request.AddData(nl.NewRtAttr(nl.FRA_FWMARK, nl.Uint32Attr(mark)))
	b.Add(rtnetlink.Step{What: "routing marked packets by a table of their own", Done: unix.EEXIST}, request)
}
