package fabric

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"

	"github.com/groundplan/groundplan/sidecar/launch"
)

// Fabric is the network of one run. Its methods may be called from any goroutine.
type Fabric struct {
	subnet netip.Prefix
	// ipv6 says that the kernel has it.
	ipv6 bool
	// router and shaper are the namespaces beside the process's own.
	router, shaper *os.File
	// node is what there is on a node of a cluster only; nil elsewhere.
	node *node

	// placing is held by Add: one call at a time has the lanes.
	placing sync.Mutex
	lanes   []*lane

	// mu guards what follows. Its write side is also held while links change, its read side while a process is being
	// started in an instance's namespaces.
	mu        sync.RWMutex
	ours      *lane
	instances map[int]*instance
	// claims has, for every data address in use, the slots that use it, the latest last: that one gets the packets. Plans
	// that give themselves addresses do so at their own pace, so for a moment two may have the same. Of slots on other
	// nodes it has those that have left their own address.
	claims map[netip.Addr][]int
}

// instance is what there is in a slot.
type instance struct {
	namespaces namespaces
	inode      uint64
	data       netip.Prefix
	data6      netip.Addr // the zero value where the kernel has no IPv6
	enabled    bool
}

// New makes the fabric of a run without instances. It makes the process's own network namespace the control network, so
// it refuses to work in a namespace that has links of somebody else's; but not on a node of a cluster, where that is the
// host's, and nothing in it is changed.
func New(o Options) (*Fabric, error) {
	if !o.Subnet.IsValid() {
		o.Subnet = DefaultSubnet
	}
	if err := checkSubnet(o.Subnet); err != nil {
		return nil, err
	}
	f := &Fabric{subnet: o.Subnet, instances: make(map[int]*instance), claims: make(map[netip.Addr][]int)}
	if o.Node != nil {
		var err error
		if f.node, err = newNode(*o.Node, o.Subnet); err != nil {
			return nil, err
		}
	}
	if err := onThread(f.build); err != nil {
		f.closeSides()
		return nil, fmt.Errorf("building the network: %w", err)
	}
	return f, nil
}

// build makes both sides and opens the sockets to them. The calling thread ends in the router's namespace.
func (f *Fabric) build() error {
	f.ours = &lane{}
	for range workers {
		f.lanes = append(f.lanes, &lane{})
	}
	open := f.openControl
	if f.node != nil {
		open = f.node.openHost
	}
	if err := open(); err != nil {
		return err
	}
	detour, err := openDetour(func() (*os.File, error) { return f.own(pinShaper, shaperSettings) })
	if err != nil {
		return fmt.Errorf("creating the shaper's network namespace: %w", err)
	}
	defer detour.close()
	f.shaper = detour.namespace
	if f.router, err = f.own(pinRouter, f.routerSettings()); err != nil {
		return fmt.Errorf("creating the router's network namespace: %w", err)
	}
	f.ipv6 = hasIPv6()
	for _, l := range append(f.lanes, f.ours) {
		if l.router, err = openSocket(); err != nil {
			return err
		}
	}
	if err := f.furnish(); err != nil {
		return err
	}
	if err := detour.lead(f.ours.router, f.ipv6); err != nil {
		return fmt.Errorf("leading through the shaper: %w", err)
	}
	if f.node == nil {
		return nil
	}
	return f.node.join(f)
}

// own puts the calling thread into a namespace of the fabric's own: a new one, or on a node the one that is pinned.
func (f *Fabric) own(name string, settings []sysctl) (*os.File, error) {
	if f.node == nil {
		return newNamespace(settings)
	}
	return pinned(f.node.Pin, name, settings)
}

// openControl makes the network namespace of the calling thread the control network.
func (f *Fabric) openControl() error {
	for _, l := range append(f.lanes, f.ours) {
		var err error
		if l.control, err = openSocket(); err != nil {
			return err
		}
	}
	if err := refuseForeignLinks(f.ours.control); err != nil {
		return err
	}
	if err := apply(controlSettings); err != nil {
		return err
	}
	var gateway batch
	gateway.up(loopbackIndex)
	gateway.address(loopbackIndex, netip.PrefixFrom(launch.Gateway, 32))
	return f.ours.control.do(&gateway)
}

// furnish gives the router what it has without any instances.
func (f *Fabric) furnish() error {
	var router batch
	router.up(loopbackIndex)
	router.address(loopbackIndex, netip.PrefixFrom(nextHop, 32))
	router.blackhole(f.subnet)
	if f.ipv6 {
		// What it says of packets that it can't deliver has to come from somewhere.
		router.address(loopbackIndex, netip.PrefixFrom(address6(nextHop), 128))
		router.blackhole(subnet6)
	}
	return f.ours.router.do(&router)
}

// refuseForeignLinks protects the network of a host: this package takes the namespace it is called in for its own.
func refuseForeignLinks(s *socket) error {
	links, err := s.links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.index != loopbackIndex && l.up {
			return fmt.Errorf("this process's network namespace has a link %s already; a fabric needs the namespace that launch.Start gives", l.name)
		}
	}
	return nil
}

// Present says whether an instance is in that slot.
func (f *Fabric) Present(slot int) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.instances[slot] != nil
}

// NetworkInode is the number by which /proc/<pid>/ns/net shows processes of that slot; 0 when it is empty.
func (f *Fabric) NetworkInode(slot int) uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if i := f.instances[slot]; i != nil {
		return i.inode
	}
	return 0
}

// Start starts cmd in the network and UTS namespace of a slot. It must not have a parent-death signal: that is sent when
// the thread that started it ends, which is at once.
func (f *Fabric) Start(slot int, cmd *exec.Cmd) error {
	if f.node != nil {
		return fmt.Errorf("starting %s: what runs in a pod is started by the pod", cmd.Path)
	}
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Pdeathsig != 0 {
		return fmt.Errorf("starting %s: a parent-death signal can't be used in a fabric", cmd.Path)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	i := f.instances[slot]
	if i == nil {
		return fmt.Errorf("starting %s in slot %d: %w", cmd.Path, slot, ErrAbsent)
	}
	return onThread(func() error {
		if err := i.namespaces.enter(); err != nil {
			return fmt.Errorf("starting %s in slot %d: %w", cmd.Path, slot, err)
		}
		return cmd.Start()
	})
}

// Add connects instances, several at once, and returns when packets get through to them. Error i belongs to spec i. A
// slot that is taken already stays as it is, but where another pod has come in place of the one that had it; one that
// fails leaves nothing behind, so that it can be tried again.
func (f *Fabric) Add(ctx context.Context, specs []Spec) []error {
	f.placing.Lock()
	defer f.placing.Unlock()
	failures := make([]error, len(specs))
	if len(f.lanes) == 0 {
		for i := range failures {
			failures[i] = fmt.Errorf("placing %s: %w", specs[i].Hostname, net.ErrClosed)
		}
		return failures
	}
	fresh := make(map[int]bool, len(specs))
	for _, s := range specs {
		if !f.seated(s) {
			fresh[nearIndex(s.Slot)] = true
		}
	}
	f.addAll(ctx, specs, failures)
	for i, err := range failures {
		if err != nil {
			delete(fresh, nearIndex(specs[i].Slot))
		}
	}
	if err := awaitLinks(ctx, fresh, f.lanes[0].sockets()...); err != nil {
		for i := range failures {
			failures[i] = cmp.Or(failures[i], err)
		}
	}
	added := make([]*instance, len(specs))
	for i, s := range specs {
		if fresh[nearIndex(s.Slot)] && failures[i] == nil {
			added[i] = f.at(s.Slot)
		}
	}
	for i, err := range awaitIPv6(ctx, added) {
		if err != nil {
			failures[i] = fmt.Errorf("placing %s: %w", specs[i].Hostname, err)
		}
	}
	return failures
}

// at is what there is in a slot, nil when it is empty.
func (f *Fabric) at(slot int) *instance {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.instances[slot]
}

// addAll adds every spec, on as many threads as there are lanes, without waiting for links.
func (f *Fabric) addAll(ctx context.Context, specs []Spec, failures []error) {
	queue := make(chan int)
	var wg sync.WaitGroup
	for _, l := range f.lanes[:min(len(f.lanes), len(specs))] {
		wg.Go(func() {
			_ = onThread(func() error {
				for i := range queue {
					failures[i] = f.add(ctx, l, specs[i])
				}
				return nil
			})
		})
	}
	for i := range specs {
		queue <- i
	}
	close(queue)
	wg.Wait()
}

// add connects one instance, on a thread whose namespaces it changes.
func (f *Fabric) add(ctx context.Context, l *lane, spec Spec) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("placing %s: %w", spec.Hostname, err)
	}
	if f.seated(spec) {
		return nil
	}
	_, data := f.Addresses(spec.Slot)
	if !data.IsValid() || !address(controlSubnet, spec.Slot).IsValid() {
		return fmt.Errorf("placing %s: slot %d doesn't fit: the data network %s holds %d instances, the control network %d",
			spec.Hostname, spec.Slot, f.subnet, slots(f.subnet), slots(controlSubnet))
	}
	place := l.place
	if f.node != nil {
		place = f.node.placeWith(l, f.evict)
	}
	i, err := place(f.plan(spec.Slot), spec)
	if err != nil {
		return fmt.Errorf("placing %s: %w", spec.Hostname, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instances[spec.Slot] = i
	f.claims[i.data.Addr()] = append(f.claims[i.data.Addr()], spec.Slot)
	return nil
}

// seated says whether an instance is where it should be.
func (f *Fabric) seated(s Spec) bool {
	i := f.at(s.Slot)
	if i == nil || s.Namespace == nil {
		return i != nil
	}
	inode, err := namespaces{net: s.Namespace}.inode()
	return err == nil && inode == i.inode
}

// Remove takes instances away: their links are gone when it returns. Processes that are still in their namespaces go on
// without a network. Empty slots are passed over.
func (f *Fabric) Remove(slots ...int) error {
	f.placing.Lock()
	defer f.placing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.remove(f.ours, slots)
}

// remove is Remove by way of a lane's sockets. The caller holds mu.
func (f *Fabric) remove(l *lane, slots []int) error {
	gone := slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(slots))), func(slot int) bool { return f.instances[slot] == nil })
	if err := l.unplug(gone); err != nil {
		return fmt.Errorf("removing %d instances: %w", len(gone), err)
	}
	for _, slot := range gone {
		i := f.instances[slot]
		i.namespaces.close()
		delete(f.instances, slot)
		f.unclaim(i.data.Addr(), slot)
		// Another instance may have given itself the same address, and gets the packets now.
		if f.node == nil && f.holder(i.data.Addr()) < 0 {
			continue
		}
		var b batch
		f.direct(&b, i.data.Addr())
		if err := l.router.do(&b); err != nil {
			return fmt.Errorf("routing to %s, which slot %d had: %w", i.data.Addr(), slot, err)
		}
	}
	return nil
}

// Close gives every namespace back. The kernel takes the links away by itself, but on a node: there all that is pinned
// stays as it is, with the links, until Destroy.
func (f *Fabric) Close() error {
	f.placing.Lock()
	defer f.placing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.instances {
		i.namespaces.close()
	}
	clear(f.instances)
	clear(f.claims)
	f.closeSides()
	return nil
}

// closeSides gives back what is not an instance's.
func (f *Fabric) closeSides() {
	for _, n := range []*os.File{f.router, f.shaper} {
		if n != nil {
			n.Close()
		}
	}
	f.router, f.shaper = nil, nil
	if f.ours != nil {
		f.ours.close()
	}
	for _, l := range f.lanes {
		l.close()
	}
	f.ours, f.lanes = nil, nil
	if f.node != nil {
		f.node.close()
	}
}
