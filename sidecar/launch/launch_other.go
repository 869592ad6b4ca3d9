//go:build !linux

package launch

import "os"

// Start returns ErrUnsupported: there are no namespaces here.
func Start(Options) (*os.Process, error) { return nil, ErrUnsupported }

// Prepare returns ErrUnsupported: there are no namespaces here.
func Prepare() error { return ErrUnsupported }

// Supported returns ErrUnsupported: there are no namespaces here.
func Supported() error { return ErrUnsupported }
