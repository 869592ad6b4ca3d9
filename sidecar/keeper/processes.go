//go:build linux

package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processes looks at what runs, by /proc. That is the /proc of this PID namespace, or where none could be mounted
// (an unprivileged user in a container) the one of a namespace around it, in which processes have other numbers.
type processes struct {
	// column is which of the numbers on a process's NSpid line is the one in this namespace; 0: /proc is our own.
	column int
}

func newProcesses() (processes, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return processes{}, fmt.Errorf("looking at /proc: %w", err)
	}
	return processes{column: max(0, len(strings.Fields(line(status, "NSpid:")))-1)}, nil
}

// line returns what stands behind key on its line of a status file.
func line(status []byte, key string) string {
	_, rest, found := bytes.Cut(status, []byte("\n"+key))
	if !found {
		return ""
	}
	value, _, _ := bytes.Cut(rest, []byte{'\n'})
	return string(value)
}

// inside returns the processes whose network namespace is one of those.
func (p processes) inside(namespaces map[uint64]bool) ([]int, error) {
	return p.find(func(name string) bool { return namespaces[networkOf(name)] })
}

// stopped returns those of them that a signal has stopped.
func (p processes) stopped(namespaces map[uint64]bool) ([]int, error) {
	return p.find(func(name string) bool { return isStopped(name) && namespaces[networkOf(name)] })
}

// isStopped says whether a process, by its name in /proc, is in the state T.
func isStopped(name string) bool {
	stat, err := os.ReadFile("/proc/" + name + "/stat")
	if err != nil {
		return false
	}
	// pid (name) state …; the name may hold anything.
	end := bytes.LastIndexByte(stat, ')')
	return end >= 0 && bytes.HasPrefix(stat[end:], []byte(") T"))
}

// find returns the processes that fit.
func (p processes) find(fits func(name string) bool) ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("looking for processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("looking for processes: %w", err)
	}
	var found []int
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' || !fits(name) {
			continue
		}
		if pid, ok := p.number(name); ok {
			found = append(found, pid)
		}
	}
	return found, nil
}

// networkOf is the inode of a process's network namespace, 0 when it has none any more.
func networkOf(pid string) uint64 {
	link, err := os.Readlink("/proc/" + pid + "/ns/net")
	if err != nil {
		return 0
	}
	digits := strings.TrimSuffix(strings.TrimPrefix(link, "net:["), "]")
	inode, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0
	}
	return inode
}

// number is a process's number in this namespace. This process itself is none: its first thread may be in any network,
// as one that entered it to start an instance and can't be thrown away.
func (p processes) number(name string) (int, bool) {
	if p.column > 0 {
		status, err := os.ReadFile("/proc/" + name + "/status")
		if err != nil {
			return 0, false
		}
		numbers := strings.Fields(line(status, "NSpid:"))
		if len(numbers) <= p.column {
			return 0, false
		}
		name = numbers[p.column]
	}
	pid, err := strconv.Atoi(name)
	return pid, err == nil && pid != os.Getpid()
}

// clear kills every process inside those network namespaces until there is none, or ctx ends. It returns how many are
// left.
func (p processes) clear(ctx context.Context, namespaces map[uint64]bool) (left int, err error) {
	pause := time.Millisecond
	for {
		found, err := p.inside(namespaces)
		if err != nil || len(found) == 0 {
			return 0, err
		}
		if ctx.Err() != nil {
			return len(found), nil
		}
		for _, pid := range found {
			if err := send(pid, unix.SIGKILL); err != nil {
				return len(found), fmt.Errorf("killing process %d: %w", pid, err)
			}
		}
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// send sends a signal to a process; one that is gone needs none.
func send(pid int, what unix.Signal) error {
	if err := unix.Kill(pid, what); !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}
