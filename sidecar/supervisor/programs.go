//go:build linux

package supervisor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

// errUnknown says that a start isn't known here.
var errUnknown = errors.New("no such start is known to this supervisor")

// programs are the starts that there were, as long as the pod lives.
type programs struct {
	folder  string
	environ []string // the image's
	reaper  *reaper.Reaper
	ended   func(wire.State) // tells of an end; returns at once

	// acting is held by whoever starts or clears.
	acting sync.Mutex

	mu    sync.Mutex
	known map[wire.Ident]*wire.State
	// running is the one start that runs, and pid its number; nil when none does.
	running *wire.State
	pid     int
}

// start starts a program, or says what is known of that start.
func (p *programs) start(ask *wire.Start) (wire.State, error) {
	p.acting.Lock()
	defer p.acting.Unlock()
	state, err := p.state(ask.Ident)
	if err == nil {
		return state, nil
	}
	p.mu.Lock()
	running := p.running
	p.mu.Unlock()
	if running != nil {
		return wire.State{}, fmt.Errorf("start %d of stage %s still runs in this pod", running.Starts, running.Key)
	}
	if err := p.launch(ask); err != nil {
		return wire.State{}, err
	}
	if ask.Held {
		err = p.signal(unix.SIGSTOP)
	} else {
		err = nil
	}
	state, _ = p.state(ask.Ident)
	return state, err
}

// state is what is known of a start.
func (p *programs) state(which wire.Ident) (wire.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state, known := p.known[which]
	if !known {
		return wire.State{}, errUnknown
	}
	return *state, nil
}

// launch starts the process with its output going straight into files.
func (p *programs) launch(ask *wire.Start) error {
	state := &wire.State{Ident: ask.Ident}
	env := overlay(p.environ, ask.Env)
	path, err := lookUp(ask.Path, value(env, "PATH"))
	if err != nil {
		return err
	}
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer stdin.Close()
	outputs, err := os.OpenRoot(filepath.Join(p.folder, wire.Outputs))
	if err != nil {
		return fmt.Errorf("opening its outputs: %w", err)
	}
	defer outputs.Close()
	stdout, err := openLog(outputs, wire.Stdout, "run.out", &state.Stdout)
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := openLog(outputs, wire.Stderr, "run.err", &state.Stderr)
	if err != nil {
		return err
	}
	defer stderr.Close()
	attributes := &syscall.ProcAttr{
		Env: env, Files: []uintptr{stdin.Fd(), stdout.Fd(), stderr.Fd()}, Sys: &syscall.SysProcAttr{Setpgid: true},
	}
	_, err = p.reaper.Start(func() (int, error) {
		state.At = time.Now().UnixNano()
		pid, err := syscall.ForkExec(path, ask.Args, attributes)
		if err != nil {
			return 0, fmt.Errorf("starting %s: %w", path, err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.known[ask.Ident], p.running, p.pid = state, state, pid
		return pid, nil
	}, func(exit reaper.Exit) { p.reaped(state, exit) })
	return err
}

// reaped notes how a program has ended.
func (p *programs) reaped(state *wire.State, exit reaper.Exit) {
	p.mu.Lock()
	state.Exit = &wire.Exit{
		At: time.Now().UnixNano(), Status: uint32(exit.Status), PeakMemory: exit.Usage.Maxrss << 10,
		CPU: seconds(exit.Usage.Utime) + seconds(exit.Usage.Stime),
	}
	p.running, p.pid = nil, 0
	told := *state
	p.mu.Unlock()
	p.ended(told)
}

func seconds(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// signal sends a signal to the process group of what runs.
func (p *programs) signal(what unix.Signal) error {
	p.mu.Lock()
	pid := p.pid
	p.mu.Unlock()
	if pid == 0 {
		return nil
	}
	return p.reaper.Signal(pid, what)
}

// clear kills everything but this process, and returns how many processes are left when that takes too long.
func (p *programs) clear(within time.Duration) (left int, err error) {
	p.acting.Lock()
	defer p.acting.Unlock()
	until := time.Now().Add(within)
	pause := time.Millisecond
	for {
		left, err = signalOthers(unix.SIGKILL)
		if left == 0 || err != nil || time.Now().After(until) {
			return left, err
		}
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// overlay lays the variables of over above those of under, but for the PATH, which the image knows best. It leaves out
// what the cluster puts into every container: an instance has no way there.
func overlay(under, over []string) []string {
	const path = "PATH"
	known := make(map[string]bool, len(over))
	env := make([]string, 0, len(under)+len(over))
	for _, variable := range over {
		name, _, _ := strings.Cut(variable, "=")
		if name == path && value(under, path) != "" {
			continue
		}
		known[name] = true
		env = append(env, variable)
	}
	for _, variable := range under {
		name, _, _ := strings.Cut(variable, "=")
		if !known[name] && !strings.HasPrefix(name, "KUBERNETES_") {
			env = append(env, variable)
		}
	}
	return env
}

func value(env []string, name string) string {
	for _, variable := range env {
		if v, ok := strings.CutPrefix(variable, name+"="); ok {
			return v
		}
	}
	return ""
}

// lookUp finds a program that has no slash in its name in the folders of a PATH.
func lookUp(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && unix.Access(file, unix.X_OK) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("there is no program %q in the image's PATH (%s)", name, path)
}

// openLog opens a log for appending and notes where this start's part begins. A copy under the plan's own name that an
// earlier stage got by a link is taken away, or the plan would write every line twice into one file.
func openLog(outputs *os.Root, name, copied string, begins *int64) (*os.File, error) {
	file, err := outputs.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening its %s: %w", name, err)
	}
	*begins, err = file.Seek(0, io.SeekEnd)
	if err == nil && *begins > 0 && sameFile(outputs, name, copied) {
		err = outputs.Remove(copied)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening its %s: %w", name, err), file.Close())
	}
	return file, nil
}

func sameFile(outputs *os.Root, a, b string) bool {
	one, err := outputs.Lstat(a)
	if err != nil {
		return false
	}
	other, err := outputs.Lstat(b)
	return err == nil && os.SameFile(one, other)
}
