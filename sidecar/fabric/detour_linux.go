package fabric

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// detourTable is the routing table of packets that bear ShaperMark.
const detourTable = 103

var (
	// detourHop and detourHop6 are where marked packets are sent to, by shape0. Nobody has these addresses.
	detourHop  = netip.AddrFrom4([4]byte{169, 254, 1, 2})
	detourHop6 = netip.MustParseAddr("fe80::2")
)

// The ends of the link to the shaper. Packets are addressed to neither of them: a program that reads from shape1 sees
// them all the same, and the kernel there, to which they look like somebody else's, throws them away at once.
var (
	shape0       = end{name: "shape0", index: detourIndex, hardware: detourNetwork.near(0)}
	shape1       = end{name: "shape1", index: detourEndIndex, hardware: detourNetwork.far(0)}
	beyondShape1 = detourNetwork.hardware(0, 3)
)

// detour is the shaper's namespace while the way through it is being built.
type detour struct {
	namespace *os.File
	netlink   *socket
	// switches is a socket for ioctls.
	switches int
}

// openDetour opens the namespace that enter puts the calling thread into, and leaves it there.
func openDetour(enter func() (*os.File, error)) (*detour, error) {
	d := &detour{switches: -1}
	var err error
	if d.namespace, err = enter(); err != nil {
		return nil, err
	}
	if d.netlink, err = openSocket(); err == nil {
		d.switches, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		d.close()
		d.namespace.Close()
		return nil, err
	}
	return d, nil
}

// close gives back what only the building takes.
func (d *detour) close() {
	if d.netlink != nil {
		d.netlink.Close()
	}
	if d.switches >= 0 {
		unix.Close(d.switches)
	}
}

// lead makes the link, where it isn't there, and has marked packets take it. The calling thread is in the router's
// namespace.
func (d *detour) lead(router *socket, ipv6 bool) error {
	there, err := router.has(shape0.index)
	if err != nil {
		return err
	}
	var near, far batch
	if !there {
		near.veth(shape0, shape1, int(d.namespace.Fd()))
	}
	near.up(shape0.index)
	far.up(shape1.index)
	near.neighbour(shape0.index, detourHop, beyondShape1)
	near.route(route{to: netip.PrefixFrom(netip.IPv4Unspecified(), 0), index: shape0.index, via: detourHop, table: detourTable})
	near.markRule(unix.AF_INET, ShaperMark, detourTable)
	if ipv6 {
		near.neighbour(shape0.index, detourHop6, beyondShape1)
		near.route(route{to: netip.PrefixFrom(netip.IPv6Unspecified(), 0), index: shape0.index, via: detourHop6, table: detourTable})
		near.markRule(unix.AF_INET6, ShaperMark, detourTable)
	}
	if err := router.do(&near); err != nil {
		return err
	}
	if err := d.netlink.do(&far); err != nil {
		return err
	}
	switches, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(switches)
	if err := errors.Join(plain(switches, shape0.name), plain(d.switches, shape1.name)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return awaitLinks(ctx, map[int]bool{detourIndex: true, detourEndIndex: true}, router, d.netlink)
}

// The layouts of linux/ethtool.h and linux/if.h. A link has up to 64 features, in blocks of 32.
type (
	ethtoolFeatures struct {
		command, blocks uint32
		block           [2]struct{ available, requested, active, never uint32 }
	}
	ethtoolSetFeatures struct {
		command, blocks uint32
		block           [2]struct{ valid, requested uint32 }
	}
	ethtoolRequest struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
)

// plain switches everything off that a link would leave to hardware: what is read from it are then packets as they would
// be on a wire, none longer than the link allows, each with its right checksum.
func plain(fd int, name string) error {
	have := ethtoolFeatures{command: unix.ETHTOOL_GFEATURES, blocks: 2}
	if err := ethtool(fd, name, unsafe.Pointer(&have)); err != nil {
		return fmt.Errorf("asking for the features of %s: %w", name, err)
	}
	want := ethtoolSetFeatures{command: unix.ETHTOOL_SFEATURES, blocks: 2}
	for i, b := range have.block {
		want.block[i].valid = b.available &^ b.never
	}
	if err := ethtool(fd, name, unsafe.Pointer(&want)); err != nil {
		return fmt.Errorf("switching the features of %s off: %w", name, err)
	}
	return nil
}

func ethtool(fd int, name string, data unsafe.Pointer) error {
	request := ethtoolRequest{data: data}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(data)
	if errno != 0 {
		return errno
	}
	return nil
}
