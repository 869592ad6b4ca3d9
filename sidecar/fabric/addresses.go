package fabric

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/groundplan/groundplan/sidecar/launch"
)

var (
	// DefaultSubnet is the data network when none is asked for.
	DefaultSubnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, 0}), 16)
	// controlSubnet is known to plans by its first two bytes: it never changes.
	controlSubnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 96, 0, 0}), 16)
	// nextHop is what instances route the data network through: the router, on whichever link.
	nextHop = netip.AddrFrom4([4]byte{169, 254, 1, 1})

	// subnet6 is the data network's IPv6 side: the IPv4 address that a slot is given stands in the last 32 bits.
	subnet6 = netip.MustParsePrefix("fd67:7264:706c::/96")
	// nextHop6 is the router for IPv6, on whichever link. It has no such address: a neighbour entry is enough.
	nextHop6 = netip.MustParseAddr("fe80::1")
)

// hostsPer24 leaves out the addresses that end in .0 and .255: some programs take them for network and broadcast
// addresses whatever the mask.
const hostsPer24 = 254

// checkSubnet says why a data network can't be used.
func checkSubnet(p netip.Prefix) error {
	switch {
	case !p.IsValid() || !p.Addr().Is4():
		return fmt.Errorf("data network %s: it has to be an IPv4 prefix", p)
	case p != p.Masked():
		return fmt.Errorf("data network %s: there are bits set behind the mask (did you mean %s?)", p, p.Masked())
	case p.Bits() < 8 || p.Bits() > 24:
		return fmt.Errorf("data network %s: its mask has to be between /8 and /24", p)
	case p.Overlaps(controlSubnet):
		return fmt.Errorf("data network %s overlaps the control network %s", p, controlSubnet)
	case p.Contains(nextHop) || p.Contains(netip.AddrFrom4([4]byte{127, 0, 0, 1})):
		return fmt.Errorf("data network %s holds addresses with a meaning of their own", p)
	}
	return nil
}

// slots is the number of instances that fit into a subnet: the first address is the gateway's, or left free.
func slots(subnet netip.Prefix) int { return hostsPer24<<(24-subnet.Bits()) - 1 }

// address is the address of a slot in a subnet; the zero value when the slot doesn't fit.
func address(subnet netip.Prefix, slot int) netip.Addr {
	if slot < 0 || slot >= slots(subnet) {
		return netip.Addr{}
	}
	host := slot + 1
	base := subnet.Addr().As4()
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil,
		binary.BigEndian.Uint32(base[:])+uint32(host/hostsPer24)<<8+uint32(host%hostsPer24)+1)))
}

// slotOf is the inverse of address.
func slotOf(subnet netip.Prefix, a netip.Addr) (int, bool) {
	a = a.Unmap()
	if !subnet.Contains(a) {
		return 0, false
	}
	own, base := a.As4(), subnet.Addr().As4()
	if own[3] == 0 || own[3] == 255 {
		return 0, false
	}
	offset := binary.BigEndian.Uint32(own[:]) - binary.BigEndian.Uint32(base[:])
	slot := int(offset>>8)*hostsPer24 + int(offset&255) - 2
	return slot, slot >= 0 && slot < slots(subnet)
}

// Gateway is the address of this process in the control network: the sync gateway listens there. On a node, where there
// is none, it is the zero value.
func (f *Fabric) Gateway() netip.Addr {
	if f.onNode() {
		return netip.Addr{}
	}
	return launch.Gateway
}

// Subnet is the data network.
func (f *Fabric) Subnet() netip.Prefix { return f.subnet }

// Addresses returns the addresses of a slot: what it was given, for data, not what its plan may have changed it to. They
// follow from the slot alone. The zero value stands for a slot that doesn't fit.
func (f *Fabric) Addresses(slot int) (control, data netip.Addr) {
	return address(controlSubnet, slot), address(f.subnet, slot)
}

// Subnet6 is the data network for IPv6.
func (f *Fabric) Subnet6() netip.Prefix { return subnet6 }

// Address6 returns the IPv6 address of a slot on the data network, which nothing changes. The zero value stands for a slot
// that doesn't fit.
func (f *Fabric) Address6(slot int) netip.Addr { return address6(address(f.subnet, slot)) }

// address6 is the IPv6 address that goes with an IPv4 one.
func address6(a netip.Addr) netip.Addr {
	if !a.IsValid() {
		return netip.Addr{}
	}
	six, four := subnet6.Addr().As16(), a.As4()
	copy(six[12:], four[:])
	return netip.AddrFrom16(six)
}

// Slot returns the slot whose control address that is.
func (f *Fabric) Slot(control netip.Addr) (int, bool) { return slotOf(controlSubnet, control) }

// network says which of an instance's networks a link belongs to. It is part of hardware addresses.
type network byte

const (
	controlNetwork network = 0xc0
	dataNetwork    network = 0xda
	detourNetwork  network = 0xde // the way through the shaper
)

// prefix is the first letter of the names of links on this side.
func (n network) prefix() string {
	if n == controlNetwork {
		return "c"
	}
	return "d"
}

// near and far are the hardware addresses of a slot's link: near on this side, far in the instance. They are locally
// administered and unicast.
func (n network) near(slot int) net.HardwareAddr { return n.hardware(slot, 1) }
func (n network) far(slot int) net.HardwareAddr  { return n.hardware(slot, 2) }

func (n network) hardware(slot int, end byte) net.HardwareAddr {
	return net.HardwareAddr{0x02, byte(n), end, byte(slot >> 16), byte(slot >> 8), byte(slot)}
}
