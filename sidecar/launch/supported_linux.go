package launch

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// probeVariable turns a copy of this program into the probe of Supported. It holds the user id of who asks.
const probeVariable = "GROUNDPLAN_LAUNCH_PROBE"

// What a user may do is only known from inside: an unprivileged user may be allowed to create a user namespace and yet
// have no rights in it. So Supported starts a copy of this very program, which must not get as far as main.
func init() {
	if os.Getenv(probeVariable) == "" {
		return
	}
	if err := probe(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Supported returns nil when this user on this machine can start sidecars, and else why not and what to do. It tries,
// in scratch namespaces.
func Supported() error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("trying namespaces: %w", err)
	}
	defer read.Close()
	p, err := Start(Options{Executable: "/proc/self/exe", Env: append(os.Environ(), probeVariable+"="+strconv.Itoa(os.Geteuid())), Log: write})
	write.Close()
	if err != nil {
		return err
	}
	said, err := io.ReadAll(io.LimitReader(read, 64<<10))
	if err != nil {
		return fmt.Errorf("trying namespaces: %w", err)
	}
	state, err := p.Wait()
	if err != nil {
		return fmt.Errorf("trying namespaces: %w", err)
	}
	if state.Success() {
		return nil
	}
	reason := strings.TrimSpace(string(bytes.ToValidUTF8(said, nil)))
	if reason == "" {
		reason = state.String()
	}
	return fmt.Errorf("this machine can't hold instances in namespaces: %s", reason)
}

// probe does once what every instance needs: a second network and UTS namespace, and a veth pair into it.
func probe() error {
	if err := Prepare(); err != nil {
		return withAdvice(err)
	}
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		return fmt.Errorf("opening a network namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
		return withAdvice(fmt.Errorf("creating an instance's namespaces: %w", err))
	}
	if err := unix.Sethostname([]byte("probe")); err != nil {
		return withAdvice(fmt.Errorf("setting an instance's host name: %w", err))
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, PeerName: "probe1", PeerNamespace: netlink.NsFd(int(own))}
	if err := netlink.LinkAdd(veth); err != nil {
		return withAdvice(fmt.Errorf("creating a veth pair: %w", err))
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return withAdvice(fmt.Errorf("switching forwarding on in a network namespace: %w", err))
	}
	return nil
}

func withAdvice(err error) error { return fmt.Errorf("%w (%s)", err, advice(err)) }

// advice says what to do about an error of the kernel's.
func advice(err error) string {
	switch {
	case restricted():
		return "AppArmor keeps unprivileged users from using namespaces here: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or run as root"
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return "this user has no right to it: run as root, or allow unprivileged user namespaces; in a container, give it CAP_SYS_ADMIN and CAP_NET_ADMIN and a seccomp profile that allows unshare"
	case errors.Is(err, unix.ENOSPC):
		return "a limit on namespaces is reached: see `sysctl user.max_user_namespaces user.max_net_namespaces user.max_pid_namespaces`"
	case errors.Is(err, unix.EOPNOTSUPP):
		return "the kernel has no veth: `modprobe veth`"
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS):
		return "this kernel was built without the namespaces it takes"
	default:
		return "`groundplan doctor` shows what this machine lacks"
	}
}

// restricted says whether AppArmor withholds the rights inside a user namespace from this user.
func restricted() bool {
	user := cmp.Or(os.Getenv(probeVariable), strconv.Itoa(os.Geteuid()))
	if user == "0" {
		return false
	}
	value, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
	return err == nil && strings.TrimSpace(string(value)) == "1"
}
