package fabric

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// onThread does work on a thread of the operating system's that ends with it, so that work may put the thread into
// whatever namespaces it wants.
func onThread(work func() error) error {
	done := make(chan error, 1)
	go func() {
		// Without the unlocking, the runtime ends the thread along with the goroutine.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread never ends, and it is what /proc shows as the process. Keep it busy and take another.
			done <- onThread(work)
			runtime.UnlockOSThread()
			return
		}
		done <- work()
	}()
	return <-done
}

// namespaces are those of an instance, held by file descriptors. Of a pod it is only the network's.
type namespaces struct {
	net, uts *os.File
}

// currentNamespaces opens the namespaces of the calling thread.
func currentNamespaces() (namespaces, error) {
	network, err := os.Open(threadNetwork)
	if err != nil {
		return namespaces{}, err
	}
	uts, err := os.Open("/proc/thread-self/ns/uts")
	if err != nil {
		network.Close()
		return namespaces{}, err
	}
	return namespaces{net: network, uts: uts}, nil
}

// newNamespace puts the calling thread into a new network namespace with these settings, and returns it.
func newNamespace(settings []sysctl) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	if err := apply(settings); err != nil {
		return nil, err
	}
	return os.Open(threadNetwork)
}

// threadNetwork is the network namespace of whichever thread opens it.
const threadNetwork = "/proc/thread-self/ns/net"

// hasIPv6 says whether the kernel has it.
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6/conf")
	return err == nil
}

// enter moves the calling thread into them.
func (n namespaces) enter() error {
	if err := unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering its network namespace: %w", err)
	}
	if n.uts == nil {
		return nil
	}
	if err := unix.Setns(int(n.uts.Fd()), unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("entering its UTS namespace: %w", err)
	}
	return nil
}

func (n namespaces) close() {
	n.net.Close()
	if n.uts != nil {
		n.uts.Close()
	}
}

// inode is the number by which /proc/<pid>/ns/net names the network namespace.
func (n namespaces) inode() (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(n.net.Fd()), &stat); err != nil {
		return 0, err
	}
	return stat.Ino, nil
}

// sysctl is a setting of a network namespace: its name below /proc/sys/net, and its value.
type sysctl struct {
	name, value string
	// optional says that a kernel without it will do.
	optional bool
}

// A namespace may take its settings after the host's, which may forward (for its containers), filter and redirect. On
// this side that matters. Instances are left as they are: whatever they do, their packets end here, and looking a setting
// up takes longer the more namespaces there are.
var (
	quiet = []sysctl{
		{name: "ipv4/conf/all/rp_filter", value: "0"},
		{name: "ipv4/conf/default/rp_filter", value: "0"},
		{name: "ipv4/conf/all/send_redirects", value: "0"},
		{name: "ipv4/conf/default/send_redirects", value: "0"},
	}
	withoutIPv6 = []sysctl{
		{name: "ipv6/conf/default/disable_ipv6", value: "1", optional: true},
		{name: "ipv6/conf/all/disable_ipv6", value: "1", optional: true},
	}
	withIPv6 = []sysctl{
		{name: "ipv6/conf/default/disable_ipv6", value: "0", optional: true},
		{name: "ipv6/conf/all/disable_ipv6", value: "0", optional: true},
	}
	// Forwarding stands first: switching it resets other settings.
	controlSettings = slices.Concat([]sysctl{{name: "ipv4/ip_forward", value: "0"}}, quiet, withoutIPv6)
	routerSettings  = slices.Concat([]sysctl{
		{name: "ipv4/ip_forward", value: "1"},
		{name: "ipv6/conf/all/forwarding", value: "1", optional: true},
		{name: "ipv6/conf/default/addr_gen_mode", value: "1", optional: true}, // links don't address themselves
	}, quiet, withIPv6)
	// The shaper's namespace only has a link that a program reads from: its own stack stays out of it.
	shaperSettings = controlSettings
	// A new namespace has IPv6 unless the kernel was started without.
	instanceSettings = withIPv6[:1]
)

// apply sets them in the network namespace of the calling thread. It writes only what differs.
func apply(settings []sysctl) error {
	for _, s := range settings {
		path := "/proc/sys/net/" + s.name
		old, err := os.ReadFile(path)
		if err == nil && len(old) > 0 && string(old[:len(old)-1]) == s.value {
			continue
		}
		if err == nil {
			err = os.WriteFile(path, []byte(s.value), 0)
		}
		if s.optional && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("setting net/%s to %s: %w", s.name, s.value, err)
		}
	}
	return nil
}
