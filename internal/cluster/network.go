//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/groundplan/groundplan/internal/cluster/layout"
)

// freeBlock is the first block of addresses among tries that the host has no way to yet.
func freeBlock(tries []int) (int, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 0, fmt.Errorf("looking at the host's routes: %w", err)
	}
	var taken []netip.Prefix
	for _, route := range routes {
		if prefix, ok := prefixOf(route.Dst); ok && prefix.Bits() > 0 {
			taken = append(taken, prefix)
		}
	}
	return chooseBlock(tries, taken)
}

func chooseBlock(tries []int, taken []netip.Prefix) (int, error) {
	for _, block := range tries {
		overlaps := false
		for _, prefix := range taken {
			overlaps = overlaps || layout.Cluster{Block: block}.Range().Overlaps(prefix)
		}
		if !overlaps {
			return block, nil
		}
	}
	return 0, errors.New("the host has routes into every range of addresses that a cluster could have (172.18.0.0/16 to 172.31.0.0/16)")
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	address, ok := netip.AddrFromSlice(n.IP.To4())
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(address, ones), ok
}

// wire lays the cables: from each machine to the switch, and from the host to the control plane.
func (c *cluster) wire() error {
	middle, err := c.open(layout.Switch)
	if err != nil {
		return err
	}
	defer middle.close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
	if err := middle.handle.LinkAdd(bridge); err != nil {
		return fmt.Errorf("making the bridge that joins the machines: %w", err)
	}
	if err := middle.handle.LinkSetUp(bridge); err != nil {
		return err
	}
	for _, m := range append(c.Machines(), c.Control()) {
		if err := c.plug(middle, bridge, m); err != nil {
			return fmt.Errorf("joining %s to the network: %w", m.Name, err)
		}
	}
	if err := c.uplink(); err != nil {
		return fmt.Errorf("joining the control plane to the host: %w", err)
	}
	return nil
}

// plug lays the cable between a machine and the switch, and gives the machine its address and its routes.
func (c *cluster) plug(middle *network, bridge netlink.Link, m layout.Machine) error {
	own, err := c.open(m.Name)
	if err != nil {
		return err
	}
	defer own.close()
	cable := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: m.Name, MasterIndex: bridge.Attrs().Index},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(own.namespace),
	}
	if err := middle.handle.LinkAdd(cable); err != nil {
		return err
	}
	if err := middle.handle.LinkSetUp(cable); err != nil {
		return err
	}
	if err := errors.Join(own.up("lo"), own.up("eth0", m.Address)); err != nil {
		return err
	}
	for _, route := range c.Routes(m) {
		via := route.Via.Addr().AsSlice()
		if err := own.handle.RouteAdd(&netlink.Route{Dst: netOf(route.To), Gw: via}); err != nil {
			return fmt.Errorf("the route to %v by %v: %w", route.To, route.Via.Addr(), err)
		}
	}
	return nil
}

// uplink lays the cable between the host and the control plane, which has the address of the Service `kubernetes` itself.
func (c *cluster) uplink() error {
	control, err := c.open(c.Control().Name)
	if err != nil {
		return err
	}
	defer control.close()
	handle, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	host := &network{handle: handle}
	defer handle.Close()
	cable := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: c.HostLink()},
		PeerName:  "uplink", PeerNamespace: netlink.NsFd(control.namespace),
	}
	if err := handle.LinkAdd(cable); err != nil {
		return fmt.Errorf("the link %s: %w", c.HostLink(), err)
	}
	return errors.Join(
		host.up(c.HostLink(), c.Host()),
		control.up("uplink", c.Uplink()),
		control.up("lo", netip.PrefixFrom(c.APIService(), 32)),
	)
}

// unplug takes the cable to the host away, if there is one.
func (c *cluster) unplug() error {
	link, err := netlink.LinkByName(c.HostLink())
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("removing the link %s: %w", c.HostLink(), err)
	}
	return nil
}

// network is a network namespace, open to be changed.
type network struct {
	namespace netns.NsHandle
	handle    *netlink.Handle
}

func (c *cluster) open(machine string) (*network, error) {
	namespace, err := netns.GetFromPath(c.namespaces().File(machine, "net"))
	if err != nil {
		return nil, fmt.Errorf("opening the network of %s: %w", machine, err)
	}
	handle, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the network of %s: %w", machine, err), namespace.Close())
	}
	return &network{namespace: namespace, handle: handle}, nil
}

func (n *network) close() {
	n.handle.Close()
	_ = n.namespace.Close()
}

// up gives a link addresses and brings it up.
func (n *network) up(name string, addresses ...netip.Prefix) error {
	link, err := n.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("the link %s: %w", name, err)
	}
	for _, address := range addresses {
		at := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), 32)}
		if err := n.handle.AddrAdd(link, &netlink.Addr{IPNet: at}); err != nil {
			return fmt.Errorf("giving %s the address %v: %w", name, address, err)
		}
	}
	if err := n.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	return nil
}

func netOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
