//go:build unix

package worker

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func flock(file *os.File) (held bool, err error) { return flockAs(file, unix.LOCK_EX) }

// flockShared takes a lock that any number may hold, as long as nobody holds it alone.
func flockShared(file *os.File) (held bool, err error) { return flockAs(file, unix.LOCK_SH) }

func flockAs(file *os.File, how int) (held bool, err error) {
	for {
		err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return true, nil
		}
		return false, err
	}
}
