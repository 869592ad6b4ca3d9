//go:build linux

package pods

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

const (
	// againWithin is how long a supervisor that has answered before may not be reached before it is taken for gone. It is
	// never started again in the same pod: who doesn't listen has ended.
	againWithin = 2 * time.Second
	firstPause  = 10 * time.Millisecond
	mostPause   = 500 * time.Millisecond
)

// follow keeps a connection with the supervisor until the pod is gone or nobody asks for it any more.
func (p *pod) follow() {
	defer p.abandon()
	for p.ctx.Err() == nil {
		l, why := p.connect()
		if why != "" {
			p.lose(why)
			return
		}
		if l == nil {
			return
		}
		// Not before it is listened to: what was asked for before is asked about.
		go p.attach(l)
		p.listen(l)
	}
}

// connect connects to the supervisor: it returns nil when the pod is let go of, and why it is gone when it is.
func (p *pod) connect() (_ *link, gone string) {
	begun, pause := time.Now(), firstPause
	for {
		l, err := connect(p.path)
		if err == nil {
			if why := p.meet(l); why != "" {
				l.close()
				l.letGo()
				return nil, why
			}
			return l, ""
		}
		if why := p.hopeless(err, time.Since(begun)); why != "" {
			return nil, why
		}
		p.mu.Lock()
		p.trouble = err
		p.mu.Unlock()
		select {
		case <-time.After(pause):
			pause = min(2*pause, mostPause)
		case <-p.ctx.Done():
			return nil, ""
		}
	}
}

// hopeless says why a pod that couldn't be reached is gone, empty while there is hope.
func (p *pod) hopeless(err error, after time.Duration) string {
	p.mu.Lock()
	known, bye := p.boot != "", p.bye
	ended := p.latest != nil && !p.latest.alive()
	p.mu.Unlock()
	_, folder := os.Lstat(p.path)
	vanished := errors.Is(folder, fs.ErrNotExist)
	switch {
	case known && vanished:
		return "its pod was deleted"
	case bye != "":
		return bye
	case ended || known && after > againWithin:
		return fmt.Sprintf("its pod's supervisor has ended, by eviction, for want of memory or because the pod was deleted (%v)", plain(err))
	case !known && after > firstWithin && vanished:
		return fmt.Sprintf("its pod has no folder on this node: %s is not there", p.path)
	case !known && after > firstWithin:
		return fmt.Sprintf("no supervisor answers in its pod after %v: %v", firstWithin, plain(err))
	}
	return ""
}

// plain leaves out the number that a path was called by.
func plain(err error) error {
	var number unix.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}

// meet takes in a new connection, unless another supervisor than before answers.
func (p *pod) meet(l *link) (gone string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.boot != "" && p.boot != l.hello.Boot {
		return "its pod's supervisor was started anew, and what ran before is gone"
	}
	if p.latest != nil {
		p.latest.letGo()
	}
	p.boot, p.link, p.latest, p.trouble = l.hello.Boot, l, l, nil
	p.changedLocked()
	return ""
}

// listen hears what the supervisor says, until the connection ends.
func (p *pod) listen(l *link) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-p.ctx.Done():
			_ = l.conn.Close()
		case <-stop:
		}
	}()
	err := l.listen(p.hear)
	p.mu.Lock()
	p.link, p.trouble = nil, err
	p.changedLocked()
	p.mu.Unlock()
	l.close()
	if p.ctx.Err() == nil {
		p.log.Info("the connection with a pod's supervisor has ended", "pod", p.name, "error", err)
	}
}

// hear takes in what the supervisor says of itself.
func (p *pod) hear(a *wire.Answer) {
	switch {
	case a.Ended != nil && a.Ended.Exit != nil:
		p.over(a.Ended)
	case a.Bye != nil:
		p.mu.Lock()
		p.bye = sentence(a.Bye.Why)
		p.mu.Unlock()
	}
}

// sentence keeps what comes out of a pod to one short line.
func sentence(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if s == "" {
		s = "its supervisor has ended without a reason"
	}
	return s[:min(len(s), 200)]
}

// attach asks about what was started over an earlier connection, since it may have ended meanwhile.
func (p *pod) attach(l *link) {
	p.mu.Lock()
	var asked []wire.Ident
	for which, s := range p.waiting {
		if s.sure {
			asked = append(asked, which)
		}
	}
	p.mu.Unlock()
	for _, which := range asked {
		a, err := l.call(p.ctx, wire.Request{Attach: &which})
		switch {
		case errors.Is(err, errBroken) || p.ctx.Err() != nil:
			return // the next one is asked
		case err != nil || a.State == nil || a.State.Ident != which:
			p.finish(which, keeper.Exit{At: time.Now(), Lost: "its pod's supervisor doesn't know of it any more"})
		case a.State.Exit != nil:
			p.over(a.State)
		}
	}
}

// lose tells everybody that the pod is gone.
func (p *pod) lose(why string) {
	p.mu.Lock()
	p.lost = why
	p.changedLocked()
	var all []wire.Ident
	for which := range p.waiting {
		all = append(all, which)
	}
	p.mu.Unlock()
	p.log.Warn("a pod is gone", "pod", p.name, "why", why)
	for _, which := range all {
		p.finish(which, keeper.Exit{At: time.Now(), Lost: why})
	}
	p.gone(p.slot, why)
}

// abandon lets go of the pod. Nobody is told of what ends there from now on.
func (p *pod) abandon() {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest != nil {
		p.latest.letGo()
		p.latest = nil
	}
}

// namespace opens the network namespace of the supervisor. A plan could have put another socket in its place, and had the
// number of its process become another's: so it is asked of the process itself whether it has the pod's folder where
// pods have it, and after all that it has to be still the same one. Never is it this process's own network.
func (p *pod) namespace() (*os.File, error) {
	l, lost, _ := p.now()
	if l == nil {
		return nil, fmt.Errorf("the supervisor of pod %s is away: %w", p.name, &keeper.Lost{Why: lost})
	}
	file, err := p.openNamespace(l)
	if err != nil {
		return nil, fmt.Errorf("finding the network of pod %s: %w", p.name, err)
	}
	if !l.alive() {
		_ = file.Close()
		return nil, fmt.Errorf("finding the network of pod %s: process %d, which listened there, has ended", p.name, l.pid)
	}
	return file, nil
}

func (p *pod) openNamespace(l *link) (*os.File, error) {
	folder := p.folder
	if folder == "-" {
		folder = p.path
	}
	inside, err := sameFolder(filepath.Join(l.process("root"), folder), p.path)
	if err != nil {
		return nil, err
	}
	if !inside {
		return nil, fmt.Errorf("process %d, which listens in its folder, sits in another pod", l.pid)
	}
	file, err := os.Open(l.process("ns/net"))
	if err != nil {
		return nil, err
	}
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	its, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if os.SameFile(own, its) {
		return nil, errors.Join(fmt.Errorf("process %d, which listens in its folder, is in the node's own network", l.pid), file.Close())
	}
	return file, nil
}
