package fabric

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// InRouter does work on a thread in the network namespace of the router, where the data links of all instances end. The
// thread ends with it. Sockets opened there stay usable from anywhere.
func (f *Fabric) InRouter(work func() error) error {
	return f.within(func() *os.File { return f.router }, "entering the router", work)
}

// InShaper does work on a thread in the namespace that marked packets are led into, by shape1.
func (f *Fabric) InShaper(work func() error) error {
	return f.within(func() *os.File { return f.shaper }, "entering the shaper's namespace", work)
}

func (f *Fabric) within(namespace func() *os.File, what string, work func() error) error {
	return onThread(func() error {
		f.mu.RLock()
		err := net.ErrClosed
		if n := namespace(); n != nil {
			err = unix.Setns(int(n.Fd()), unix.CLONE_NEWNET)
		}
		f.mu.RUnlock()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return work()
	})
}

// Inside does work on a thread in the namespaces of an instance. The thread ends with it. The instance may be removed
// meanwhile.
func (f *Fabric) Inside(slot int, work func() error) error {
	return onThread(func() error {
		f.mu.RLock()
		err := ErrAbsent
		if i := f.instances[slot]; i != nil {
			err = i.namespaces.enter()
		}
		f.mu.RUnlock()
		if err != nil {
			return fmt.Errorf("entering slot %d: %w", slot, err)
		}
		return work()
	})
}

// NearIndex is the index of the router's end of a slot's data link.
func (f *Fabric) NearIndex(slot int) int { return nearIndex(slot) }

// ShaperIndex is the index of shape0, the router's end of the way through the shaper.
func (f *Fabric) ShaperIndex() int { return detourIndex }

// ShaperEndIndex is the index of shape1, its other end, in the namespace of InShaper.
func (f *Fabric) ShaperEndIndex() int { return detourEndIndex }

// DataIndex is the index of eth1 inside an instance.
func (f *Fabric) DataIndex() int {
	if f.node != nil {
		return podIndex
	}
	return dataIndex
}

// TunnelIndex is the index of the link that leads from the router to those of other nodes; 0: there are none.
func (f *Fabric) TunnelIndex() int {
	if f.node != nil {
		return tunnelIndex
	}
	return 0
}
