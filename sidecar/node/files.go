package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// asked is what the agent remembers of a run: agent.json in its folder.
type asked struct {
	Ask
	// Removing says that somebody has asked for its removal, which goes on after a restart.
	Removing bool `json:"removing,omitempty"`
	// Released is when it was released because nobody called.
	Released time.Time `json:"released,omitzero"`
}

func askedPath(f runs.Folder) string { return filepath.Join(string(f), "agent.json") }

func readAsked(f runs.Folder) (asked, error) {
	var a asked
	err := runs.ReadJSON(askedPath(f), &a)
	return a, err
}

func (a asked) write(f runs.Folder) error {
	if err := runs.WriteJSON(askedPath(f), a); err != nil {
		return fmt.Errorf("remembering the run: %w", err)
	}
	return nil
}

// Instance is an instance of a run on this node, and the pod that it lives in.
type Instance struct {
	Group string      `json:"group"`
	Index int         `json:"index"`
	Pod   control.Pod `json:"pod"`
}

func instancesPath(f runs.Folder) string { return filepath.Join(string(f), "instances.json") }

// WriteInstances remembers which instances a placement has on this node; a run's sidecar calls it for each placement, so
// that their outputs are found whether it lives or not.
func WriteInstances(f runs.Folder, p control.Placement) error {
	if p.Node == nil {
		return errors.New("remembering the instances on this node: the placement says nothing of nodes")
	}
	type seat struct {
		group string
		index int
	}
	var seats []seat // by slot
	for _, g := range p.All {
		for index := range g.Instances {
			seats = append(seats, seat{g.Name, index})
		}
	}
	here := make([]Instance, 0, len(p.Node.Pods))
	for _, pod := range p.Node.Pods {
		if pod.Slot < 0 || pod.Slot >= len(seats) {
			return fmt.Errorf("remembering the instances on this node: pod %s is in slot %d, and the run has %d", pod.Name, pod.Slot, len(seats))
		}
		here = append(here, Instance{Group: seats[pod.Slot].group, Index: seats[pod.Slot].index, Pod: pod})
	}
	if err := runs.WriteJSON(instancesPath(f), here); err != nil {
		return fmt.Errorf("remembering the instances on this node: %w", err)
	}
	return nil
}

// ReadInstances reads what WriteInstances has written; none before the first placement.
func ReadInstances(f runs.Folder) ([]Instance, error) {
	var here []Instance
	err := runs.ReadJSON(instancesPath(f), &here)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return here, err
}

// dispose removes a run's folder, and what is mounted in it: the namespaces that were pinned there end by that.
func dispose(f runs.Folder) error {
	if err := unmountBelow(string(f)); err != nil {
		return err
	}
	if err := os.RemoveAll(string(f)); err != nil {
		return fmt.Errorf("removing the run's folder: %w", err)
	}
	return nil
}
