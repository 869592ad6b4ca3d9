package prober

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tests run in namespaces of their own, as root or not: this program starts itself again there.
const insideVariable = "GROUNDPLAN_PROBER_TEST"

var noNamespaces error // why the tests that need namespaces can't run here

func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		flag.Parse()
		_ = flag.Set("test.parallel", "6") // they wait more than they work
		os.Exit(m.Run())
	}
	if noNamespaces = try("-test.list=^$"); noNamespaces != nil {
		os.Exit(m.Run())
	}
	if err := try(os.Args[1:]...); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			os.Exit(exit.ExitCode())
		}
		fmt.Println(err)
		os.Exit(1)
	}
}

// try runs this program in new namespaces.
func try(arguments ...string) error {
	cmd := exec.Command("/proc/self/exe", arguments...)
	cmd.Env = append(os.Environ(), insideVariable+"=yes")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if len(arguments) == 1 && arguments[0] == "-test.list=^$" {
		cmd.Stdout = nil
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd.Run()
}

// fate is what becomes of a packet, or of one copy of it.
type fate struct {
	after  time.Duration
	packet []byte // as IP sees it
}

// wire says what becomes of a packet from one slot to another; nothing: it is lost.
type wire func(from, to int, packet []byte) []fate

// rig is a network of instances whose every packet goes through a wire: in test code, so that what is measured can be
// held against what was done.
type rig struct {
	namespaces []*os.File
	ports      []int // packet sockets in the middle, one per slot
	wire       atomic.Pointer[wire]
	readers    sync.WaitGroup
	timers     sync.WaitGroup
	closed     atomic.Bool
}

func straight(_, _ int, packet []byte) []fate { return []fate{{packet: packet}} }

// newRig connects n instances.
func newRig(t testing.TB, n int) *rig {
	t.Helper()
	if noNamespaces != nil {
		t.Skipf("no namespaces here: %v", noNamespaces)
	}
	r := &rig{}
	r.set(straight)
	t.Cleanup(r.close)
	err := apart(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		for slot := range n {
			if err := r.plug(slot, n); err != nil {
				return fmt.Errorf("slot %d: %w", slot, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for slot := range n {
		r.readers.Go(func() { r.carry(slot) })
	}
	return r
}

// apart does work on a thread that ends with it.
func apart(work func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- work()
	}()
	return <-done
}

func (r *rig) set(w wire) { r.wire.Store(&w) }

func (r *rig) address(slot int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(slot + 2)}) }
func (r *rig) address6(slot int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd67:7264:706c::a00:%x", slot+2))
}
func hardware(slot int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(slot)} }

func (r *rig) inside(slot int, work func() error) error {
	return apart(func() error {
		if err := unix.Setns(int(r.namespaces[slot].Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return work()
	})
}

// endpoint opens one in a slot.
func (r *rig) endpoint(t testing.TB, slot int, address netip.Addr) *Endpoint {
	t.Helper()
	e, err := Open(func(work func() error) error { return r.inside(slot, work) }, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// plug connects a slot. The calling thread is in the middle.
func (r *rig) plug(slot, n int) error {
	name := fmt.Sprint("m", slot)
	var namespace *os.File
	middle, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer middle.Close()
	err = apart(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if namespace, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		r.namespaces = append(r.namespaces, namespace)
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1", HardwareAddr: hardware(slot)}, PeerName: name, PeerNamespace: netlink.NsFd(middle.Fd())}
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		return r.furnish(slot, n)
	})
	if err != nil {
		return err
	}
	near, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(near); err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r.ports = append(r.ports, socket)
	return errors.Join(
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20),
		unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
		unix.SetsockoptInt(socket, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: near.Attrs().Index}))
}

// furnish gives an instance its addresses and neighbours.
func (r *rig) furnish(slot, n int) error {
	link, err := netlink.LinkByName("eth1")
	if err != nil {
		return err
	}
	faults := []error{
		os.WriteFile("/proc/sys/net/ipv6/conf/eth1/accept_dad", []byte("0"), 0),
		withoutOffload("eth1"),
	}
	for _, own := range []netip.Prefix{netip.PrefixFrom(r.address(slot), 16), netip.PrefixFrom(r.address6(slot), 96)} {
		mask := net.CIDRMask(own.Bits(), own.Addr().BitLen())
		faults = append(faults, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: own.Addr().AsSlice(), Mask: mask}, Flags: unix.IFA_F_NODAD}))
	}
	faults = append(faults, netlink.LinkSetUp(link))
	for other := range n {
		if other == slot {
			continue
		}
		for _, address := range []netip.Addr{r.address(other), r.address6(other)} {
			faults = append(faults, netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: hardware(other)}))
		}
	}
	return errors.Join(faults...)
}

// withoutOffload has an interface's checksums computed before its packets leave.
func withoutOffload(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	value := [2]uint32{unix.ETHTOOL_STXCSUM, 0}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:], name)
	request.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("switching checksum offload off: %w", errno)
	}
	return nil
}

// carry takes what a slot sends to where it goes.
func (r *rig) carry(slot int) {
	frame := make([]byte, 65536)
	for !r.closed.Load() {
		n, _, err := unix.Recvfrom(r.ports[slot], frame, 0)
		if err != nil || n < 14+20 {
			continue
		}
		kind := binary.BigEndian.Uint16(frame[12:])
		to := int(frame[5])
		if (kind != unix.ETH_P_IP && kind != unix.ETH_P_IPV6) || to >= len(r.ports) || frame[0] != 2 {
			continue // noise of the kernel's own
		}
		for _, f := range (*r.wire.Load())(slot, to, frame[14:n]) {
			copied := append(append([]byte(nil), frame[:14]...), f.packet...)
			if f.after <= 0 {
				r.deliver(to, copied)
				continue
			}
			r.timers.Add(1)
			time.AfterFunc(f.after, func() {
				defer r.timers.Done()
				r.deliver(to, copied)
			})
		}
	}
}

func (r *rig) deliver(to int, frame []byte) {
	_ = unix.Sendto(r.ports[to], frame, 0, nil) // an interface that is full loses it, and the test will tell
}

func (r *rig) close() {
	r.closed.Store(true)
	r.readers.Wait()
	r.timers.Wait()
	for _, s := range r.ports {
		unix.Close(s)
	}
	for _, n := range r.namespaces {
		n.Close()
	}
}
