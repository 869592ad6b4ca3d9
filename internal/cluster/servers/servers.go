//go:build linux

// Package servers starts processes that outlive the program that started them, keeps a record of each, and finds them
// again: by process id and the time they were started at, so that never a stranger is taken for one of them.
package servers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/internal/cluster/layout"
)

// Folder is the folder of the records.
type Folder struct {
	// Records and Logs are the folders of records and of what the servers say.
	Records, Logs string
	// Wrap puts a server's command into what it is started by, in the machine that it belongs to.
	Wrap func(layout.Server) []string
}

// record is what is kept of a server.
type record struct {
	layout.Server
	Process int `json:"process"`
	// Started is the moment of its start, in clock ticks since that of the machine.
	Started uint64 `json:"started"`
	// Boot names the time between two starts of the machine.
	Boot string `json:"boot"`
}

// Start starts a server unless it runs already.
func (f Folder) Start(s layout.Server) error {
	if _, alive := f.Alive(s.Name); alive {
		return nil
	}
	log, err := os.OpenFile(f.Log(s.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	defer log.Close()
	command := f.Wrap(s)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	// Nothing of the caller's: a proxy that is meant for the outside would be asked for the inside too.
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "GOGC=200"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	go func() { _ = cmd.Wait() }() // it is asked for by its record
	started, err := startTime(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("starting %s: it ended at once\n%w", s.Name, f.tail(s.Name))
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	return f.write(record{Server: s, Process: cmd.Process.Pid, Started: started, Boot: boot})
}

// Known is how the server of that name was last started.
func (f Folder) Known(name string) (layout.Server, error) {
	r, err := f.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		known, _ := f.Names()
		return layout.Server{}, fmt.Errorf("this cluster has no server %s: it has %s", name, strings.Join(known, ", "))
	}
	return r.Server, err
}

// Names are the names of all servers that were ever started.
func (f Folder) Names() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(f.Records, "*.json"))
	names := make([]string, len(files))
	for i, file := range files {
		names[i] = strings.TrimSuffix(filepath.Base(file), ".json")
	}
	return names, err
}

// Alive says whether a server runs, and its process id.
func (f Folder) Alive(name string) (process int, alive bool) {
	r, err := f.read(name)
	if err != nil {
		return 0, false
	}
	boot, err := bootID()
	if err != nil || boot != r.Boot {
		return 0, false
	}
	started, err := startTime(r.Process)
	return r.Process, err == nil && started == r.Started
}

// Kill ends a server at once, as a crash would, and waits until it is gone. It is no error when it is gone already.
func (f Folder) Kill(name string) error {
	process, alive := f.Alive(name)
	if !alive {
		return nil
	}
	if err := syscall.Kill(process, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing %s: %w", name, err)
	}
	for range 400 {
		if _, alive := f.Alive(name); !alive {
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("killing %s: process %d is still there after 10 s", name, process)
}

// Dead returns an error that says, with the last lines of its log, that a server has ended; nil while it runs.
func (f Folder) Dead(name string) error {
	if _, alive := f.Alive(name); alive {
		return nil
	}
	return fmt.Errorf("%s has ended\n%w", name, f.tail(name))
}

// Log is the file that a server writes to.
func (f Folder) Log(name string) string { return filepath.Join(f.Logs, name+".log") }

// tail quotes the end of a server's log.
func (f Folder) tail(name string) error {
	const lines, bytesAtMost = 12, 4096
	file, err := os.Open(f.Log(name))
	if err != nil {
		return err
	}
	defer file.Close()
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		_, _ = file.Seek(max(0, size-bytesAtMost), io.SeekStart)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	last := all[max(0, len(all)-lines):]
	return fmt.Errorf("the end of %s:\n\t%s", f.Log(name), bytes.Join(last, []byte("\n\t")))
}

// Explain adds the end of a server's log to an error.
func (f Folder) Explain(name string, err error) error {
	return fmt.Errorf("%w\n%w", err, f.tail(name))
}

func (f Folder) file(name string) string { return filepath.Join(f.Records, name+".json") }

func (f Folder) read(name string) (record, error) {
	var r record
	text, err := os.ReadFile(f.file(name))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

func (f Folder) write(r record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	partial := f.file(r.Name) + ".partial"
	if err := os.WriteFile(partial, text, 0o600); err != nil {
		return fmt.Errorf("recording that %s was started: %w", r.Name, err)
	}
	return os.Rename(partial, f.file(r.Name))
}

// startTime is when a process was started; an error when there is none, or only its exit status is left.
func startTime(process int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	if err != nil {
		return 0, err
	}
	return parseStartTime(string(stat))
}

func parseStartTime(stat string) (uint64, error) {
	// The name of the program, in brackets, may hold anything.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("a process's state has %d fields: %q", len(fields), stat)
	}
	if state := fields[0]; state == "Z" || state == "X" {
		return 0, errors.New("it has ended")
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}
