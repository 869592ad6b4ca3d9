//go:build !linux

package launch

import (
	"os"
	"os/exec"
)

// Start returns ErrUnsupported: there are no namespaces here.
func Start(Options) (*os.Process, error) { return nil, ErrUnsupported }

// Prepare returns ErrUnsupported: there are no namespaces here.
func Prepare() error { return ErrUnsupported }

// Supported returns ErrUnsupported: there are no namespaces here.
func Supported() error { return ErrUnsupported }

// StartChild starts cmd.
func StartChild(cmd *exec.Cmd) error { return cmd.Start() }
