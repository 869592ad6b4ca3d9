package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Gather has nothing to bring here: instances write into the run's folder. It says how many have left something there.
func (g *Ground) Gather(ctx context.Context, in stage.Input, report func(stage.Progress)) error {
	folder := g.options.Home.Run(in.Run.ID)
	found, total := 0, 0
	for _, group := range in.Groups {
		total += group.Instances
		for index := range group.Instances {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if _, err := os.Stat(folder.Outputs(group.Name, index)); err == nil {
				found++
			}
		}
	}
	report(stage.Progress{Total: total, Succeeded: found, Note: "gathering outputs"})
	return nil
}

// Halt ends every process of the instances and keeps their places.
func (g *Ground) Halt(ctx context.Context, run stage.Run) error {
	client := control.Dial(control.Socket(g.options.Home.Run(run.ID)))
	defer client.Close()
	_, err := client.HaltAll(ctx)
	if errors.Is(err, control.ErrAway) {
		return nil // instances don't outlive their sidecar
	}
	return err
}

// HaltStage halts every attempt of one run stage.
func (g *Ground) HaltStage(ctx context.Context, in stage.Input) error {
	folder := g.options.Home.Run(in.Run.ID)
	state, err := readState(folder)
	if err != nil {
		return err
	}
	client := control.Dial(control.Socket(folder))
	defer client.Close()
	for ; in.Attempt > 0; in.Attempt-- {
		if _, opened := state.Opened[sidecars.Key(in)]; !opened {
			continue
		}
		_, err := client.Halt(ctx, sidecars.Key(in))
		var refused *control.Error
		switch {
		case errors.Is(err, control.ErrAway):
			return nil
		case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
			// It was never opened, or by a sidecar that is gone.
		case err != nil:
			return fmt.Errorf("halting %s: %w", sidecars.Key(in), err)
		}
	}
	return nil
}

// releasesWithin is how long a sidecar may take to end everything, before its process is killed: the kernel then ends
// everything for it.
const releasesWithin = 20 * time.Second

// Release gives everything back, whether there is a sidecar, none any more, or one that doesn't answer.
func (g *Ground) Release(ctx context.Context, run stage.Run) error {
	folder := g.options.Home.Run(run.ID)
	if _, err := os.Stat(string(folder)); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever placed, and no folder is to be made for that
	}
	s, unlock, err := g.open(ctx, run, stage.Input{Run: run})
	if err != nil {
		return err
	}
	defer unlock()
	defer s.close()
	if err := s.end(ctx); err != nil {
		return err
	}
	if err := removeAll(filepath.Join(string(folder), "temp")); err != nil {
		return fmt.Errorf("removing temporary files: %w", err)
	}
	if err := removeSocket(folder); err != nil {
		return fmt.Errorf("removing the sidecar's socket: %w", err)
	}
	return forget(folder)
}

// end ends the sidecar, and returns when its process is gone.
func (s *session) end(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, s.ground.patience)
	defer cancel()
	_, err := s.client.Release(asking)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.state.Sidecar.lives() {
		s.ground.options.Log.Warn("a sidecar had to be killed", "run", s.in.Run.ID, "pid", s.state.Sidecar.PID, "error", err)
		return s.state.Sidecar.kill(ctx)
	}
	if err != nil {
		return fmt.Errorf("ending the sidecar: %w", err)
	}
	return nil
}

// forget removes the state: nothing is placed any more.
func forget(folder runs.Folder) error {
	err := os.Remove(statePath(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeAll removes a tree, also where an instance has left folders that it made read-only.
func removeAll(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
