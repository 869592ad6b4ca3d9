package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What is needed at least, and what is comfortable, in bytes.
const (
	gib         = 1 << 30
	leastDisk   = gib
	enoughDisk  = 5 * gib
	leastMemory = gib / 2
	enoughMem   = 2 * gib
)

func disk(home string) Finding {
	f := Finding{Name: "disk", Level: OK}
	var stat unix.Statfs_t
	folder := existing(home)
	if err := unix.Statfs(folder, &stat); err != nil {
		return Finding{Name: "disk", Level: Warn, Text: fmt.Sprintf("the space left at %s can't be told: %v", folder, err)}
	}
	free := int64(stat.Bavail) * stat.Bsize
	f.Text = fmt.Sprintf("%.1f GiB free for %s", float64(free)/gib, home)
	if err := unix.Access(folder, unix.W_OK); err != nil {
		f.Level, f.Text, f.Fix = Fail, fmt.Sprintf("%s can't be written: %v", folder, err), "choose another state folder with --home or GROUNDPLAN_HOME"
		return f
	}
	f.grade(free, leastDisk, enoughDisk, "free some space, or choose another state folder with --home")
	return f
}

// existing is the path or the nearest folder above it that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// grade lowers the level when there is less than what is needed or comfortable.
func (f *Finding) grade(have, least, enough int64, fix string) {
	switch {
	case have < least:
		f.Level, f.Fix = Fail, fix
	case have < enough:
		f.Level, f.Fix = Warn, fix
	}
}

func memory() Finding {
	f := Finding{Name: "memory", Level: OK}
	available, err := availableMemory("/proc/meminfo")
	if err != nil {
		return Finding{Name: "memory", Level: Warn, Text: err.Error()}
	}
	f.Text = fmt.Sprintf("%.1f GiB available", float64(available)/gib)
	f.grade(available, leastMemory, enoughMem, "end other programs: the services take about 200 MiB, each instance its own")
	return f
}

// availableMemory reads MemAvailable from a file like /proc/meminfo, in bytes.
func availableMemory(path string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s doesn't tell how much memory is available", path)
}

// What one instance takes of what is limited: descriptors of the sidecar, processes.
const (
	filesPerInstance   = 6
	threadsPerInstance = 8
)

func limits() []Finding {
	var files, processes unix.Rlimit
	if err := errors.Join(unix.Getrlimit(unix.RLIMIT_NOFILE, &files), unix.Getrlimit(unix.RLIMIT_NPROC, &processes)); err != nil {
		return []Finding{{Name: "limits", Level: Warn, Text: err.Error()}}
	}
	return []Finding{
		room("open files", files.Max, filesPerInstance, "raise the hard limit of open files (ulimit -Hn, LimitNOFILE= of systemd)"),
		room("processes", min(processes.Max, pidMax("/proc/sys/kernel/pid_max")), threadsPerInstance, "raise the limit of processes (ulimit -u, sysctl kernel.pid_max)"),
	}
}

// room says for about how many instances a limit is enough.
func room(name string, limit uint64, each uint64, fix string) Finding {
	f := Finding{Name: name, Level: OK}
	n := limit / each
	if n > 100_000 {
		f.Text = "enough for any run"
		return f
	}
	f.Text = fmt.Sprintf("%d: enough for about %d instances", limit, n)
	f.grade(int64(n), 20, 1000, fix)
	return f
}

func pidMax(path string) uint64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 32768 // the kernel's default
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 32768
	}
	return n
}
