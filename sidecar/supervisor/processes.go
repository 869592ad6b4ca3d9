//go:build linux

package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// signalOthers sends a signal to every process of the pod but this one, and returns how many there were.
func signalOthers(what unix.Signal) (int, error) {
	if os.Getpid() == 1 {
		return signalNamespace(what)
	}
	return signalDescendants(what)
}

// signalNamespace means everybody in this PID namespace. The kernel doesn't miss one that is being forked just now.
func signalNamespace(what unix.Signal) (int, error) {
	err := unix.Kill(-1, what)
	if errors.Is(err, unix.ESRCH) {
		return 0, nil
	}
	if err != nil && !errors.Is(err, unix.EPERM) {
		return 0, err
	}
	// There is somebody, also one who has ended and isn't reaped yet; count them.
	names, err := entries("/proc")
	if err != nil {
		return 0, err
	}
	count := 0
	for _, name := range names {
		if _, err := strconv.Atoi(name); err == nil {
			count++
		}
	}
	return max(1, count-1), nil
}

// signalDescendants means what this process and those that it has started have started: where it isn't the first in its
// PID namespace, it adopts what its descendants leave behind (see Run), so that all of them hang on it.
func signalDescendants(what unix.Signal) (int, error) {
	found, err := descendants(os.Getpid(), nil)
	if err != nil {
		return 0, err
	}
	for _, pid := range found {
		if err := unix.Kill(pid, what); err != nil && !errors.Is(err, unix.ESRCH) {
			return len(found), fmt.Errorf("sending process %d a signal: %w", pid, err)
		}
	}
	return len(found), nil
}

func descendants(pid int, found []int) ([]int, error) {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := entries(tasks)
	if err != nil {
		return found, err
	}
	for _, thread := range threads {
		children, err := os.ReadFile(tasks + "/" + thread + "/children")
		if err != nil {
			if gone(err) {
				continue
			}
			return found, err
		}
		for _, field := range strings.Fields(string(children)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return found, fmt.Errorf("reading the children of process %d: %w", pid, err)
			}
			if found, err = descendants(child, append(found, child)); err != nil && !gone(err) {
				return found, err
			}
		}
	}
	return found, nil
}

func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) }

func entries(path string) ([]string, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}
