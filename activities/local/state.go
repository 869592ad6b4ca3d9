package local

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// state is ground.json in a run's folder: what has been asked of the run's sidecars. It is written before the asking, so
// that it may hold what never arrived, but never lacks what did.
type state struct {
	// Sidecar is the process that was last heard of.
	Sidecar *process `json:"sidecar,omitempty"`
	// Groups are those to be placed, in the order of the pipeline.
	Groups []string `json:"groups,omitempty"`
	// Network is the state of the data network that was last asked for; NetworkBy and NetworkKey are the sidecar and
	// the key of the last one that was applied.
	Network    *control.Network `json:"network,omitempty"`
	NetworkBy  time.Time        `json:"networkBy,omitzero"`
	NetworkKey string           `json:"networkKey,omitempty"`
	// Opened is key → the sidecar that was asked to open the gate for it.
	Opened map[string]time.Time `json:"opened,omitempty"`
}

// process is a sidecar. Two are the same when Since is: the time at which it started, by its own word.
type process struct {
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
	// Ticks is its start time in the kernel's count since boot, to tell it from a later process with its PID.
	Ticks uint64 `json:"ticks"`
}

func statePath(folder runs.Folder) string { return filepath.Join(string(folder), "ground.json") }

// readState reads the state; a run that has none yet has an empty one.
func readState(folder runs.Folder) (state, error) {
	var s state
	err := runs.ReadJSON(statePath(folder), &s)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("reading what was placed: %w", err)
	}
	if s.Opened == nil {
		s.Opened = map[string]time.Time{}
	}
	return s, nil
}

func (s state) write(folder runs.Folder) error {
	if err := runs.WriteJSON(statePath(folder), s); err != nil {
		return fmt.Errorf("noting what is placed: %w", err)
	}
	return nil
}
