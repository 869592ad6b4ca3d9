//go:build linux

// Package supervisor is what waits in a pod for the stages of a run: the first process of its one container, a static
// binary that an init container has put there (Install), so that any image serves unchanged. It starts the plan's program
// when the node's sidecar asks for it (package wire), writes what it says into files, reports how it ended and what it
// used, and carries the program's connections with the sync service to the sidecar (package relay).
//
// It outlives the sidecar: what it started goes on while nobody is connected, and whoever connects next hears how it
// stands. It keeps nothing on disk, since it lives exactly as long as the pod does.
package supervisor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
	"github.com/groundplan/groundplan/sidecar/supervisor/relay"
	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

const (
	// FolderVariable names the pod's folder where it isn't the one that the program lies in.
	FolderVariable = "GROUNDPLAN_DIR"
	// SyncVariable names another address for the relay than DefaultSync.
	SyncVariable = "GROUNDPLAN_SYNC"
	// DefaultSync is where programs find the sync service.
	DefaultSync = "127.0.0.1:5050"
)

// Run supervises until the pod is to end.
func Run() error {
	spare()
	folder, err := folderOf()
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		// What programs leave behind is to hang on this process all the same.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("becoming the one who reaps: %w", err)
		}
	}
	sockets, err := socketsIn(folder)
	if err != nil {
		return err
	}
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, unix.SIGTERM, unix.SIGINT)
	clients, err := net.Listen("tcp", syncAddress())
	if err != nil {
		return fmt.Errorf("listening for the program's sync client: %w", err)
	}
	calls, err := listen(sockets)
	if err != nil {
		return err
	}
	log := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "groundplan-supervisor: "+format+"\n", args...)
	}
	s := newServer(folder, clients.Addr().String(), log)
	failed := make(chan error, 2)
	go func() { failed <- s.serve(calls) }()
	go func() {
		failed <- (&relay.Relay{Socket: filepath.Join(sockets, wire.Sync), Log: log, Busy: s.busy}).Serve(clients)
	}()
	why := "its pod was asked to end"
	select {
	case <-ends:
	case err = <-failed:
		why = fmt.Sprintf("its supervisor has failed: %v", err)
	}
	s.goodbye(why)
	_, killed := signalOthers(unix.SIGKILL)
	s.wait()
	return errors.Join(err, killed)
}

// spare keeps this process small: it has little to do, and there are hundreds of it on a node.
func spare() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(10)
}

func newServer(folder, sync string, log func(string, ...any)) *server {
	environ := os.Environ()
	for i, variable := range environ {
		if strings.HasPrefix(variable, FolderVariable+"=") || strings.HasPrefix(variable, SyncVariable+"=") {
			environ[i] = ""
		}
	}
	environ = compact(environ)
	s := &server{
		hello: wire.Hello{Boot: rand.Text(), Folder: folder, Environ: environ, Sync: sync},
		log:   log, conns: make(map[*conn]struct{}), rest: time.AfterFunc(restAfter, debug.FreeOSMemory),
	}
	s.programs = &programs{
		folder: folder, environ: environ, reaper: reaper.New(), ended: s.ended, known: make(map[wire.Ident]*wire.State),
	}
	return s
}

func compact(list []string) []string {
	kept := list[:0]
	for _, s := range list {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return kept
}

func folderOf() (string, error) {
	if folder := os.Getenv(FolderVariable); folder != "" {
		return filepath.Abs(folder)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding the pod's folder: %w", err)
	}
	return filepath.Dir(self), nil
}

func syncAddress() string {
	if address := os.Getenv(SyncVariable); address != "" {
		return address
	}
	return DefaultSync
}

// socketsIn is a short name for a folder, since the kernel takes no more than 107 bytes for the path of a socket.
func socketsIn(folder string) (string, error) {
	const most = 80
	if len(folder) <= most {
		return folder, nil
	}
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // stays open
	if err != nil {
		return "", fmt.Errorf("opening the pod's folder %s: %w", folder, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}

// listen takes the supervisor's socket, which only its own user and root can connect to.
func listen(folder string) (*net.UnixListener, error) {
	path := filepath.Join(folder, wire.Socket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("taking the supervisor's socket: %w", err)
	}
	before := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(before)
	if err != nil {
		return nil, fmt.Errorf("listening for the sidecar: %w", err)
	}
	return l, nil
}
