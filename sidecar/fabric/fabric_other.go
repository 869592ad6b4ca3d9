//go:build !linux

package fabric

import (
	"context"
	"net/netip"
	"os/exec"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/launch"
)

// Fabric is the network of one run; there is none on this system.
type Fabric struct {
	subnet netip.Prefix
}

// New returns launch.ErrUnsupported: there are no namespaces here. So there is nothing to call the methods on.
func New(Options) (*Fabric, error) { return nil, launch.ErrUnsupported }

// Add needs Linux.
func (f *Fabric) Add(_ context.Context, specs []Spec) []error {
	failures := make([]error, len(specs))
	for i := range failures {
		failures[i] = launch.ErrUnsupported
	}
	return failures
}

// Present needs Linux.
func (f *Fabric) Present(int) bool { return false }

// Start needs Linux.
func (f *Fabric) Start(int, *exec.Cmd) error { return launch.ErrUnsupported }

// NetworkInode needs Linux.
func (f *Fabric) NetworkInode(int) uint64 { return 0 }

// SetEnabled needs Linux.
func (f *Fabric) SetEnabled(int, bool) error { return launch.ErrUnsupported }

// SetDataAddress needs Linux.
func (f *Fabric) SetDataAddress(int, netip.Prefix) error { return launch.ErrUnsupported }

// Remove needs Linux.
func (f *Fabric) Remove(...int) error { return launch.ErrUnsupported }

// Close needs Linux.
func (f *Fabric) Close() error { return launch.ErrUnsupported }

// InRouter needs Linux.
func (f *Fabric) InRouter(func() error) error { return launch.ErrUnsupported }

// InShaper needs Linux.
func (f *Fabric) InShaper(func() error) error { return launch.ErrUnsupported }

// Inside needs Linux.
func (f *Fabric) Inside(int, func() error) error { return launch.ErrUnsupported }

// NearIndex needs Linux.
func (f *Fabric) NearIndex(int) int { return 0 }

// ShaperIndex needs Linux.
func (f *Fabric) ShaperIndex() int { return 0 }

// ShaperEndIndex needs Linux.
func (f *Fabric) ShaperEndIndex() int { return 0 }

// DataIndex needs Linux.
func (f *Fabric) DataIndex() int { return 0 }

// TunnelIndex needs Linux.
func (f *Fabric) TunnelIndex() int { return 0 }

// MTU needs Linux.
func (f *Fabric) MTU() int { return 0 }

// NodeAddress needs Linux.
func (f *Fabric) NodeAddress() netip.Addr { return netip.Addr{} }

// SetPeers needs Linux.
func (f *Fabric) SetPeers([]control.Peer) error { return launch.ErrUnsupported }

// Remote needs Linux.
func (f *Fabric) Remote(int) bool { return false }

// NodeOf needs Linux.
func (f *Fabric) NodeOf(int) netip.Addr { return netip.Addr{} }

// MoveRemote needs Linux.
func (f *Fabric) MoveRemote(int, netip.Prefix) error { return launch.ErrUnsupported }

// SetHomes needs Linux.
func (f *Fabric) SetHomes(map[netip.Addr]int) error { return launch.ErrUnsupported }

// Seated needs Linux.
func (f *Fabric) Seated(int) (address netip.Prefix, enabled, ok bool) { return }

// Destroy needs Linux.
func (f *Fabric) Destroy() error { return launch.ErrUnsupported }

// Destroy needs Linux.
func Destroy(string) error { return launch.ErrUnsupported }

func (f *Fabric) onNode() bool { return false }
