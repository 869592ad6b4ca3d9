// Package launch starts a run's sidecar in namespaces of its own, and makes them ready from inside.
//
// The sidecar is PID 1 of its PID namespace and holds the run's network by file descriptors only. So when it dies, by
// whatever cause, the kernel kills every instance and takes every interface away: there is nothing to clean up, and
// nobody who could forget to.
package launch

import (
	"errors"
	"net/netip"
	"os"
)

// Gateway is where instances find the sync gateway. Prepare names it in /etc/hosts, fabric makes it an address.
var Gateway = netip.AddrFrom4([4]byte{100, 96, 0, 1})

// MaxInput is the longest Options.Input, in bytes: a pipe takes it whole before anybody reads.
const MaxInput = 4096

// ErrUnsupported is what everything here answers on a system without Linux namespaces.
var ErrUnsupported = errors.New("local instances need Linux namespaces: run on Linux, or with --on kubernetes")

// Options say what to start.
type Options struct {
	// Executable is the path of the program and Args its arguments, without the program's name.
	Executable string
	Args       []string
	// Env is the whole environment.
	Env []string
	// Input is what the process reads from stdin, at most MaxInput bytes; empty: nothing. It is the way for a secret:
	// everybody on the machine can read the arguments, and an instance the environment.
	Input string
	// Dir is the working folder; empty: that of the caller.
	Dir string
	// Log takes stdout and stderr; nil: both are dropped.
	Log *os.File
}
