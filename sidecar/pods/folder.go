//go:build linux

package pods

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// volume is the name of the emptyDir of instances' pods.
const volume = "groundplan"

// folderOf is where the kubelet keeps a pod's folder.
func folderOf(kubeletRoot, uid string) string {
	return filepath.Join(kubeletRoot, "pods", uid, "volumes", "kubernetes.io~empty-dir", volume)
}

// handle opens a folder so that paths below it can be named shorter than a socket's may be: by its number among this
// process's open files.
func handle(folder string) (*os.File, error) {
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: folder, Err: err}
	}
	return os.NewFile(uintptr(fd), folder), nil
}

func byNumber(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// connectIn connects to a socket in a folder that others may write to. A link is not followed: it would lead to whatever
// socket there is on the node.
func connectIn(folder, name string, within time.Duration) (*net.UnixConn, error) {
	dir, err := handle(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(folder, name), Err: err}
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Mode().Type() != os.ModeSocket {
		return nil, errors.Join(err, fmt.Errorf("%s is no socket", filepath.Join(folder, name)))
	}
	c, err := net.DialTimeout("unix", byNumber(file), within)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// listener is a socket in such a folder.
type listener struct {
	*net.UnixListener
	folder, name string
}

// listenIn listens at a socket in a folder, in place of whatever lies there under its name.
func listenIn(folder, name string) (*listener, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := root.RemoveAll(name); err != nil {
		return nil, err
	}
	dir, err := handle(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(byNumber(dir), name), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by a path that means something else by then
	if err := root.Chmod(name, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &listener{UnixListener: l, folder: folder, name: name}, nil
}

// Close stops listening. The socket stays, so that whoever connects is refused and tries again, and goes with the pod.
func (l *listener) Close() error { return l.UnixListener.Close() }

// sameFolder says whether two paths lead to the same folder.
func sameFolder(a, b string) (bool, error) {
	var one, other unix.Stat_t
	if err := unix.Lstat(a, &one); err != nil {
		return false, &os.PathError{Op: "stat", Path: a, Err: err}
	}
	if err := unix.Lstat(b, &other); err != nil {
		return false, &os.PathError{Op: "stat", Path: b, Err: err}
	}
	return one.Dev == other.Dev && one.Ino == other.Ino, nil
}
