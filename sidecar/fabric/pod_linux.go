package fabric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// placeWith places instances whose pods are there. evict takes away what another pod has left in a slot.
func (n *node) placeWith(l *lane, evict func(l *lane, slot int) error) func(plan, Spec) (*instance, error) {
	return func(p plan, s Spec) (*instance, error) {
		if s.Namespace == nil {
			return nil, errors.New("its pod's network namespace isn't known")
		}
		held, err := duplicate(s.Namespace)
		if err != nil {
			return nil, outOfFiles(err)
		}
		i, err := n.placePod(l, p, held, evict)
		if err != nil {
			held.close()
		}
		return i, err
	}
}

// duplicate holds a network namespace for as long as the fabric needs it.
func duplicate(file *os.File) (namespaces, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return namespaces{}, fmt.Errorf("opening its pod's network namespace: %w", err)
	}
	return namespaces{net: os.NewFile(uintptr(fd), file.Name())}, nil
}

// placePod connects a pod, or takes over what connects it already. It leaves the calling thread in the pod's network
// namespace.
func (n *node) placePod(l *lane, p plan, held namespaces, evict func(l *lane, slot int) error) (*instance, error) {
	inode, err := held.inode()
	if err == nil {
		err = held.enter()
	}
	if err != nil {
		return nil, fmt.Errorf("entering its pod: %w", err)
	}
	inside, err := openSocket()
	if err != nil {
		return nil, outOfFiles(err)
	}
	defer inside.Close()
	if n.Isolate {
		if err := isolate(inside); err != nil {
			return nil, fmt.Errorf("isolating its pod: %w", err)
		}
	}
	i := &instance{namespaces: held, inode: inode, data: p.own(), data6: p.data6, enabled: true}
	adopted, err := l.adopt(i, inside, p)
	if adopted || err != nil {
		return i, err
	}
	if err := evict(l, p.slot); err != nil {
		return nil, fmt.Errorf("taking the link of the pod before away: %w", err)
	}
	if err := l.plugPod(inside, held, p); err != nil {
		_ = l.unplug([]int{p.slot})
		return nil, err
	}
	return i, nil
}

// evict takes away what there is of another pod's in a slot.
func (f *Fabric) evict(l *lane, slot int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.instances[slot] != nil {
		return f.remove(l, []int{slot})
	}
	return l.unplug([]int{slot})
}

// adopt finds out whether a pod is connected, by a fabric before this one, and how it has been left.
func (l *lane) adopt(i *instance, inside *socket, p plan) (bool, error) {
	near, there, err := l.router.link(nearIndex(p.slot))
	if err != nil || !there {
		return false, err
	}
	number, err := l.router.numberOf(int(i.namespaces.net.Fd()))
	if err != nil || near.beyond < 0 || near.beyond != number {
		return false, err
	}
	data, err := inside.addressOf(p.index, p.subnet)
	if err != nil || !data.IsValid() {
		return false, err
	}
	i.data, i.enabled = data, near.up
	return true, nil
}

// plugPod makes a pod's data link.
func (l *lane) plugPod(inside *socket, held namespaces, p plan) error {
	if err := l.plugData(held, p); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%w (its pod has a link eth1 of somebody else's)", err)
		}
		return err
	}
	if p.data6.IsValid() {
		// Clusters without IPv6 switch it off in pods.
		if err := apply([]sysctl{{name: "ipv6/conf/eth1/disable_ipv6", value: "0"}}); err != nil {
			return err
		}
	}
	var there batch
	there.up(loopbackIndex)
	there.settleData(p)
	// Where a host checks by which way packets come, the router's own answers would be lost.
	there.route(route{to: netip.PrefixFrom(nextHop, 32), index: p.index})
	if err := inside.do(&there); err != nil {
		return fmt.Errorf("inside its pod: %w", err)
	}
	return nil
}

// isolate cuts the pod that the calling thread is in off from every network but the data network: what it sends
// elsewhere is refused at once, and what comes from there is lost. Its other links are taken down besides, so that no
// route of theirs is in the way of the data network.
func isolate(inside *socket) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "groundplan-isolation"}
	c.AddTable(table) // there may be one: it is replaced
	c.DelTable(table)
	c.AddTable(table)
	in := c.AddChain(&nftables.Chain{
		Name: "in", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	out := c.AddChain(&nftables.Chain{
		Name: "out", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw,
	})
	elsewhere := func(key expr.MetaKey, then ...expr.Any) []expr.Any {
		all := []expr.Any{&expr.Meta{Key: key, Register: 1}}
		for _, index := range []int{loopbackIndex, podIndex} {
			all = append(all, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, uint32(index))})
		}
		return append(all, then...)
	}
	c.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: elsewhere(expr.MetaKeyIIF, &expr.Verdict{Kind: expr.VerdictDrop})})
	c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: elsewhere(expr.MetaKeyOIF,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})})
	c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: elsewhere(expr.MetaKeyOIF,
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})})
	if err := c.Flush(); err != nil {
		return err
	}
	return downOthers(inside)
}

// downOthers takes every link down but those that an instance is to have.
func downOthers(inside *socket) error {
	links, err := inside.links()
	if err != nil {
		return err
	}
	var b batch
	for _, l := range links {
		if l.up && l.index != loopbackIndex && l.index != podIndex {
			b.down(l.index)
		}
	}
	return inside.do(&b)
}

// numberOf is the number by which the socket's namespace knows another one; -1 when it doesn't.
func (s *socket) numberOf(namespace int) (int, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETNSID, unix.NLM_F_ACK)
	request.AddData(nl.NewRtGenMsg())
	request.AddData(nl.NewRtAttr(netlink.NETNSA_FD, nl.Uint32Attr(uint32(namespace))))
	number := -1
	err := s.Query(request, func(payload []byte) {
		attributes, _ := nl.ParseRouteAttr(payload[4:])
		for _, a := range attributes {
			if a.Attr.Type == netlink.NETNSA_NSID {
				number = int(int32(binary.NativeEndian.Uint32(a.Value)))
			}
		}
	})
	if err != nil {
		return -1, fmt.Errorf("asking for the number of a namespace: %w", err)
	}
	return number, nil
}

// addressOf is the IPv4 address that a link has in a network; the zero value when it has none.
func (s *socket) addressOf(index int, network netip.Prefix) (netip.Prefix, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfAddrmsg(unix.AF_INET))
	var found netip.Prefix
	err := s.Query(request, func(payload []byte) {
		if address, of := addressIn(payload); of == index && network.Contains(address.Addr()) {
			found = address
		}
	})
	if err != nil {
		return found, fmt.Errorf("listing addresses: %w", err)
	}
	return found, nil
}

// Seated says where an instance of this node sits: its data address, and whether it is on the data network. After a
// restart that is as it was left.
func (f *Fabric) Seated(slot int) (address netip.Prefix, enabled, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	i := f.instances[slot]
	if i == nil {
		return netip.Prefix{}, false, false
	}
	return i.data, i.enabled, true
}
