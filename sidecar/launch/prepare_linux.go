package launch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Prepare makes the namespaces that Start gave this process fit for instances: mounts that don't reach the host, a
// /proc of its own where that is permitted, an /etc/hosts that names the sync gateway, and the loopback interface. It is
// the first thing a sidecar does. As PID 1 it inherits the processes whose parent has died, and has to wait for them.
func Prepare() error {
	if os.Getpid() != 1 {
		return errors.New("preparing the sidecar: this process is not PID 1 of a namespace of its own; start it with launch.Start")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("preparing the sidecar: making its mounts private: %w", err)
	}
	if err := mountProc(); err != nil {
		return fmt.Errorf("preparing the sidecar: mounting /proc: %w", err)
	}
	if err := bindHosts(); err != nil {
		return fmt.Errorf("preparing the sidecar: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("preparing the sidecar: %w", err)
	}
	return nil
}

// mountProc lays a /proc of this PID namespace over the host's. Inside a container whose own /proc is masked the kernel
// refuses that to an unprivileged user; then the old one stays, in which /proc/self still means whoever reads it.
func mountProc() error {
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EPERM) {
		slog.Warn("no /proc of the run's own is permitted here: instances see process ids of the host in it")
		return nil
	}
	return err
}

// bindHosts lays a hosts file over /etc/hosts that has what an instance can reach by name. Nothing of the host's file
// is kept: nothing it names can be reached.
func bindHosts() error {
	if _, err := os.Stat("/etc/hosts"); errors.Is(err, os.ErrNotExist) {
		slog.Warn("there is no /etc/hosts to lay a file over: instances can't find the sync gateway by name, only by SYNC_SERVICE_HOST")
		return nil
	}
	f, err := os.CreateTemp("", "groundplan-hosts-")
	if err != nil {
		return fmt.Errorf("writing a hosts file: %w", err)
	}
	// The mount holds the file; its name is not needed any longer.
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := fmt.Fprintf(f, "127.0.0.1\tlocalhost\n%s\ttestground-sync-service\n", Gateway); err != nil {
		return fmt.Errorf("writing a hosts file: %w", err)
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("writing a hosts file: %w", err)
	}
	if err := unix.Mount(f.Name(), "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("laying a hosts file over /etc/hosts: %w", err)
	}
	return nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding the loopback interface: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing the loopback interface up: %w", err)
	}
	return nil
}
