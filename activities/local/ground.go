// Package local is the ground that is this machine: instances are processes below one sidecar per run, which outlives
// the worker. What was asked of a sidecar is written to the run's folder before it is asked, so that whoever comes next
// knows what may be there.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Options configures the ground.
type Options struct {
	// Home is the state folder: the run's folder below it holds the sidecar's socket, its log and the outputs.
	Home runs.Home
	// Redis is the URL of the Redis that sidecars use; empty: each has its own, in its process.
	Redis string
	// Command starts a sidecar; `--folder DIR` is appended, and the URL of Redis is what it reads from stdin. Empty: this
	// program's own executable (even when its file is gone, as under `go run`) with the argument `sidecar`.
	Command []string
	// Env is what a sidecar gets beside PATH, HOME, TMPDIR and the locale.
	Env []string
	// Log gets what a person running the worker may want to know; nil: nothing.
	Log *slog.Logger
}

// Ground is this machine. It holds no state of its own: all of it is in the runs' folders and sidecars.
type Ground struct {
	options  Options
	machine  func() (machine, error) // what the machine has left
	patience time.Duration           // how long a sidecar may take to release everything
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
	return &Ground{options: o, machine: thisMachine, patience: releasesWithin}
}

// Pack takes an artifact as it is: a file is on this machine already. That an image isn't for here is said when it is
// to be placed.
func (g *Ground) Pack(_ context.Context, artifact stage.Artifact) (stage.Artifact, string, error) {
	return artifact, "", nil
}

// placement is what the sidecar is asked to hold for groups; the string is why it can't be asked.
func placement(in stage.Input, groups []string) (control.Placement, string) {
	return sidecars.Placement(in, groups, program)
}

// program is what a group runs; the string is why it can't be run here.
func program(group pipelines.Group, artifact stage.Artifact) (control.Group, string) {
	if artifact.Path == "" {
		return control.Group{Group: group}, fmt.Sprintf("group %s: the artifact %s is an image, and instances on this machine are plain processes", group.Name, group.Artifact)
	}
	asked := control.Group{Group: group, Program: artifact.Path, Arguments: artifact.Args}
	if _, err := os.Stat(artifact.Path); err != nil {
		return asked, fmt.Sprintf("group %s: the artifact %s was built but can't be read any more (%v): run its build stage again", group.Name, group.Artifact, err)
	}
	return asked, ""
}

// known turns an error into a result where it says something that is known: the sidecar refused, or it is gone.
// Whatever else went wrong remains an error.
func (g *Ground) known(ctx context.Context, doing string, err error) (stage.Result, error) {
	var refused *control.Error
	var start *startFault
	switch {
	case ctx.Err() != nil:
		return stage.Result{}, context.Cause(ctx)
	case errors.As(err, &start):
		return sidecars.Invalid("%s", start.reason), nil
	case errors.Is(err, control.ErrAway):
		return sidecars.Invalid("the sidecar of this run died while %s", doing), nil
	case errors.As(err, &refused):
		return sidecars.Invalid("%s: %s", doing, strings.TrimSpace(refused.Message)), nil
	}
	return stage.Result{}, fmt.Errorf("%s: %w", doing, err)
}

// note logs something to the run's events; that it can't is not worth failing for.
func (g *Ground) note(folder runs.Folder, kind, stageName, text string) {
	event := runs.Event{Time: time.Now(), Kind: kind, Stage: stageName, Text: text}
	if err := folder.AppendEvent(event); err != nil {
		g.options.Log.Warn("an event could not be written", "folder", string(folder), "error", err)
	}
}
