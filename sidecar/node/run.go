package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

const (
	// startsWithin is how long a sidecar may take from its start to its first answer, as whoever asks for it waits.
	startsWithin = 20 * time.Second
	// leavesWithin is how long a sidecar may take to end without releasing anything.
	leavesWithin = 5 * time.Second
	// releasesWithin is how long a sidecar may take to release its run, and comesWithin how long to wait for one that has
	// just died to come back and do it.
	releasesWithin, comesWithin = 30 * time.Second, 5 * time.Second
	// A sidecar that ends is started again after shortestPause, twice that the next time, and so on up to longestPause;
	// one that has lived for a while begins anew.
	shortestPause, longestPause = 100 * time.Millisecond, 3 * time.Second
	livedLong                   = time.Minute
	// hopeless is how many sidecars in a row that ended before they answered are enough of an answer themselves.
	hopeless = 4
)

// run is a run that has a sidecar on this node, and the goroutine that keeps one there.
type run struct {
	id     string
	folder runs.Folder
	asked  asked
	agent  *Agent
	client *control.Client
	proxy  *httputil.ReverseProxy
	cancel context.CancelFunc
	// ended is closed when there is no sidecar and none will be started.
	ended chan struct{}

	mu       sync.Mutex
	state    string
	since    time.Time
	restarts int
	failures int  // since the last one that answered
	answered bool // the one that there is
	pid      int
	fault    string
	removing bool
}

// start has a sidecar for the run from here on.
func (a *Agent) start(id string, asked asked) *run {
	folder := a.home.Run(id)
	ctx, cancel := context.WithCancel(a.ctx)
	r := &run{
		id: id, folder: folder, asked: asked, agent: a, client: control.Dial(control.Socket(folder)),
		proxy: a.newProxy(control.Socket(folder)), cancel: cancel,
		ended: make(chan struct{}), state: StateStarting, since: time.Now(),
	}
	go r.keep(ctx)
	return r
}

// keep starts the sidecar again and again until it has released the run, or ctx ends.
func (r *run) keep(ctx context.Context) {
	defer close(r.ended)
	defer r.client.Close()
	defer r.proxy.Transport.(*http.Transport).CloseIdleConnections()
	defer r.cancel()
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		began := time.Now()
		answered, err := r.live(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			r.released()
			return
		}
		if answered {
			r.note(err)
		}
		r.agent.log.Warn("a sidecar has ended", "run", r.id, "error", err)
		if time.Since(began) > livedLong {
			pause = shortestPause
		}
		r.fallen(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// live starts the sidecar and waits for its end; nil: it has released the run. answered says whether it ever served.
func (r *run) live(ctx context.Context) (answered bool, err error) {
	log, err := os.OpenFile(r.folder.SidecarLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return false, fmt.Errorf("opening the sidecar's log: %w", err)
	}
	defer log.Close()
	offset, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return false, fmt.Errorf("opening the sidecar's log: %w", err)
	}
	cmd := exec.CommandContext(ctx, r.agent.options.Command[0], r.agent.options.Command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = string(r.folder), r.agent.options.Env, log, log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return false, fmt.Errorf("starting a sidecar: %w", err)
	}
	// It ends by itself once stdin does, which is also what happens to it when the agent is killed.
	cmd.Cancel, cmd.WaitDelay = stdin.Close, leavesWithin
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("starting a sidecar: %w", err)
	}
	serving, over := context.WithCancel(ctx)
	defer over()
	up := make(chan struct{})
	r.become(func() { r.state, r.pid, r.answered = StateStarting, cmd.Process.Pid, false })
	go func() { defer close(up); r.awaitAnswer(serving) }()
	told := json.NewEncoder(stdin).Encode(r.sidecar())
	err = errors.Join(cmd.Wait(), told)
	over()
	if err != nil {
		err = fmt.Errorf("%w%s", err, quoted(r.folder.SidecarSaid(offset)))
	}
	<-up
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answered, err
}

// sidecar is what the run's sidecar is told.
func (r *run) sidecar() Sidecar {
	o := r.agent.options
	return Sidecar{
		Folder: string(r.folder), Seed: r.asked.Seed, Redis: o.Redis, Node: o.Name, Address: o.Address, Kubelet: o.Kubelet,
		IdleLimit: o.IdleLimit,
	}
}

// awaitAnswer waits for the first answer, and notes it.
func (r *run) awaitAnswer(ctx context.Context) {
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if _, err := r.client.Status(ctx); err == nil {
			r.up()
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// up notes that the sidecar has answered, whoever was the first to hear it.
func (r *run) up() {
	r.mu.Lock()
	known := r.answered
	r.mu.Unlock()
	if !known {
		r.become(func() { r.state, r.failures, r.answered = StateRunning, 0, true })
	}
}

// become changes how the sidecar stands. What is being removed stays so.
func (r *run) become(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	r.since = time.Now()
	if r.removing {
		r.state = StateRemoving
	}
}

// fallen notes that the sidecar has ended.
func (r *run) fallen(why error) {
	r.become(func() {
		r.state, r.pid, r.fault = StateWaiting, 0, why.Error()
		r.restarts++
		r.failures++
	})
}

func (r *run) isHopeless() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures >= hopeless
}

// note writes into the run's events that its sidecar has ended.
func (r *run) note(why error) {
	event := runs.Event{Time: time.Now(), Kind: "sidecar-lost", Text: fmt.Sprintf("the sidecar on node %s has ended (%v); another one is started and goes on", r.agent.options.Name, why)}
	if err := r.folder.AppendEvent(event); err != nil {
		r.agent.log.Warn("an event could not be written", "event", event.Text, "error", err)
	}
}

// released keeps in mind that the sidecar has released the run, unless that was for its removal.
func (r *run) released() {
	r.mu.Lock()
	removing := r.removing
	r.mu.Unlock()
	if removing {
		return
	}
	over := r.asked
	over.Released = time.Now()
	if err := over.write(r.folder); err != nil {
		r.agent.log.Error("a released run could not be marked as such", "run", r.id, "error", err)
	}
	r.agent.forget(r)
	r.agent.log.Info("a run was released by its sidecar", "run", r.id)
}

// info says how the sidecar stands.
func (r *run) info() Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Run{ID: r.id, State: r.state, Since: r.since, Restarts: r.restarts, PID: r.pid, Memory: residentOf(r.pid), Fault: r.fault}
}

// answer waits for the sidecar's answer, over its restarts.
func (r *run) answer(ctx context.Context, within time.Duration) (control.Status, error) {
	limit := time.After(within)
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		status, err := r.client.Status(ctx)
		if !errors.Is(err, control.ErrAway) {
			if err == nil {
				r.up()
			}
			return status, err
		}
		if r.isHopeless() {
			return status, control.Refuse(http.StatusServiceUnavailable, "%s", r.whyNot())
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return status, ctx.Err()
		case <-r.ended:
			return status, control.Refuse(http.StatusBadGateway, "the sidecar of run %s on node %s has just released it", r.id, r.agent.options.Name)
		case <-limit:
			return status, control.Refuse(http.StatusServiceUnavailable, "%s", r.whyNot())
		}
	}
}

// whyNot is a sentence about a sidecar that doesn't answer.
func (r *run) whyNot() string {
	info := r.info()
	if info.Fault == "" {
		return fmt.Sprintf("the sidecar of run %s on node %s was started but does not answer; its log is %s there", r.id, r.agent.options.Name, r.folder.SidecarLog())
	}
	return fmt.Sprintf("the sidecar of run %s on node %s does not come up (%d tries); it ended with: %s", r.id, r.agent.options.Name, info.Restarts, info.Fault)
}

// remove releases a run on this node and forgets all of it, also while its sidecar is dead.
func (a *Agent) remove(ctx context.Context, id string) error {
	folder := a.home.Run(id)
	r := a.find(id)
	if r == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.runs[id] != nil {
			return control.Refuse(http.StatusConflict, "run %s has just been asked for anew on node %s", id, a.options.Name)
		}
		return dispose(folder)
	}
	r.become(func() { r.removing = true })
	wanted := r.asked
	wanted.Removing = true
	if err := wanted.write(folder); err != nil {
		return err
	}
	if err := r.release(ctx); err != nil {
		a.log.Warn("a sidecar didn't release its run: its namespaces are taken away", "run", id, "error", err)
	}
	if ctx.Err() != nil {
		return ctx.Err() // the agent ends; the next one goes on
	}
	r.cancel()
	<-r.ended
	defer a.forget(r)
	return dispose(folder)
}

// release has the sidecar release the run, and returns when it has ended.
func (r *run) release(ctx context.Context) error {
	if _, err := r.answer(ctx, comesWithin); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, releasesWithin)
	defer cancel()
	_, err := r.client.Release(ctx)
	return err
}

func quoted(line string) string {
	if line == "" {
		return ""
	}
	return ": " + line
}

// residentOf is a process's resident set in bytes, 0 where it can't be known.
func residentOf(pid int) int64 {
	if pid == 0 {
		return 0
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64) // 0 is what is not known
	return pages * int64(os.Getpagesize())
}
