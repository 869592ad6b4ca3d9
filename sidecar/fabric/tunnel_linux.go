package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/rtnetlink"
)

// Headers of the tunnel: Ethernet's inside, VXLAN's, UDP's, and IP's outside.
const (
	overhead4 = 14 + 8 + 8 + 20
	overhead6 = 14 + 8 + 8 + 40
)

// leastMTU is what IPv6 takes.
const leastMTU = 1280

// beyonds is what is known of the slots on other nodes.
type beyonds struct {
	atlas atlas
	// routes are those to parts of the data network that are in force, by hop: nil until they have been looked at.
	routes map[netip.Prefix]netip.Addr
	// hops are those that the tunnel knows the way to.
	hops map[netip.Addr]bool
	// moved has the addresses of slots that have left their own, homes those that nobody sits at: of a NAT.
	moved map[int]netip.Addr
	homes map[netip.Addr]int
}

// join makes the tunnel to other nodes, or takes over the one that is there. The calling thread is in the router's
// namespace.
func (n *node) join(f *Fabric) error {
	under, err := n.underlayMTU()
	if err != nil {
		return err
	}
	overhead := overhead4
	if n.Underlay.Is6() {
		overhead = overhead6
	}
	if n.mtu = min(defaultMTU, under-overhead); n.mtu < leastMTU {
		return fmt.Errorf("packets of %d bytes are the most that the link with the node's address %s takes: with the tunnel's headers that leaves less than the %d of IPv6", under, n.Underlay, leastMTU)
	}
	there, err := n.tunnelStands()
	if err != nil {
		return err
	}
	if !there {
		if err := n.makeTunnel(f); err != nil {
			return fmt.Errorf("making the tunnel to other nodes: %w", err)
		}
	}
	var b batch
	b.up(tunnelIndex)
	b.address(tunnelIndex, netip.PrefixFrom(n.addressed.four, 32))
	return f.ours.router.do(&b)
}

// underlayMTU is how long packets may be on the link that has the node's address.
func (n *node) underlayMTU() (int, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfAddrmsg(int(family(n.Underlay))))
	index := 0
	err := n.host.Query(request, func(payload []byte) {
		if address, of := addressIn(payload); address.Addr() == n.Underlay {
			index = of
		}
	})
	if err != nil {
		return 0, fmt.Errorf("looking for the node's address: %w", err)
	}
	if index == 0 {
		return 0, fmt.Errorf("no link here has the node's address %s: this process has to be in the network namespace of the host", n.Underlay)
	}
	under, _, err := n.host.link(index)
	return under.mtu, err
}

// addressIn reads an RTM_NEWADDR message.
func addressIn(payload []byte) (address netip.Prefix, index int) {
	message := nl.DeserializeIfAddrmsg(payload)
	attributes, _ := nl.ParseRouteAttr(payload[message.Len():])
	for _, a := range attributes {
		local, ok := netip.AddrFromSlice(a.Value)
		if ok && (a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS && !address.IsValid()) {
			address = netip.PrefixFrom(local, int(message.Prefixlen))
		}
	}
	return address, int(message.Index)
}

// tunnelStands says whether the router has the tunnel as it should be.
func (n *node) tunnelStands() (bool, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return false, err
	}
	defer h.Close()
	l, err := h.LinkByIndex(tunnelIndex)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at the tunnel: %w", err)
	}
	local := netip.Addr{}
	if v, ok := l.(*netlink.Vxlan); ok {
		local, _ = netip.AddrFromSlice(v.SrcAddr)
		if local.Unmap() == n.Underlay && v.VxlanId == int(n.VNI) && v.Port == int(n.Port) && v.MTU == n.mtu {
			return true, nil
		}
	}
	if err := h.LinkDel(l); err != nil {
		return false, fmt.Errorf("replacing the tunnel that was %s's: %w", local, err)
	}
	return false, nil
}

// makeTunnel makes the tunnel from the host's namespace, which its outside stays in, and with the other end in the router.
func (n *node) makeTunnel(f *Fabric) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = tunnelIndex
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("tunnel0")))
	request.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, n.addressed.hardware))
	request.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(n.mtu))))
	request.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(f.router.Fd()))))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(n.VNI))
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, n.Port))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, nl.Uint8Attr(0))
	local := nl.IFLA_VXLAN_LOCAL
	if n.Underlay.Is6() {
		local = nl.IFLA_VXLAN_LOCAL6
	}
	data.AddRtAttr(local, n.Underlay.AsSlice())
	request.AddData(info)
	var create, own batch
	create.Add(rtnetlink.Step{What: fmt.Sprintf("creating tunnel0 (VXLAN %d from %s, UDP port %d)", n.VNI, n.Underlay, n.Port)}, request)
	err := n.host.do(&create)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w (this kernel has no VXLAN: load the module vxlan, CONFIG_VXLAN)", err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w (another run on this node has the same VNI)", err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w (something else uses the UDP port %d)", err, n.Port)
	case err != nil:
		return err
	}
	own.addressedByHand(tunnelIndex)
	return f.ours.router.do(&own)
}

// SetPeers says which slots are on which other nodes, in place of what was said before; this node may be among them.
// Instances here that are said to be elsewhere are removed. It is to be called before their like are added here.
func (f *Fabric) SetPeers(nodes []control.Peer) error {
	if f.node == nil {
		return errors.New("this network is on one machine: it has no other nodes")
	}
	next, err := newAtlas(nodes, f.node.addressed)
	if err != nil {
		return err
	}
	f.placing.Lock()
	defer f.placing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ours == nil {
		return errors.New("this network is closed")
	}
	var left []int
	for slot := range f.instances {
		if _, elsewhere := next.elsewhere(slot); elsewhere {
			left = append(left, slot)
		}
	}
	if err := f.remove(f.ours, left); err != nil {
		return err
	}
	if err := f.node.lead(f, next); err != nil {
		return fmt.Errorf("routing to other nodes: %w", err)
	}
	return nil
}

// lead puts the routes to other nodes in force in place of those before. The caller holds mu.
func (n *node) lead(f *Fabric, next atlas) error {
	wanted := next.prefixes(f.subnet)
	b := batch{}
	b.MaxRequests = batchLimit
	if n.routes == nil {
		if err := n.find(f, &b, wanted); err != nil {
			return err
		}
	}
	if n.moved == nil {
		n.moved = make(map[int]netip.Addr)
	}
	left := n.hops
	n.hops = make(map[netip.Addr]bool)
	for _, h := range next.hops() {
		if !left[h.four] {
			b.hop(h, f.ipv6)
		}
		delete(left, h.four)
		n.hops[h.four] = true
	}
	n.atlas = next
	had := n.routes
	n.routes = make(map[netip.Prefix]netip.Addr, len(wanted))
	for to, h := range wanted {
		n.routes[to] = h.four
		if had[to] != h.four {
			f.span(&b, to, h)
		}
	}
	for to := range had {
		if _, stays := wanted[to]; !stays {
			f.unspan(&b, to)
		}
	}
	for _, address := range slices.Collect(maps.Values(n.moved)) {
		f.direct(&b, address)
	}
	for address := range n.homes {
		f.direct(&b, address)
	}
	for four := range left { // nothing is routed there any more
		b.unhop(four, f.ipv6)
	}
	err := f.ours.router.do(&b)
	if err != nil {
		n.routes = nil // what is in force has to be looked at before the next try
	}
	return err
}

// find looks for what an earlier fabric has left in force. The ways to nodes are made anew or taken away; of IPv6, routes
// that no IPv4 one tells of are taken away here.
func (n *node) find(f *Fabric, b *batch, wanted map[netip.Prefix]hop) error {
	routes, err := f.ours.router.routesBy(tunnelIndex, f.subnet)
	if err != nil {
		return err
	}
	ways, err := f.ours.router.routesBy(tunnelIndex, hops)
	if err != nil {
		return err
	}
	n.routes, n.hops = routes, make(map[netip.Addr]bool)
	for to := range ways {
		n.hops[to.Addr()] = false
	}
	if !f.ipv6 {
		return nil
	}
	six, err := f.ours.router.routesBy(tunnelIndex, subnet6)
	if err != nil {
		return err
	}
	for _, known := range []iter.Seq[netip.Prefix]{maps.Keys(wanted), maps.Keys(routes)} {
		for to := range known {
			delete(six, prefix6(to))
		}
	}
	for to := range six {
		b.deleteRoute(route{to: to, index: tunnelIndex})
	}
	return nil
}

// span routes a part of the network to another node, unspan no longer. A route to a single address may be somebody's who
// has moved there.
func (f *Fabric) span(b *batch, to netip.Prefix, h hop) {
	if to.IsSingleIP() {
		f.direct(b, to.Addr())
	} else {
		b.route(route{to: to, index: tunnelIndex, via: h.four})
	}
	if f.ipv6 {
		b.route(route{to: prefix6(to), index: tunnelIndex, via: h.six})
	}
}

func (f *Fabric) unspan(b *batch, to netip.Prefix) {
	if to.IsSingleIP() {
		f.direct(b, to.Addr())
	} else {
		b.deleteRoute(route{to: to, index: tunnelIndex})
	}
	if f.ipv6 {
		b.deleteRoute(route{to: prefix6(to), index: tunnelIndex})
	}
}

// beyond routes an address to the node of the slot that holds it, or where nobody does, to whoever it was given to. It
// says whether there is one.
func (n *node) beyond(b *batch, holder int, whole netip.Prefix) bool {
	if holder < 0 {
		if home, ok := n.homes[whole.Addr()]; ok {
			holder = home
		}
	}
	h, ok := n.atlas.elsewhere(holder)
	if holder < 0 || !ok {
		four, own := n.routes[whole]
		if !own {
			return false
		}
		h.four = four
	}
	b.route(route{to: whole, index: tunnelIndex, via: h.four})
	return true
}

// Remote says whether a slot is on another node.
func (f *Fabric) Remote(slot int) bool {
	if f.node == nil {
		return false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, ok := f.node.atlas.elsewhere(slot)
	return ok
}

// NodeOf is the address of the router of the node that is said to have a slot, this one's included: see NodeAddress. It
// is the zero value for a slot that nobody is said to have.
func (f *Fabric) NodeOf(slot int) netip.Addr {
	if f.node == nil {
		return netip.Addr{}
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if h, ok := f.node.atlas.find(slot); ok {
		return h.four
	}
	if f.instances[slot] != nil {
		return f.node.addressed.four
	}
	return netip.Addr{}
}

// MoveRemote says that an instance on another node has given itself another data address; the zero value, that it has
// taken its own again. As with SetDataAddress, of several with the same address the latest gets the packets.
func (f *Fabric) MoveRemote(slot int, to netip.Prefix) error {
	if !f.Remote(slot) {
		return fmt.Errorf("routing to a data address of slot %d on another node: no other node is said to have it", slot)
	}
	if to != (netip.Prefix{}) {
		if err := f.checkOwn(to); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.node
	if _, home := f.Addresses(slot); to.Addr() == home {
		to = netip.Prefix{}
	}
	old := n.moved[slot]
	if old == to.Addr() {
		return nil
	}
	var b batch
	if old.IsValid() {
		delete(n.moved, slot)
		f.unclaim(old, slot)
		f.direct(&b, old)
	}
	if to.IsValid() {
		n.moved[slot] = to.Addr()
		f.claims[to.Addr()] = append(f.claims[to.Addr()], slot)
		f.direct(&b, to.Addr())
	}
	if err := f.ours.router.do(&b); err != nil {
		return fmt.Errorf("routing to the data address of slot %d on another node: %w", slot, err)
	}
	return nil
}

// SetHomes says of addresses that no instance has, those of NATs, on which node they are: that of a slot.
func (f *Fabric) SetHomes(homes map[netip.Addr]int) error {
	if f.node == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.node.homes
	f.node.homes = maps.Clone(homes)
	var b batch
	b.MaxRequests = batchLimit
	for _, all := range []map[netip.Addr]int{before, homes} {
		for address := range all {
			was, had := before[address]
			if is, has := homes[address]; was != is || had != has {
				f.direct(&b, address)
			}
		}
	}
	if err := f.ours.router.do(&b); err != nil {
		return fmt.Errorf("routing to NATs on other nodes: %w", err)
	}
	return nil
}

// hop names another node's router, and says where its packets go.
func (b *batch) hop(h hop, ipv6 bool) {
	request := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	request.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: tunnelIndex, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF})
	request.AddData(nl.NewRtAttr(unix.NDA_LLADDR, h.hardware))
	request.AddData(nl.NewRtAttr(unix.NDA_DST, h.underlay.AsSlice()))
	b.Add(rtnetlink.Step{What: "leading the tunnel to " + h.underlay.String()}, request)
	b.neighbour(tunnelIndex, h.four, h.hardware)
	b.route(route{to: netip.PrefixFrom(h.four, 32), index: tunnelIndex})
	if ipv6 {
		b.neighbour(tunnelIndex, h.six, h.hardware)
	}
}

// unhop forgets a node that has left.
func (b *batch) unhop(four netip.Addr, ipv6 bool) {
	h := hopAt(four)
	request := nl.NewNetlinkRequest(unix.RTM_DELNEIGH, 0)
	request.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: tunnelIndex, Flags: netlink.NTF_SELF})
	request.AddData(nl.NewRtAttr(unix.NDA_LLADDR, h.hardware))
	b.Add(rtnetlink.Step{What: "no longer leading the tunnel to " + four.String(), Done: unix.ENOENT}, request)
	b.deleteRoute(route{to: netip.PrefixFrom(h.four, 32), index: tunnelIndex})
	b.deleteNeighbour(tunnelIndex, h.four)
	if ipv6 {
		b.deleteNeighbour(tunnelIndex, h.six)
	}
}

// routesBy are the routes by a link to parts of a network, with their next hops.
func (s *socket) routesBy(index int, network netip.Prefix) (map[netip.Prefix]netip.Addr, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	message := nl.NewRtMsg()
	message.Family = family(network.Addr())
	request.AddData(message)
	all := make(map[netip.Prefix]netip.Addr)
	err := s.Query(request, func(payload []byte) {
		message := nl.DeserializeRtMsg(payload)
		attributes, _ := nl.ParseRouteAttr(payload[message.Len():])
		var to, via netip.Addr
		by := 0
		for _, a := range attributes {
			switch a.Attr.Type {
			case unix.RTA_DST:
				to, _ = netip.AddrFromSlice(a.Value)
			case unix.RTA_GATEWAY:
				via, _ = netip.AddrFromSlice(a.Value)
			case unix.RTA_OIF:
				by = int(binary.NativeEndian.Uint32(a.Value))
			}
		}
		if by == index && network.Contains(to) {
			all[netip.PrefixFrom(to, int(message.Dst_len))] = via
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	return all, nil
}
