//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/groundplan/groundplan/internal/cluster/cgroups"
	"github.com/groundplan/groundplan/internal/cluster/namespaces"
)

const enterCommand = "enter"

// openFiles is how many files a server may have open, as far as the machine allows it.
const openFiles = 1 << 20

// enter becomes a server: in a control group of its own and in the namespaces of its machine. It returns only when that
// can't be.
func enter(arguments []string) error {
	if len(arguments) < 4 {
		return errors.New("enter NAMESPACES MACHINE GROUP PROGRAM…")
	}
	folder, machine, group, command := namespaces.Folder(arguments[0]), arguments[1], arguments[2], arguments[3:]
	runtime.LockOSThread()
	if err := cgroups.Join(group); err != nil {
		return err
	}
	if err := raiseOpenFiles(); err != nil {
		return err
	}
	if err := folder.Enter(machine); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return fmt.Errorf("becoming %s: %w", command[0], syscall.Exec(command[0], command, os.Environ()))
}

func raiseOpenFiles() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: openFiles, Max: openFiles}); err == nil {
		return nil
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}
