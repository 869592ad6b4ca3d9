//go:build linux

// Package cgroups makes, empties and removes a tree of control groups: in every hierarchy of the first version, or in the
// one of the second.
package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const mounted = "/sys/fs/cgroup"

// accounts is the hierarchy of the first version that counts what a server and its children use; joined are those in which
// it has a group of its own. Its share of the processor is that of a cluster's servers, whatever pods and everybody else
// do; memory is where a kubelet looks for it, too.
const accounts = "cpuacct"

var joined = []string{accounts, "cpu", "memory"}

// weight is the share of the processor that a cluster has beside everything else that runs outside of any group, which has
// 1024 a process. With the default, all pods together would weigh as one such process.
const weight = "16384"

// unified says whether the machine has the second version only.
func unified() bool {
	var s unix.Statfs_t
	return unix.Statfs(mounted, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC
}

// hierarchies are the folders of all hierarchies. A machine may have the second version beside those of the first: runc
// makes its groups there too.
func hierarchies() ([]string, error) {
	if unified() {
		return []string{mounted}, nil
	}
	entries, err := os.ReadDir(mounted)
	if err != nil {
		return nil, fmt.Errorf("looking for control groups: %w", err)
	}
	var found []string
	for _, entry := range entries {
		var s unix.Statfs_t
		folder := filepath.Join(mounted, entry.Name())
		if entry.IsDir() && unix.Statfs(folder, &s) == nil && (s.Type == unix.CGROUP_SUPER_MAGIC || s.Type == unix.CGROUP2_SUPER_MAGIC) {
			found = append(found, folder)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no control groups are mounted below %s", mounted)
	}
	return found, nil
}

// Make makes a group, such as groundplan-dev/node-1, in every hierarchy, with all that pods in it need.
func Make(group string) error {
	folders, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range folders {
		at := root
		for _, name := range strings.Split(group, "/") {
			if err := prepare(at, filepath.Join(at, name)); err != nil {
				return fmt.Errorf("making the control group %s: %w", group, err)
			}
			at = filepath.Join(at, name)
		}
	}
	return nil
}

// prepare makes the group at below its parent.
func prepare(parent, at string) error {
	if unified() {
		// Not every machine offers every controller: what misses is said by the kubelet, in its words.
		_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+cpu +cpuset +io +memory +pids"), 0)
	}
	if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		allowed, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil || unified() {
			continue // another hierarchy
		}
		if err := os.WriteFile(filepath.Join(at, file), allowed, 0); err != nil {
			return err
		}
	}
	shares := filepath.Join(at, "cpu.shares")
	if _, err := os.Stat(shares); err != nil {
		return nil // another hierarchy
	}
	return os.WriteFile(shares, []byte(weight), 0)
}

// server is the folder of the group that counts what one process and its children use.
func server(group string) string {
	if unified() {
		return filepath.Join(mounted, group)
	}
	return filepath.Join(mounted, accounts, group)
}

// Join puts the calling process into a group of its own, which is made: its children stay in it.
func Join(group string) error {
	folders := []string{server(group)}
	if !unified() {
		folders = folders[:0]
		for _, hierarchy := range joined {
			folders = append(folders, filepath.Join(mounted, hierarchy, group))
		}
	}
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("making the control group %s: %w", group, err)
		}
		if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return fmt.Errorf("joining the control group %s: %w", group, err)
		}
	}
	return nil
}

// Used is the processor time that all processes ever used that were in a server's group.
func Used(group string) (time.Duration, error) {
	if unified() {
		text, err := os.ReadFile(filepath.Join(server(group), "cpu.stat"))
		if err != nil {
			return 0, err
		}
		var us int64
		_, err = fmt.Sscanf(string(text), "usage_usec %d", &us)
		return time.Duration(us) * time.Microsecond, err
	}
	text, err := os.ReadFile(filepath.Join(server(group), "cpuacct.usage"))
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return time.Duration(ns), err
}

// Kill ends every process in a group and the groups below it, in every hierarchy, and waits until they are gone.
func Kill(group string) error {
	for range 400 {
		processes, err := members(group)
		if err != nil {
			return err
		}
		if len(processes) == 0 {
			return nil
		}
		for process := range processes {
			if err := unix.Kill(process, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("ending process %d of %s: %w", process, group, err)
			}
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("processes of the control group %s have not ended 10 s after SIGKILL", group)
}

// members are the processes in a group and the groups below it.
func members(group string) (map[int]bool, error) {
	folders, err := hierarchies()
	if err != nil {
		return nil, err
	}
	found := map[int]bool{}
	for _, root := range folders {
		err := walk(filepath.Join(root, group), func(folder string) error {
			text, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
			if err != nil {
				return ignoringGone(err)
			}
			for _, field := range strings.Fields(string(text)) {
				if process, err := strconv.Atoi(field); err == nil && process > 0 && !ended(process) {
					found[process] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("looking for processes of %s: %w", group, err)
		}
	}
	return found, nil
}

// ended says whether only a process's exit status is left, which waits for its parent.
func ended(process int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}

// Remove removes a group and those below it from every hierarchy. No process may be in them.
func Remove(group string) error {
	folders, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range folders {
		for tries := 40; ; tries-- {
			err = walk(filepath.Join(root, group), func(folder string) error { return ignoringGone(unix.Rmdir(folder)) })
			if err == nil || tries == 0 {
				break
			}
			time.Sleep(25 * time.Millisecond) // the kernel takes a moment after the last process
		}
		if err != nil {
			return fmt.Errorf("removing the control group %s: %w", group, err)
		}
	}
	return nil
}

// walk calls f for every group below a folder, and then for the folder: the deepest ones first.
func walk(folder string, f func(folder string) error) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return ignoringGone(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := walk(filepath.Join(folder, entry.Name()), f); err != nil {
				return err
			}
		}
	}
	return f(folder)
}

func ignoringGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
