// Command guest is the first process of a virtual machine of netemvm's: it makes the machine fit for test programs, runs
// them one after the other, says how they ended, and switches the machine off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/internal/netemvm/errand"
)

func main() {
	status, err := work()
	if err != nil {
		fmt.Println("guest:", err)
		status = errand.Broken
	}
	fmt.Printf("\n%s%d\n", errand.Ended, status)
	unix.Sync()
	// The machine has no power switch. It is started so that a restart ends it.
	fmt.Println("guest: switching off:", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
	for {
		time.Sleep(time.Hour)
	}
}

// work does the errand and returns the highest exit status.
func work() (int, error) {
	if err := mount(); err != nil {
		return 0, err
	}
	raw, err := os.ReadFile(errand.File)
	if err != nil {
		return 0, err
	}
	var e errand.Errand
	if err := json.Unmarshal(raw, &e); err != nil {
		return 0, err
	}
	for _, module := range e.Modules {
		if err := load(module); err != nil {
			return 0, err
		}
	}
	highest := 0
	for _, program := range e.Programs {
		status, err := do(program)
		if err != nil {
			return 0, err
		}
		highest = max(highest, status)
	}
	return highest, nil
}

func mount() error {
	var errs []error
	for _, m := range []struct{ what, where string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}} {
		if err := unix.Mount(m.what, m.where, m.what, 0, ""); err != nil {
			errs = append(errs, fmt.Errorf("mounting %s: %w", m.where, err))
		}
	}
	return errors.Join(append(errs, os.Chmod("/tmp", 0o777|os.ModeSticky))...)
}

func load(module string) error {
	file, err := os.Open(module)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil {
		return fmt.Errorf("loading %s: %w", filepath.Base(module), err)
	}
	return nil
}

func do(program []string) (int, error) {
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = os.Stdout, os.Stdout, "/tmp"
	cmd.Env = append(os.Environ(), "HOME=/tmp", "TMPDIR=/tmp", "PATH=/")
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return max(ended.ExitCode(), 1), nil // killed by a signal: -1
	}
	return 0, err
}
