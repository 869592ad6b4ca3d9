// Sync measures the gateway beside the reference server of the protocol, github.com/testground/sync-service v0.1.0, in
// one session: the same unmodified github.com/testground/sdk-go v0.3.0 clients in one process, the servers in another,
// taking turns. Everything happens inside a network namespace of its own.
//
//	go run ./sync -clients 1000 -rounds 5
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type options struct {
	role    string
	clients int
	rounds  int
	timeout time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.role, "role", "", "internal: harness, "+reference+" or "+gatewayServer)
	flag.IntVar(&o.clients, "clients", 1000, "number of clients")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each measurement and server")
	flag.DurationVar(&o.timeout, "timeout", 2*time.Minute, "bound on one round")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench sync:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	switch o.role {
	case "":
		return insideNamespace()
	case "harness":
		if err := loopbackUp(); err != nil {
			return err
		}
		return measure(o)
	default:
		return serve(o.role)
	}
}

// insideNamespace runs this program again in a network namespace of its own: the reference server listens on every
// address, and that must lead nowhere.
func insideNamespace() error {
	cmd := exec.Command("/proc/self/exe", append([]string{"-role", "harness"}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return fmt.Errorf("the measuring process has ended before its time: %w", err)
	}
	return err
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("naming the loopback device: %w", err)
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("setting the loopback device up: %w", err)
	}
	return nil
}
