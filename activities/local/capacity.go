package local

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/sidecar/control"
)

// What an instance takes at the very least. An instance of a group that declares its memory takes that, when it is more.
const (
	leastMemory = 4 << 20 // of a process, in bytes
	ownMemory   = 1 << 20 // of the sidecar and the kernel, per instance, in bytes
	tasks       = 8       // threads: a Go program that waits has about as many
	descriptors = 4       // in the sidecar: two namespaces, a connection, a file
)

// addresses is how many instances a /16 data subnet and a /16 control network can hold.
const addresses = 65_000

// machine is what is left on this machine. A negative value is not known, and not checked.
type machine struct {
	Memory      int64 // bytes
	Tasks       int64 // processes and threads
	Descriptors int64 // open files of one process
}

// shortage says by how much the machine can't hold what is missing of the groups; empty when it can.
func shortage(in stage.Input, groups []string, there control.Status, m machine) string {
	var missing, memory int64
	for _, g := range in.Groups {
		if !slices.Contains(groups, g.Name) {
			continue
		}
		count := int64(max(g.Instances-there.Groups[g.Name].Placed, 0))
		missing += count
		memory += count * (max(int64(g.Memory), leastMemory) + ownMemory)
	}
	if missing == 0 {
		return ""
	}
	var short []string
	if total := int64(sidecars.Instances(in, sidecars.Names(in))); total > addresses {
		short = append(short, fmt.Sprintf("the data subnet has %d addresses for %d instances: %d too few", addresses, total, total-addresses))
	}
	if m.Memory >= 0 && memory > m.Memory {
		short = append(short, fmt.Sprintf("they need %s of memory and %s are free: %s too little", sidecars.Size(memory), sidecars.Size(m.Memory), sidecars.Size(memory-m.Memory)))
	}
	if need := missing * tasks; m.Tasks >= 0 && need > m.Tasks {
		short = append(short, fmt.Sprintf("they need %d processes and threads and %d more are allowed: %d too few", need, m.Tasks, need-m.Tasks))
	}
	if need := int64(sidecars.Instances(in, sidecars.Names(in))) * descriptors; m.Descriptors >= 0 && need > m.Descriptors {
		short = append(short, fmt.Sprintf("they need %d open files and %d are allowed (ulimit -Hn): %d too few", need, m.Descriptors, need-m.Descriptors))
	}
	if len(short) == 0 {
		return ""
	}
	return fmt.Sprintf("this machine can't hold %s more: %s", sidecars.Count(int(missing)), strings.Join(short, "; "))
}

// thisMachine reads what is left here.
func thisMachine() (machine, error) {
	memory, err := availableMemory()
	if err != nil {
		return machine{}, fmt.Errorf("reading how much memory is free: %w", err)
	}
	m := machine{Memory: memory, Tasks: freeTasks(), Descriptors: -1}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Max < 1<<62 {
		m.Descriptors = int64(limit.Max)
	}
	return m, nil
}

// availableMemory is what the kernel says can be had without swapping, or less where a control group allows less.
func availableMemory() (int64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	available := int64(-1)
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0, err
			}
			available = kib << 10
		}
	}
	if left := leftOf("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"); left >= 0 && (available < 0 || left < available) {
		available = left
	}
	return available, nil
}

// freeTasks is how many processes and threads may still be made.
func freeTasks() int64 {
	least := leftOf("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids.current")
	running := int64(0)
	if data, err := os.ReadFile("/proc/loadavg"); err == nil { // 0.20 0.18 0.12 1/80 11206: the fourth is running/all
		if fields := strings.Fields(string(data)); len(fields) > 3 {
			_, all, _ := strings.Cut(fields[3], "/")
			running, _ = strconv.ParseInt(all, 10, 64)
		}
	}
	for _, limit := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		if n := number(limit); n >= 0 && (least < 0 || n-running < least) {
			least = max(n-running, 0)
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err == nil && os.Geteuid() != 0 && limit.Cur < 1<<62 {
		least = min(least, int64(limit.Cur))
	}
	return least
}

// leftOf is a limit less what is used of it; -1 when there is none.
func leftOf(limit, used string) int64 {
	most, taken := number(limit), number(used)
	if most < 0 || taken < 0 {
		return -1
	}
	return max(most-taken, 0)
}

// number reads a file that holds one; -1 when it holds none, such as "max".
func number(path string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
