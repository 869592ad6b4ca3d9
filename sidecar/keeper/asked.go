//go:build linux

package keeper

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// asked is what a keeper was asked for, and so what another that takes its place has to go on with: asked.json in the
// run's folder. How far each stage has come is in its steps.
type asked struct {
	// Placement is the newest; its Groups are those of all placements.
	Placement *control.Placement     `json:"placement,omitempty"`
	Network   *askedNetwork          `json:"network,omitempty"`
	Stages    map[string]*askedStage `json:"stages,omitempty"` // by key
}

// askedNetwork is the state of the data network that is in force. Reply is nil until it was proved.
type askedNetwork struct {
	Ask   control.Network       `json:"ask"`
	Reply *control.NetworkReply `json:"reply,omitempty"`
}

// askedStage is a stage that was opened. Ended is how it stood when it was over; nil before.
type askedStage struct {
	Ask     control.RunStage   `json:"ask"`
	Started time.Time          `json:"started"`
	Ended   *control.RunStatus `json:"ended,omitempty"`
}

// askedPath is the file that it is kept in.
func askedPath(f runs.Folder) string { return filepath.Join(string(f), "asked.json") }

// stepsPath is the file of a stage's steps.
func stepsPath(f runs.Folder, key string) string {
	return filepath.Join(string(f), "keeper", url.PathEscape(key)+".jsonl")
}

// readAsked reads what another keeper was asked for; nothing where there was none.
func readAsked(f runs.Folder) (asked, error) {
	a := asked{}
	err := runs.ReadJSON(askedPath(f), &a)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return a, fmt.Errorf("reading what the run's sidecar was asked for before: %w", err)
	}
	if a.Stages == nil {
		a.Stages = make(map[string]*askedStage)
	}
	return a, nil
}

// keep notes what the keeper was asked for, where another may take its place.
func (k *Keeper) keep(change func(*asked)) error {
	if !k.lasting {
		return nil
	}
	k.keeping.Lock()
	defer k.keeping.Unlock()
	change(&k.asked)
	if err := runs.WriteJSON(askedPath(k.folder), k.asked); err != nil {
		return fmt.Errorf("keeping what the sidecar was asked for: %w", err)
	}
	return nil
}

func (k *Keeper) keepPlacement(ask control.Placement) error {
	return k.keep(func(a *asked) {
		groups := slices.Clone(ask.Groups)
		if a.Placement != nil {
			for _, name := range a.Placement.Groups {
				if !slices.Contains(groups, name) {
					groups = append(groups, name)
				}
			}
		}
		ask.Groups = groups
		a.Placement = &ask
	})
}

func (k *Keeper) keepNetwork(ask control.Network, reply *control.NetworkReply) error {
	return k.keep(func(a *asked) { a.Network = &askedNetwork{Ask: ask, Reply: reply} })
}

func (s *stage) keepOpen() error {
	return s.keeper.keep(func(a *asked) {
		a.Stages[s.key] = &askedStage{Ask: s.ask, Started: s.now.Started}
	})
}

func (s *stage) keepEnd(status control.RunStatus) error {
	return s.keeper.keep(func(a *asked) {
		a.Stages[s.key] = &askedStage{Ask: s.ask, Started: status.Started, Ended: &status}
	})
}
