//go:build !linux

package sidecar

import (
	"context"

	"github.com/groundplan/groundplan/sidecar/launch"
)

// Main returns launch.ErrUnsupported: there are no namespaces here.
func Main(context.Context, Config) error { return launch.ErrUnsupported }
