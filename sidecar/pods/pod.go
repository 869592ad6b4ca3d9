//go:build linux

package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

// pod is one pod, as long as it is followed.
type pod struct {
	slot      int
	name, uid string
	path      string // its folder on this node
	folder    string // its folder as it sees it; "-": as path
	gone      func(slot int, why string)
	log       *slog.Logger
	ctx       context.Context
	cancel    context.CancelFunc

	mu sync.Mutex
	// link is the connection with its supervisor; nil while there is none.
	link *link
	// latest is the last link that there was: its process is held on to, to see whether it has ended.
	latest *link
	// changed is closed, and made anew, when link or lost have changed.
	changed chan struct{}
	boot    string // of the first supervisor that answered; empty before
	lost    string // why it is gone; empty while it may be there
	trouble error  // why it was not reached last
	bye     string // the supervisor's last word
	waiting map[wire.Ident]*start
}

// start is one that was asked for and has not ended, as far as is known.
type start struct {
	// sure is whether the supervisor has said that it knows of it.
	sure  bool
	ended []func(keeper.Exit)
}

func (p *Pods) newPod(slot int, who control.Pod) *pod {
	pod := &pod{
		slot: slot, name: who.Name, uid: who.UID, path: folderOf(p.options.KubeletRoot, who.UID), folder: p.options.Folder,
		gone: p.options.Gone, log: p.options.Log, changed: make(chan struct{}), waiting: make(map[wire.Ident]*start),
	}
	pod.ctx, pod.cancel = context.WithCancel(p.ctx)
	return pod
}

// now is how the pod stands: its link, or why it is gone, or neither and a channel that is closed when that changes.
func (p *pod) now() (*link, string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link, p.lost, p.changed
}

func (p *pod) changedLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// reach returns a connection with the supervisor, once there is one. A pod that is gone is a *keeper.Lost.
func (p *pod) reach(ctx context.Context) (*link, error) {
	for {
		l, lost, changed := p.now()
		switch {
		case lost != "":
			return nil, &keeper.Lost{Why: lost}
		case l != nil:
			return l, nil
		}
		select {
		case <-changed:
		case <-p.ctx.Done():
			return nil, errClosed
		case <-ctx.Done():
			p.mu.Lock()
			trouble := p.trouble
			p.mu.Unlock()
			return nil, fmt.Errorf("the supervisor of pod %s doesn't answer: %w", p.name, errors.Join(ctx.Err(), trouble))
		}
	}
}

// ready returns once the supervisor answers.
func (p *pod) ready(ctx context.Context) error {
	_, err := p.reach(ctx)
	return err
}

// call asks the supervisor, over as many connections as it takes: all that is asked converges.
func (p *pod) call(ctx context.Context, ask wire.Request) (wire.Answer, error) {
	for {
		l, err := p.reach(ctx)
		if err != nil {
			return wire.Answer{}, err
		}
		a, err := l.call(ctx, ask)
		if errors.Is(err, errBroken) {
			continue // p.follow makes another one, or finds it gone
		}
		if err != nil {
			return a, fmt.Errorf("the supervisor of pod %s: %w", p.name, err)
		}
		return a, nil
	}
}

// start starts a program, or finds the one that was started.
func (p *pod) start(program keeper.Program, ended func(keeper.Exit)) (keeper.Started, error) {
	which := wire.Ident{Key: program.Key, Starts: program.Starts}
	p.mu.Lock()
	s := p.waiting[which]
	if s == nil {
		s = &start{}
		p.waiting[which] = s
	}
	s.ended = append(s.ended, ended)
	mine := len(s.ended) - 1
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.ctx, actsWithin)
	defer cancel()
	a, err := p.call(ctx, wire.Request{Start: &wire.Start{
		Ident: which, Path: program.Path, Args: program.Args, Env: program.Env, Held: program.Held,
	}})
	if err == nil && (a.State == nil || a.State.Ident != which) {
		err = fmt.Errorf("the supervisor of pod %s answers with another start than was asked for", p.name)
	}
	p.mu.Lock()
	if err != nil {
		if s.ended[mine] != nil { // not told of an end: it never ran, as far as anybody knows
			s.ended[mine] = nil
			p.forgetLocked(which, s)
			p.mu.Unlock()
			return keeper.Started{}, err
		}
		p.mu.Unlock()
		return keeper.Started{}, nil
	}
	s.sure = true
	p.mu.Unlock()
	if a.State.Exit != nil {
		p.over(a.State)
	}
	return keeper.Started{At: time.Unix(0, a.State.At), Stdout: max(0, a.State.Stdout), Stderr: max(0, a.State.Stderr)}, nil
}

// forgetLocked forgets a start that nobody waits for.
func (p *pod) forgetLocked(which wire.Ident, s *start) {
	for _, f := range s.ended {
		if f != nil {
			return
		}
	}
	if p.waiting[which] == s {
		delete(p.waiting, which)
	}
}

// over tells whoever waits for a start that it has ended.
func (p *pod) over(state *wire.State) {
	p.finish(state.Ident, exitOf(state.Exit))
}

func (p *pod) finish(which wire.Ident, exit keeper.Exit) {
	p.mu.Lock()
	s := p.waiting[which]
	delete(p.waiting, which)
	var told []func(keeper.Exit)
	if s != nil {
		for i, f := range s.ended {
			if f != nil {
				told = append(told, f)
				s.ended[i] = nil
			}
		}
	}
	p.mu.Unlock()
	for _, f := range told {
		f(exit)
	}
}

// exitOf reads how a program ended. The figures come out of the pod: they are kept to what can be.
func exitOf(e *wire.Exit) keeper.Exit {
	cpu := e.CPU
	if !(cpu >= 0 && cpu < math.MaxInt32) {
		cpu = 0
	}
	status := unix.WaitStatus(e.Status & 0xffff)
	if !status.Exited() && !status.Signaled() {
		status = 0
	}
	return keeper.Exit{At: time.Unix(0, e.At), Status: status, PeakMemory: max(0, e.PeakMemory), CPU: cpu}
}

// signal sends a signal, where there is still somebody.
func (p *pod) signal(what wire.Signal) error {
	ctx, cancel := context.WithTimeout(p.ctx, actsWithin)
	defer cancel()
	_, err := p.call(ctx, wire.Request{Signal: &what})
	return exceptLost(err)
}

// clear ends every process in the pod.
func (p *pod) clear(ctx context.Context) (left int, err error) {
	within := actsWithin
	if until, limited := ctx.Deadline(); limited {
		within = max(0, time.Until(until))
	}
	// The supervisor says by itself when the time is over, and is given a moment for that.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within+time.Second)
	defer cancel()
	a, err := p.call(ctx, wire.Request{Clear: &wire.Clear{Within: within.Milliseconds()}})
	if err != nil {
		return 0, exceptLost(err)
	}
	if a.Cleared == nil {
		return 0, fmt.Errorf("the supervisor of pod %s doesn't say whether it is empty", p.name)
	}
	return max(0, a.Cleared.Left), nil
}

func exceptLost(err error) error {
	var lost *keeper.Lost
	if errors.As(err, &lost) {
		return nil
	}
	return err
}
