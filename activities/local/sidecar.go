package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/launch"
)

const (
	// answersWithin is how long a sidecar that lives may take for a question that costs it nothing.
	answersWithin = 10 * time.Second
	// startsWithin is how long a sidecar may take from its start to its first answer.
	startsWithin = 20 * time.Second
	// otherWithin is how long to wait, when the sidecar that was started gave way to another, for that one to answer.
	otherWithin = 2 * time.Second
)

// startFault is why a sidecar can't be started here.
type startFault struct{ reason string }

func (f *startFault) Error() string { return f.reason }

// session is one activity's work with a run's sidecar.
type session struct {
	ground *Ground
	folder runs.Folder
	in     stage.Input
	client *control.Client
	state  state
	// proved is what was found of the data network that this session has set.
	proved string
}

// open begins a session and takes the run's lock. The caller closes the session, and unlocks before it waits for
// anything that takes long.
func (g *Ground) open(ctx context.Context, run stage.Run, in stage.Input) (s *session, unlock func(), err error) {
	if err := runs.CheckID(run.ID); err != nil {
		return nil, nil, err
	}
	folder := g.options.Home.Run(run.ID)
	unlock, err = sidecars.Lock(ctx, folder)
	if err != nil {
		return nil, nil, err
	}
	s = &session{ground: g, folder: folder, in: in, client: control.Dial(control.Socket(folder))}
	if s.state, err = readState(folder); err != nil {
		unlock()
		return nil, nil, err
	}
	return s, unlock, nil
}

func (s *session) close() { s.client.Close() }

// status asks the sidecar how it stands; errors.Is(err, control.ErrAway) when there is none.
func (s *session) status(ctx context.Context) (control.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answersWithin, fmt.Errorf("the sidecar has not answered for %v", answersWithin))
	defer cancel()
	status, err := s.client.Status(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return status, err
}

// ensure returns the status of the run's sidecar, which it starts when there is none. The caller holds the lock.
func (s *session) ensure(ctx context.Context) (control.Status, error) {
	status, err := s.status(ctx)
	if errors.Is(err, control.ErrAway) {
		if s.state.Sidecar != nil {
			s.ground.note(s.folder, "sidecar-lost", s.in.Stage.Name, "the sidecar of this run is gone; another one is started")
		}
		status, err = s.start(ctx)
	}
	if err != nil {
		return status, err
	}
	if s.state.Sidecar != nil && s.state.Sidecar.Since.Equal(status.Started) {
		return status, nil
	}
	s.state.Sidecar = &process{PID: status.PID, Since: status.Started, Ticks: startTicks(status.PID)}
	return status, s.state.write(s.folder)
}

// start starts a sidecar and waits for its first answer. It may be another's: when a worker was killed right after it
// had started one, two may come up; one of them serves, and the other ends.
func (s *session) start(ctx context.Context) (control.Status, error) {
	offset, process, err := s.launch()
	if err != nil {
		return control.Status{}, err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = process.Wait() // what it has to say is in its log
		close(ended)
	}()
	limit := time.After(startsWithin)
	for over := ended; ; {
		status, err := s.status(ctx)
		if !errors.Is(err, control.ErrAway) {
			return status, err
		}
		select {
		case <-ctx.Done():
			return control.Status{}, context.Cause(ctx)
		case <-over:
			over, limit = nil, time.After(otherWithin)
		case <-limit:
			return control.Status{}, &startFault{s.whyNot(offset, ended)}
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// launch starts the process, and says where in its log its first line will be.
func (s *session) launch() (int64, *os.Process, error) {
	log, err := os.OpenFile(s.folder.SidecarLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, nil, fmt.Errorf("opening the sidecar's log: %w", err)
	}
	defer log.Close()
	offset, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, nil, fmt.Errorf("opening the sidecar's log: %w", err)
	}
	options := s.ground.options
	process, err := launch.Start(launch.Options{
		Executable: options.Command[0],
		Args:       append(slices.Clone(options.Command[1:]), "--folder", string(s.folder), "--seed", strconv.FormatUint(s.in.Seed, 10)),
		Env:        append(environment(os.Environ()), options.Env...),
		Input:      options.Redis,
		Dir:        string(s.folder),
		Log:        log,
	})
	if err != nil {
		return 0, nil, &startFault{fmt.Sprintf("no sidecar can be started on this machine: %v", err)}
	}
	s.ground.options.Log.Info("a sidecar was started", "run", s.in.Run.ID, "pid", process.Pid)
	return offset, process, nil
}

// whyNot is a sentence about a sidecar that did not come up.
func (s *session) whyNot(offset int64, ended <-chan struct{}) string {
	select {
	case <-ended:
	default:
		return fmt.Sprintf("the sidecar of this run was started but has not answered for %v; its log is %s", startsWithin, s.folder.SidecarLog())
	}
	if err := launch.Supported(); err != nil {
		return fmt.Sprintf("instances can't be placed on this machine: %v", err)
	}
	said := s.folder.SidecarSaid(offset)
	if said == "" {
		said = "it said nothing"
	}
	return "the sidecar of this run ended as soon as it was started: " + said
}

// environment keeps what a sidecar needs. Instances can read their sidecar's environment, so that nothing else of the
// worker's may be in it.
func environment(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "PATH", "HOME", "TMPDIR", "LANG", "TZ", "USER", "LOGNAME", "GOTRACEBACK", "GROUNDPLAN_SHAPER":
			return false
		}
		return !strings.HasPrefix(name, "LC_")
	})
}

// removeSocket removes what a sidecar that was killed left of its socket.
func removeSocket(folder runs.Folder) error {
	socket := control.Socket(folder)
	err := os.Remove(socket)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	_ = os.Remove(filepath.Dir(socket)) // not empty, or not there: both are fine
	return err
}
