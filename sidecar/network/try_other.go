//go:build !linux

package network

import (
	"context"

	"github.com/groundplan/groundplan/sidecar/launch"
)

// Try needs Linux.
func Try(context.Context) (Trial, error) { return Trial{}, launch.ErrUnsupported }
