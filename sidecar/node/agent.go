package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

const (
	// DefaultKeep is how long the records of a run stay that nobody called about for the idle limit.
	DefaultKeep = 7 * 24 * time.Hour
	// sweepsEvery is how often the agent looks for records that have stayed long enough.
	sweepsEvery = time.Hour
	// shortestToken is how many bytes a token has at least.
	shortestToken = 16
)

// Options say what an agent serves, and with what.
type Options struct {
	// Name and Address are the node's. The address is the one that other nodes reach it at.
	Name    string
	Address netip.Addr
	// State is the folder for all that the agent and its sidecars have to remember.
	State string
	// Kubelet is the kubelet's root folder, under which the pods' volumes are.
	Kubelet string
	// Redis is the URL of the Redis that all nodes share.
	Redis string
	// Token is what callers have to know.
	Token string
	// Command starts a run's sidecar: it reads a Sidecar from stdin (see Attend) and serves until it is released.
	Command []string
	// Env is the whole environment of sidecars.
	Env []string
	// Try says what shaping does on this machine; nil: nothing is known. It is called once.
	Try func(context.Context) Shaping
	// Version is the program's.
	Version string
	// IdleLimit is how long a run stays that nobody calls about, and Keep how long its records then; 0: what sidecars
	// have by themselves, and DefaultKeep.
	IdleLimit, Keep time.Duration
	Log             *slog.Logger
}

// check refuses what an agent can't work with.
func (o *Options) check() error {
	switch {
	case o.Name == "":
		return errors.New("the node's name is missing")
	case !o.Address.IsValid():
		return errors.New("the node's address is missing: the one at which other nodes reach it")
	case !filepath.IsAbs(o.State):
		return fmt.Errorf("the state folder %q has to be an absolute path", o.State)
	case !filepath.IsAbs(o.Kubelet):
		return fmt.Errorf("the kubelet's root folder %q has to be an absolute path", o.Kubelet)
	case o.Redis == "":
		return errors.New("the address of Redis is missing: the instances of a run meet there, whatever node they are on")
	case len(o.Token) < shortestToken:
		return fmt.Errorf("the token has %d bytes: it takes %d and more to keep others out", len(o.Token), shortestToken)
	case len(o.Command) == 0:
		return errors.New("the command that starts a run's sidecar is missing")
	}
	return nil
}

// Agent serves one node.
type Agent struct {
	options Options
	home    runs.Home
	log     *slog.Logger
	started time.Time
	shaping func() Shaping // waits for what Try says
	// removals goes on by itself when a caller has given up.
	removals sync.WaitGroup

	mu   sync.Mutex
	runs map[string]*run
	ctx  context.Context // of all sidecars; set by Serve
}

// New makes an agent that serves nobody yet.
func New(o Options) (*Agent, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Keep == 0 {
		o.Keep = DefaultKeep
	}
	return &Agent{options: o, home: runs.Home(o.State), log: o.Log, started: time.Now(), runs: make(map[string]*run)}, nil
}

// Serve adopts the runs in the state folder, and answers calls until ctx ends. Sidecars end then as well, without
// releasing anything: the next agent's go on from there. It closes the listener.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.ctx = ctx
	a.try(ctx)
	if err := errors.Join(os.MkdirAll(filepath.Dir(string(a.home.Run("x"))), 0o700), a.adopt()); err != nil {
		return errors.Join(fmt.Errorf("taking over the runs in %s: %w", a.options.State, err), l.Close())
	}
	sweeping := a.sweepAlways(ctx)
	server := &http.Server{
		Handler: a.routes(), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = server.Close() // whoever waits asks the next agent
	})
	a.log.Info("the agent serves", "node", a.options.Name, "address", a.options.Address, "listens", l.Addr().String(), "runs", len(a.list()))
	err := server.Serve(l)
	if stop() {
		err = fmt.Errorf("serving the node: %w", err)
	} else {
		<-closed
		err = nil
	}
	a.mu.Lock()
	cancel()
	a.mu.Unlock()
	<-sweeping
	for _, r := range a.list() {
		<-r.ended
	}
	a.removals.Wait()
	return err
}

// try finds out what shaping does here, beside everything else: it takes its time.
func (a *Agent) try(ctx context.Context) {
	if a.options.Try == nil {
		a.shaping = func() Shaping { return Shaping{Fault: "nobody has tried"} }
		return
	}
	a.shaping = sync.OnceValue(func() Shaping { return a.options.Try(ctx) })
	go a.shaping()
}

// adopt starts the sidecars of the runs that were not released.
func (a *Agent) adopt() error {
	entries, err := os.ReadDir(filepath.Dir(string(a.home.Run("x"))))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() || runs.CheckID(entry.Name()) != nil {
			continue
		}
		asked, err := readAsked(a.home.Run(entry.Name()))
		if err != nil {
			a.log.Warn("a folder in the state folder is no run's", "folder", entry.Name(), "error", err)
			continue
		}
		if asked.Released.IsZero() {
			a.runs[entry.Name()] = a.start(entry.Name(), asked)
		}
		if asked.Removing {
			a.removals.Go(func() {
				if err := a.remove(a.ctx, entry.Name()); err != nil {
					a.log.Warn("a run could not be removed", "run", entry.Name(), "error", err)
				}
			})
		}
	}
	return nil
}

// list has the runs that have a sidecar, by their ids.
func (a *Agent) list() []*run {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*run
	for _, r := range a.runs {
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y *run) int { return strings.Compare(x.id, y.id) })
	return all
}

// find is the run that has a sidecar, nil when it has none.
func (a *Agent) find(id string) *run {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.runs[id]
}

// ensure has a sidecar for the run, which it starts when there is none.
func (a *Agent) ensure(id string, ask Ask) (*run, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.ending(); err != nil {
		return nil, err
	}
	if r := a.runs[id]; r != nil {
		switch {
		case r.info().State == StateRemoving:
			return nil, control.Refuse(http.StatusConflict, "run %s is just being removed from node %s", id, a.options.Name)
		case r.asked.Ask != ask:
			return nil, control.Refuse(http.StatusConflict, "run %s has a sidecar on node %s already, for the seed %d instead of %d", id, a.options.Name, r.asked.Seed, ask.Seed)
		}
		return r, nil
	}
	asked := asked{Ask: ask}
	if err := asked.write(a.home.Run(id)); err != nil {
		return nil, err
	}
	r := a.start(id, asked)
	a.runs[id] = r
	return r, nil
}

// ending refuses what the next agent has to do. The caller holds a.mu.
func (a *Agent) ending() error {
	if a.ctx.Err() != nil {
		return control.Refuse(http.StatusBadGateway, "the agent of node %s is just ending", a.options.Name)
	}
	return nil
}

// forget drops a run whose sidecar has ended for good.
func (a *Agent) forget(r *run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.runs[r.id] == r {
		delete(a.runs, r.id)
	}
}

// sweepAlways removes from time to time the records that have stayed long enough, until ctx ends.
func (a *Agent) sweepAlways(ctx context.Context) (done <-chan struct{}) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			a.sweep()
			select {
			case <-time.After(sweepsEvery):
			case <-ctx.Done():
				return
			}
		}
	}()
	return over
}

// sweep removes the records that have stayed long enough.
func (a *Agent) sweep() {
	entries, _ := os.ReadDir(filepath.Dir(string(a.home.Run("x")))) // adopt has read it
	for _, entry := range entries {
		folder := a.home.Run(entry.Name())
		asked, err := readAsked(folder)
		if err != nil || asked.Released.IsZero() || time.Since(asked.Released) < a.options.Keep {
			continue
		}
		a.mu.Lock()
		if a.runs[entry.Name()] == nil {
			err = dispose(folder)
		}
		a.mu.Unlock()
		if err != nil {
			a.log.Warn("the records of a run that is over could not be removed", "run", entry.Name(), "error", err)
		}
	}
}
