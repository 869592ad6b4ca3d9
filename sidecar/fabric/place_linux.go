package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/launch"
)

const (
	// workers is how many instances are placed at once. The kernel does most of it under one lock.
	workers = 2

	loopbackIndex = 1
	// Indices of links, above those that the kernel gives to the tunnels it may put into every new namespace.
	controlIndex = 100 // eth0, in the instance
	dataIndex    = 101 // eth1, in the instance
	// The link to the shaper. Were both indices the same, the kernel would take a second to notice that it is there.
	detourIndex    = 900  // shape0, in the router
	detourEndIndex = 901  // shape1, in the shaper's namespace
	tunnelIndex    = 902  // tunnel0, in the router of a node
	firstNearIndex = 1000 // of slot 0, on this side
	// podIndex is that of eth1 in a pod, where others have put links of their own before.
	podIndex = 1<<24 | dataIndex
	// leaving is the group of links about to be deleted.
	leaving = 1
)

func nearIndex(slot int) int { return firstNearIndex + slot }

// near and far are the ends of a slot's link in that network.
func (n network) pair(slot int) (near, far end) {
	near = end{name: fmt.Sprint(n.prefix(), slot), index: nearIndex(slot), hardware: n.near(slot)}
	if n == controlNetwork {
		return near, end{name: "eth0", index: controlIndex, hardware: n.far(slot)}
	}
	return near, end{name: "eth1", index: dataIndex, hardware: n.far(slot)}
}

// lane is a socket to either side, for one user at a time.
type lane struct {
	control, router *socket
}

// sockets are those that there are: on a node there is no control network.
func (l *lane) sockets() []*socket {
	return slices.DeleteFunc([]*socket{l.control, l.router}, func(s *socket) bool { return s == nil })
}

func (l *lane) close() {
	for _, s := range l.sockets() {
		s.Close()
	}
}

// plan is where an instance is to stand in the networks.
type plan struct {
	slot   int
	subnet netip.Prefix
	// control, data and data6 are its addresses; data6 is the zero value where the kernel has no IPv6.
	control, data, data6 netip.Addr
	// index is that of its data link inside, and mtu how long packets may be on it; 0: as long as the kernel says.
	index, mtu int
}

func (f *Fabric) plan(slot int) plan {
	p := plan{slot: slot, subnet: f.subnet, index: f.DataIndex()}
	p.control, p.data = f.Addresses(slot)
	if f.node != nil {
		p.mtu = f.node.mtu
	}
	if f.ipv6 {
		p.data6 = f.Address6(slot)
	}
	return p
}

// place makes an instance: its namespaces, and both its links with addresses, routes and neighbours at either end. It
// leaves the calling thread in the new namespaces. Where it fails it takes back what it made.
func (l *lane) place(p plan, s Spec) (i *instance, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
		return nil, fmt.Errorf("creating its namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return nil, fmt.Errorf("naming it: %w (a host name has at most 64 bytes)", err)
	}
	inside, err := openSocket()
	if err != nil {
		return nil, outOfFiles(err)
	}
	defer inside.Close()
	held, err := currentNamespaces()
	if err != nil {
		return nil, outOfFiles(fmt.Errorf("opening its namespaces: %w", err))
	}
	defer func() {
		if err != nil {
			held.close()
			_ = l.unplug([]int{p.slot}) // most often there is nothing
		}
	}()
	inode, err := held.inode()
	if err != nil {
		return nil, fmt.Errorf("reading its namespaces: %w", err)
	}
	if p.data6.IsValid() {
		if err := apply(instanceSettings); err != nil {
			return nil, err
		}
	}
	if err := l.plug(inside, held, p); err != nil {
		return nil, err
	}
	return &instance{namespaces: held, inode: inode, data: p.own(), data6: p.data6, enabled: true}, nil
}

// own is the data address that a slot is given.
func (p plan) own() netip.Prefix { return netip.PrefixFrom(p.data, p.subnet.Bits()) }

// plug makes both links of a slot. The near ends come up first: when the far ends follow, they can send at once.
func (l *lane) plug(inside *socket, held namespaces, p plan) error {
	slot, target := p.slot, int(held.net.Fd())

	var here batch
	near, far := controlNetwork.pair(slot)
	here.veth(near, far, target)
	here.reach(controlNetwork, slot, p.control)
	if err := l.control.do(&here); err != nil {
		return fmt.Errorf("control network: %w", err)
	}
	if err := l.plugData(held, p); err != nil {
		return err
	}
	var there batch
	there.settle(p)
	if err := inside.do(&there); err != nil {
		return fmt.Errorf("inside the instance: %w", err)
	}
	return nil
}

// plugData makes the data link of a slot, with what the router's end takes.
func (l *lane) plugData(held namespaces, p plan) error {
	var router batch
	near, far := dataNetwork.pair(p.slot)
	far.index, near.mtu, far.mtu = p.index, p.mtu, p.mtu
	router.veth(near, far, int(held.net.Fd()))
	router.reach(dataNetwork, p.slot, p.data)
	if p.data6.IsValid() {
		router.lead(dataNetwork, p.slot, p.data6)
	}
	if err := l.router.do(&router); err != nil {
		return fmt.Errorf("data network: %w", err)
	}
	return nil
}

// settle is what an instance's own namespace takes.
func (b *batch) settle(p plan) {
	b.up(loopbackIndex)
	b.addressedByHand(controlIndex)
	b.up(controlIndex)
	b.address(controlIndex, netip.PrefixFrom(p.control, controlSubnet.Bits()))
	b.route(route{to: netip.PrefixFrom(launch.Gateway, 32), index: controlIndex, source: p.control})
	b.neighbour(controlIndex, launch.Gateway, controlNetwork.near(p.slot))
	b.settleData(p)
}

// settleData is the part of settle that is about the data network.
func (b *batch) settleData(p plan) {
	b.addressedByHand(p.index)
	b.up(p.index)
	b.neighbour(p.index, nextHop, dataNetwork.near(p.slot))
	b.own(p.index, p.subnet, p.own(), nextHop)
	if p.data6.IsValid() {
		b.neighbour(p.index, nextHop6, dataNetwork.near(p.slot))
		b.own(p.index, subnet6, netip.PrefixFrom(p.data6, subnet6.Bits()), nextHop6)
	}
}

// reach leads to an address by a slot's link, on this side: the link up, the route, and the neighbour at its end.
func (b *batch) reach(n network, slot int, address netip.Addr) {
	b.up(nearIndex(slot))
	b.lead(n, slot, address)
}

// lead is reach for a link that is up.
func (b *batch) lead(n network, slot int, address netip.Addr) {
	b.neighbour(nearIndex(slot), address, n.far(slot))
	b.route(route{to: netip.PrefixFrom(address, address.BitLen()), index: nearIndex(slot)})
}

// own gives an instance a data address, inside, and the way to the others.
func (b *batch) own(index int, subnet, address netip.Prefix, via netip.Addr) {
	b.address(index, address)
	b.route(route{to: subnet, index: index, via: via, source: address.Addr()})
}

// unplug deletes what there is of the links of slots, both networks, all at once.
func (l *lane) unplug(slots []int) error {
	if len(slots) == 0 {
		return nil
	}
	var errs []error
	for _, s := range l.sockets() {
		for some := range slices.Chunk(slots, batchLimit) {
			var b batch
			for _, slot := range some {
				b.group(nearIndex(slot), leaving)
			}
			errs = append(errs, s.do(&b))
		}
		var b batch
		b.deleteGroup(leaving)
		errs = append(errs, s.do(&b))
	}
	return errors.Join(errs...)
}

// awaitLinks waits until these links, wherever they are, are known to have their other end: until then the kernel, without
// a word, drops what is sent out of them.
func awaitLinks(ctx context.Context, indices map[int]bool, where ...*socket) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		ready := true
		for _, s := range where {
			links, err := s.links()
			if err != nil {
				return fmt.Errorf("waiting for the links: %w", err)
			}
			ready = ready && !slices.ContainsFunc(links, func(l link) bool { return indices[l.index] && l.up && !l.operational })
		}
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the links: %w", ctx.Err())
		case <-time.After(wait):
		}
	}
}

// link is what the kernel says of one.
type link struct {
	name  string
	index int
	// up says that it was brought up, operational that packets get through.
	up, operational bool
	mtu             int
	// beyond is the number by which this namespace knows the one that the other end is in; -1 where there is none.
	beyond int
}

// has says whether there is a link of that index.
func (s *socket) has(index int) (bool, error) {
	_, ok, err := s.link(index)
	return ok, err
}

// links lists those of the socket's namespace.
func (s *socket) links() ([]link, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	return s.queryLinks(request)
}

// link is the one of that index, if there is one.
func (s *socket) link(index int) (l link, ok bool, err error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	all, err := s.queryLinks(request)
	if errors.Is(err, unix.ENODEV) {
		return link{}, false, nil
	}
	if err != nil || len(all) == 0 {
		return link{}, false, err
	}
	return all[0], true, nil
}

func (s *socket) queryLinks(request *nl.NetlinkRequest) ([]link, error) {
	request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
	var all []link
	err := s.Query(request, func(payload []byte) {
		message := nl.DeserializeIfInfomsg(payload)
		l := link{index: int(message.Index), up: message.Flags&unix.IFF_UP != 0, beyond: -1}
		attributes, _ := nl.ParseRouteAttr(payload[message.Len():])
		for _, a := range attributes {
			switch a.Attr.Type {
			case unix.IFLA_IFNAME:
				l.name = nl.BytesToString(a.Value)
			case unix.IFLA_MTU:
				l.mtu = int(binary.NativeEndian.Uint32(a.Value))
			case unix.IFLA_LINK_NETNSID:
				l.beyond = int(int32(binary.NativeEndian.Uint32(a.Value)))
			case unix.IFLA_OPERSTATE:
				l.operational = len(a.Value) > 0 && a.Value[0] == operational
			}
		}
		all = append(all, l)
	})
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	return all, nil
}

const (
	operational    = 6 // IF_OPER_UP of linux/if.h
	skipStatistics = 8 // RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h
)

// outOfFiles says what to do when there are no more file descriptors.
func outOfFiles(err error) error {
	if errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("%w (an instance takes two descriptors for its namespaces and one for its connection: raise the hard limit, `ulimit -Hn`)", err)
	}
	return err
}
