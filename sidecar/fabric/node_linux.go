package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// node is what a fabric has on a node of a cluster only. What changes in it is guarded by the fabric's mu.
type node struct {
	Node
	// host is a socket to the host's network namespace.
	host *socket
	// mtu is how long packets may be on the data network, so that they fit through the tunnels.
	mtu int
	// addressed is the node's own place among the others.
	addressed hop
	beyonds
}

// newNode checks what is asked for.
func newNode(o Node, subnet netip.Prefix) (*node, error) {
	if o.Port == 0 {
		o.Port = DefaultPort
	}
	o.Underlay = o.Underlay.Unmap()
	switch {
	case o.Pin == "":
		return nil, errors.New("a fabric on a node takes a folder to pin its namespaces in")
	case !o.Underlay.IsValid() || o.Underlay.Zone() != "":
		return nil, fmt.Errorf("a fabric on a node takes the node's address, and %q isn't one that others could reach", o.Underlay)
	case o.VNI == 0 || o.VNI >= 1<<24:
		return nil, fmt.Errorf("a VNI is between 1 and %d, and %d isn't", 1<<24-1, o.VNI)
	case subnet.Overlaps(hops):
		return nil, fmt.Errorf("data network %s overlaps %s, by which nodes find each other", subnet, hops)
	}
	return &node{Node: o, addressed: hopOf(o.Underlay)}, nil
}

// onNode says whether this is a node's part of a network.
func (f *Fabric) onNode() bool { return f.node != nil }

// MTU is how long packets may be on the data network, in bytes.
func (f *Fabric) MTU() int {
	if f.node != nil {
		return f.node.mtu
	}
	return defaultMTU
}

// defaultMTU is that of a link that nobody has asked for another one.
const defaultMTU = 1500

// NodeAddress is the address of this node's router among the routers of all nodes, which only they can reach. It is the
// zero value where there are no nodes.
func (f *Fabric) NodeAddress() netip.Addr {
	if f.node == nil {
		return netip.Addr{}
	}
	return f.node.addressed.four
}

// routerSettings are those of the router. The answers of another node's router come from an address that this one has too.
func (f *Fabric) routerSettings() []sysctl {
	if f.node == nil {
		return routerSettings
	}
	return append(slices.Clone(routerSettings), sysctl{name: "ipv4/conf/all/accept_local", value: "1"})
}

// openHost leaves the calling thread in the host's namespace.
func (n *node) openHost() (err error) {
	if n.Host != nil {
		if err := unix.Setns(int(n.Host.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering the host's network namespace: %w", err)
		}
	}
	n.host, err = openSocket()
	return err
}

func (n *node) close() {
	if n.host != nil {
		n.host.Close()
		n.host = nil
	}
}

// The names of pins.
const (
	pinRouter = "router"
	pinShaper = "shaper"
)

// pinned puts the calling thread into the network namespace that a folder has under a name, and returns it. Where there
// is none it makes one with these settings.
func pinned(folder, name string, settings []sysctl) (*os.File, error) {
	path := filepath.Join(folder, name)
	held, err := openPin(path)
	switch {
	case err != nil:
		return nil, err
	case held == nil:
		return pin(folder, path, settings)
	}
	if err = unix.Setns(int(held.Fd()), unix.CLONE_NEWNET); err == nil {
		err = apply(settings)
	}
	if err != nil {
		held.Close()
		return nil, fmt.Errorf("taking over %s: %w", path, err)
	}
	return held, nil
}

// pin makes a namespace and gives it that name.
func pin(folder, path string, settings []sysctl) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	held, err := newNamespace(settings)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err == nil {
		err = errors.Join(file.Close(), mount(path))
	}
	if err != nil {
		held.Close()
		return nil, err
	}
	return held, nil
}

// mount lays the network namespace of the calling thread over a file.
func mount(path string) error {
	err := unix.Mount(threadNetwork, path, "", unix.MS_BIND, "")
	if err != nil {
		return fmt.Errorf("pinning a network namespace at %s: %w (bind mounts have to be possible there: run privileged, and with the folder on a mount that is shared with the host, else what is pinned goes with this container)", path, err)
	}
	return nil
}

// openPin opens the network namespace that has a name; nil when there is none.
func openPin(path string) (*os.File, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var system unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &system); err == nil && system.Type == unix.NSFS_MAGIC {
		return file, nil
	}
	// A name that has outlived what it was for.
	return nil, file.Close()
}

// Destroy takes a node's part of a network away: the links into pods, the tunnel, and what is pinned. Pods that were
// isolated stay so. Where there is nothing pinned it is Close.
func (f *Fabric) Destroy() error {
	if err := f.Close(); err != nil || f.node == nil {
		return err
	}
	return Destroy(f.node.Pin)
}

// Destroy takes away what a fabric with that folder has left pinned, whoever made it. Nothing being there is no error.
func Destroy(folder string) error {
	router, err := openPin(filepath.Join(folder, pinRouter))
	if err == nil && router != nil {
		err = onThread(func() error { return dismantle(router) })
		router.Close()
	}
	for _, name := range []string{pinRouter, pinShaper} {
		path := filepath.Join(folder, name)
		// Several may lie over each other where somebody was in the way of somebody else.
		for unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
		}
		if gone := os.Remove(path); gone != nil && !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	if gone := os.Remove(folder); gone != nil && !errors.Is(gone, os.ErrNotExist) && !errors.Is(gone, unix.ENOTEMPTY) {
		err = errors.Join(err, gone)
	}
	if err != nil {
		return fmt.Errorf("taking the network pinned at %s away: %w", folder, err)
	}
	return nil
}

// dismantle deletes the links of a router at once: with the namespace they would go by and by.
func dismantle(router *os.File) error {
	if err := unix.Setns(int(router.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	s, err := openSocket()
	if err != nil {
		return err
	}
	defer s.Close()
	links, err := s.links()
	if err != nil {
		return err
	}
	var b batch
	b.MaxRequests = batchLimit
	for _, l := range links {
		if l.index == tunnelIndex || l.index >= firstNearIndex {
			b.group(l.index, leaving)
		}
	}
	b.deleteGroup(leaving)
	return s.do(&b)
}
