package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/groundplan/groundplan/internal/door"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker/embedded"
)

var (
	// ErrRunning is wrapped by the error of Start and Resume when a run with that id is under way.
	ErrRunning = errors.New("the run is under way")
	// ErrExists is wrapped by the error of Start when a run with that id was there before.
	ErrExists = errors.New("the run id is taken")
	// ErrUnknown is wrapped when no run has that id.
	ErrUnknown = errors.New("no such run")
	// ErrNoServices is returned by Find when the embedded services of the home are not up.
	ErrNoServices = errors.New("the embedded services are not up")
	// ErrClosed is returned by what is asked of a closed session.
	ErrClosed = errors.New("the session is closed")
)

// Session is a connection to the services of a home. Its methods may be called from several goroutines.
type Session struct {
	config Config
	log    *slog.Logger
	where  *locator
	client client.Client
	// dev says that the services are kept up for their own sake: Temporal's web page belongs to them then.
	dev bool

	cancel context.CancelFunc
	watch  sync.WaitGroup

	mu     sync.Mutex
	owned  *owned
	closed bool
}

// Info says what a session is connected to.
type Info struct {
	// Temporal is the address of the frontend, Namespace the namespace used there.
	Temporal  string `json:"temporal"`
	Namespace string `json:"namespace"`
	// TemporalUI is the URL of Temporal's web page; empty when none is served. It lets in whoever has it.
	TemporalUI string `json:"temporalUI,omitempty"`
	// Home is the state folder.
	Home string `json:"home"`
	// PID and Started are those of the process that runs the embedded services; 0 for an external Temporal.
	PID     int       `json:"pid,omitempty"`
	Started time.Time `json:"started,omitzero"`
}

// pause is how often a session that is not the owner looks whether it has to become it.
const pause = 100 * time.Millisecond

// Open connects to the external Temporal, or to the embedded services that are up, or starts them. It returns once a
// worker for this home is up: its own or another process's. The context bounds only the opening.
func Open(ctx context.Context, config Config) (*Session, error) {
	return open(ctx, config, false)
}

// Find is Open for commands that only look: it starts neither services nor a worker, and returns ErrNoServices when the
// embedded ones are not up.
func Find(ctx context.Context, config Config) (*Session, error) {
	s, err := newSession(config)
	if err != nil {
		return nil, err
	}
	if s.external() {
		return s, nil
	}
	lock, err := tryLock(s.lockPath())
	switch {
	case err != nil:
		s.client.Close()
		return nil, err
	case lock != nil: // nobody runs them
		s.client.Close()
		return nil, errors.Join(ErrNoServices, lock.release())
	}
	if err := s.where.wait(ctx); err != nil {
		s.client.Close()
		return nil, fmt.Errorf("waiting for the services of %s, which are being started or stopped: %w", config.Home, err)
	}
	return s, nil
}

func open(ctx context.Context, config Config, dev bool) (*Session, error) {
	s, err := newSession(config)
	if err != nil {
		return nil, err
	}
	s.dev = dev
	if err := s.reach(ctx); err != nil {
		s.client.Close()
		return nil, err
	}
	for {
		owner, err := s.tryOwn(ctx)
		if err != nil {
			s.client.Close()
			return nil, err
		}
		if owner || s.where.ready() {
			break
		}
		if err := sleep(ctx, pause/10); err != nil {
			s.client.Close()
			return nil, fmt.Errorf("waiting for the services of %s, which another process is starting or stopping: %w", config.Home, err)
		}
	}
	watching, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.watch.Go(func() { s.takeOver(watching) })
	return s, nil
}

// reach makes sure that an external Temporal is there. The embedded one is found by its lock: that takes no round trip.
func (s *Session) reach(ctx context.Context) error {
	if !s.external() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	if _, err := s.client.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return fmt.Errorf("reaching Temporal at %s: %w", s.config.Temporal, err)
	}
	return nil
}

func newSession(config Config) (*Session, error) {
	if config.Namespace == "" {
		config.Namespace = DefaultNamespace
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(string(config.Home), 0o700); err != nil {
		return nil, fmt.Errorf("making the home: %w", err)
	}
	s := &Session{config: config, log: config.Log, cancel: func() {}}
	where, err := newLocator(config)
	if err != nil {
		return nil, err
	}
	s.where = where
	s.client, err = dial(config, where)
	if err != nil {
		return nil, fmt.Errorf("making the Temporal client: %w", err)
	}
	return s, nil
}

// tryOwn makes this session the owner when nobody else is.
func (s *Session) tryOwn(ctx context.Context) (bool, error) {
	lock, err := tryLock(s.lockPath())
	if err != nil || lock == nil {
		return false, err
	}
	o, err := own(ctx, s, lock)
	if err != nil {
		return false, errors.Join(err, lock.release())
	}
	s.mu.Lock()
	if !s.closed {
		s.owned = o
		s.mu.Unlock()
		return true, nil
	}
	s.mu.Unlock()
	return false, errors.Join(ErrClosed, o.stop())
}

// takeOver waits until the owner is gone and becomes it.
func (s *Session) takeOver(ctx context.Context) {
	for wait := pause; sleep(ctx, wait) == nil; {
		if s.Owner() {
			return
		}
		owner, err := s.tryOwn(ctx)
		switch {
		case owner:
			s.log.Info("took over the worker and services", "home", string(s.config.Home))
			return
		case err != nil:
			s.log.Error("could not take over the worker and services", "home", string(s.config.Home), "error", err)
			wait = min(2*wait, 5*time.Second)
		}
	}
}

// Close ends the session. An owner stops its worker (activities under way are handed to the next one, instances go on)
// and the embedded services; a session that is still open somewhere takes over.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.watch.Wait()
	s.mu.Lock()
	o := s.owned
	s.owned = nil
	s.mu.Unlock()
	var err error
	if o != nil {
		err = o.stop()
	}
	s.client.Close()
	return err
}

// Embedded says whether the services are the embedded ones of the home.
func (s *Session) Embedded() bool { return !s.external() }

// Owner says whether this session runs the worker and, when they are embedded, the services.
func (s *Session) Owner() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned != nil
}

// Info says what the session is connected to.
func (s *Session) Info() Info {
	info := Info{Temporal: s.config.Temporal, Namespace: s.config.Namespace, Home: string(s.config.Home)}
	if s.external() {
		return info
	}
	if up, err := readServices(s.config.Home); err == nil {
		info.Temporal, info.TemporalUI, info.PID, info.Started = up.Temporal, up.TemporalUI, up.PID, up.Started
	}
	return info
}

// Home is the state folder.
func (s *Session) Home() runs.Home { return s.config.Home }

// PageKey is what the live page of this home asks its visitors for; empty with an external Temporal. It stays the same
// over restarts, and gives nothing away of what the services ask for.
func (s *Session) PageKey() string {
	if s.external() {
		return ""
	}
	return door.Key("live page", s.where.token)
}

func (s *Session) external() bool { return s.config.Temporal != "" }

// lockPath is the file whose lock makes the owner. The embedded services' database is only opened under it; an external
// Temporal has one worker per home, so it has a lock of its own.
func (s *Session) lockPath() string {
	if s.external() {
		return filepath.Join(string(s.config.Home), "worker-"+short(s.config.Temporal+"/"+s.config.Namespace)+".lock")
	}
	return filepath.Join(string(s.config.Home), "services.lock")
}

// databaseFolder is where the embedded Temporal keeps its files.
func (s *Session) databaseFolder() string { return string(s.config.Home) }

// ServerLog is the file that the embedded Temporal writes into.
func (s *Session) ServerLog() string {
	return filepath.Join(s.databaseFolder(), embedded.LogName)
}

// sleep waits, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
