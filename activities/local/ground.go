// Package local is the ground that is this machine: instances are processes below one sidecar per run, which outlives
// the worker.
package local

import (
	"context"
	"errors"
	"log/slog"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// Options configures the ground.
type Options struct {
	// Home is the state folder: the run's folder below it holds the sidecar's socket, its log and the outputs.
	Home runs.Home
	// Redis is the URL of the Redis that sidecars use; empty: each has its own, in its process.
	Redis string
	// Command starts a sidecar; `--folder DIR` and, with Redis, `--redis URL` are appended. Empty: this program's
	// own executable (even when its file is gone, as under `go run`) with the argument `sidecar`.
	Command []string
	// Log gets what a person running the worker may want to know; nil: nothing.
	Log *slog.Logger
}

// Ground is this machine.
type Ground struct {
	options Options
}

var _ activities.Ground = (*Ground)(nil)

// New returns the ground.
func New(o Options) *Ground {
	if len(o.Command) == 0 {
		o.Command = []string{"/proc/self/exe", "sidecar"}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Ground{options: o}
}

var errBeingWritten = errors.New("being written")

func (g *Ground) Schedule(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	return stage.Result{}, errBeingWritten
}
func (g *Ground) Network(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	return stage.Result{}, errBeingWritten
}
func (g *Ground) Run(ctx context.Context, in stage.Input, report func(stage.Progress)) (stage.Result, error) {
	return stage.Result{}, errBeingWritten
}
func (g *Ground) Gather(ctx context.Context, in stage.Input, report func(stage.Progress)) error {
	return errBeingWritten
}
func (g *Ground) Halt(ctx context.Context, run stage.Run) error       { return errBeingWritten }
func (g *Ground) HaltStage(ctx context.Context, in stage.Input) error { return errBeingWritten }
func (g *Ground) Release(ctx context.Context, run stage.Run) error    { return errBeingWritten }
