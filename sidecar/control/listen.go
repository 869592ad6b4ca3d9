package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/groundplan/groundplan/runs"
)

// ErrServed says that another sidecar already listens for this run.
var ErrServed = errors.New("another sidecar serves this run")

// Listener listens on a run's socket. Whoever holds one is the only one: a lock on the folder around the socket goes
// with it and ends with the process, by whatever cause.
type Listener struct {
	net.Listener
	lock *os.File
}

// Listen takes the socket of a run, over the remains of a sidecar that was killed. It returns ErrServed when one is
// alive.
func Listen(folder runs.Folder) (*Listener, error) {
	path := Socket(folder)
	lock, err := takeFolder(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("taking the control socket %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("removing the socket of an earlier sidecar: %w", err), lock.Close())
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening on the control socket: %w", err), lock.Close())
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("closing the control socket to others: %w", err), l.Close(), lock.Close())
	}
	return &Listener{Listener: l, lock: lock}, nil
}

// Close stops listening, removes the socket with its folder, and lets the next sidecar in. Closing twice does nothing.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	if gone := os.Remove(l.lock.Name()); !errors.Is(gone, syscall.ENOTEMPTY) {
		err = errors.Join(err, gone)
	}
	return errors.Join(err, l.lock.Close())
}

// takeFolder makes the private folder around the socket and locks it.
func takeFolder(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s is not a folder of this user: remove it, or set TMPDIR to a private folder", dir)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrServed
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}
