//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// packages are the Debian packages that a cluster needs, each by a file that it brings.
var packages = []struct{ file, name string }{
	{"/usr/bin/containerd", "containerd"},
	{"/usr/sbin/runc", "runc"},
	{"/usr/lib/cni/ptp", "containernetworking-plugins"},
	{"/usr/sbin/iptables", "iptables"},
	{"/usr/bin/redis-server", "redis-server"},
}

// installPackages installs the packages that are missing.
func installPackages(ctx context.Context, say func(string, ...any)) error {
	var missing []string
	for _, p := range packages {
		if _, err := os.Stat(p.file); err != nil {
			missing = append(missing, p.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("a cluster needs Debian's packages %s, which can't be installed here: %w", strings.Join(missing, ", "), err)
	}
	say("installing Debian's packages %s", strings.Join(missing, ", "))
	for _, arguments := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", arguments...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(arguments, " "), err, output)
		}
	}
	return nil
}

// limits are what the kernel must allow for hundreds of pods: each has about four of inotify's instances and forty tasks,
// and every machine here counts among the same neighbours.
var limits = []struct {
	name  string
	value int
}{
	{"kernel/pid_max", 4194304},
	{"kernel/threads-max", 200000},
	{"fs/inotify/max_user_instances", 65535},
	{"fs/inotify/max_user_watches", 1048576},
	{"net/ipv4/neigh/default/gc_thresh1", 4096},
	{"net/ipv4/neigh/default/gc_thresh2", 8192},
	{"net/ipv4/neigh/default/gc_thresh3", 16384},
}

// raiseLimits raises the host's limits where they are lower. They stay so: others may count on them by then.
func raiseLimits() error {
	for _, limit := range limits {
		file := filepath.Join("/proc/sys", limit.name)
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // this kernel has no such limit
		}
		if err != nil {
			return err
		}
		if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && now >= limit.value {
			continue
		}
		if err := os.WriteFile(file, []byte(strconv.Itoa(limit.value)), 0); err != nil {
			return fmt.Errorf("raising the limit %s to %d: %w", limit.name, limit.value, err)
		}
	}
	return nil
}
