package worker

import (
	"fmt"
	"os"
)

// fileLock is a lock that the kernel gives back when its process ends, however that is.
type fileLock struct{ file *os.File }

// tryLock takes the lock, or returns nil when another process (or session) holds it. The file stays.
func tryLock(path string) (*fileLock, error) {
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

func (l *fileLock) release() error { return l.file.Close() }
