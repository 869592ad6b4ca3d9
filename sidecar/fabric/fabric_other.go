//go:build !linux

package fabric

import (
	"context"
	"net/netip"
	"os/exec"

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
