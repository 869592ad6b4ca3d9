package sidecars

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/runs"
)

// Lock takes a run's folder, which it makes where there is none, so that of two calls that would change what was asked
// of the run's sidecars the second sees what the first did. The lock ends with the process that holds it.
func Lock(ctx context.Context, folder runs.Folder) (unlock func(), err error) {
	if err := os.MkdirAll(string(folder), 0o755); err != nil {
		return nil, fmt.Errorf("making the run's folder: %w", err)
	}
	file, err := os.Open(string(folder))
	if err != nil {
		return nil, fmt.Errorf("opening the run's folder: %w", err)
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking the run's folder: %w", err), file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), file.Close())
		case <-time.After(pause):
		}
	}
}
