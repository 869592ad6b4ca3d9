package kubernetes

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// state is ground.json in a run's folder: what has been asked of the cluster and of the sidecars on its nodes. It is
// written before the asking, so that it may hold what never arrived, but never lacks what did.
type state struct {
	// Groups are those to be placed, in the order of the pipeline.
	Groups []string `json:"groups,omitempty"`
	// Nodes are all whose agents were asked for a sidecar for this run.
	Nodes []string `json:"nodes,omitempty"`
	// Holders are the nodes that hold instances by the last placement, and Lead is the one of them that tells what concerns
	// the whole run.
	Holders []string `json:"holders,omitempty"`
	Lead    string   `json:"lead,omitempty"`
	// By is the attempt of a stage that last placed something, and Began when its first try did.
	By    string    `json:"by,omitempty"`
	Began time.Time `json:"began,omitzero"`
	// Placed is the fingerprint of the placement that all sidecars hold; empty when they were not asked to the end.
	Placed string `json:"placed,omitempty"`
	// Network is the state of the data network that was last asked for; NetworkOn the fingerprint of the placement that
	// it is in force on, and NetworkKey under which key it was asked for.
	Network    *control.Network `json:"network,omitempty"`
	NetworkOn  string           `json:"networkOn,omitempty"`
	NetworkKey string           `json:"networkKey,omitempty"`
	// Opened is key → opening or opened, by the attempts of run stages.
	Opened map[string]string `json:"opened,omitempty"`
	// Written says that instances have run since their outputs were last brought home.
	Written bool `json:"written,omitempty"`
}

// How far the opening of a gate has come.
const (
	opening = "opening" // some of the sidecars may know of it
	opened  = "opened"  // all do
)

func statePath(folder runs.Folder) string { return filepath.Join(string(folder), "ground.json") }

// readState reads the state; a run that has none yet has an empty one.
func readState(folder runs.Folder) (state, error) {
	var s state
	err := runs.ReadJSON(statePath(folder), &s)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("reading what was placed: %w", err)
	}
	if s.Opened == nil {
		s.Opened = map[string]string{}
	}
	return s, nil
}

func (s state) write(folder runs.Folder) error {
	if err := runs.WriteJSON(statePath(folder), s); err != nil {
		return fmt.Errorf("noting what is placed: %w", err)
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

// fingerprint tells one placement from another: which pods hold the instances, and on which nodes.
func fingerprint(held map[string][]control.Pod) string {
	hash := sha256.New()
	for _, node := range slices.Sorted(maps.Keys(held)) {
		fmt.Fprintf(hash, "%s\n", node)
		for _, p := range held[node] {
			fmt.Fprintf(hash, "%d %s\n", p.Slot, p.UID)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:16])
}
