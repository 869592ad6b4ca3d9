package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/groundplan/groundplan/runs"
)

// fileLock is a lock that the kernel gives back when its process ends, however that is.
type fileLock struct{ file *os.File }

// tryLock takes the lock, or returns nil when another process (or session) holds it. The file stays.
func tryLock(path string) (*fileLock, error) { return tryLockBy(path, flock) }

func tryLockBy(path string, flock func(*os.File) (held bool, err error)) (*fileLock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	held, err := flock(file)
	if err != nil || held {
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		return nil, nil
	}
	return &fileLock{file}, nil
}

// holdRuns keeps runs from being removed while one is begun or resumed, and with alone from being begun while some are
// removed. Both take moments. It waits for its turn.
func holdRuns(ctx context.Context, home runs.Home, alone bool) (release func(), err error) {
	how := flockShared
	if alone {
		how = flock
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		lock, err := tryLockBy(filepath.Join(string(home), "runs.lock"), how)
		if err != nil {
			return nil, err
		}
		if lock != nil {
			return func() { _ = lock.release() }, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("waiting until other runs are begun, or removed: %w", err)
		}
	}
}

func (l *fileLock) release() error { return l.file.Close() }
