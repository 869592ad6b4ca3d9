//go:build linux

package keeper

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/groundplan/groundplan/sidecar/keeper/outcome"
)

// step is one line of what a keeper notes down of a stage, so that another can go on with it. One field is set.
type step struct {
	Announced bool      `json:"announced,omitempty"` // that the network is ready
	Opened    time.Time `json:"opened,omitzero"`     // the gate
	Stopped   cause     `json:"stopped,omitempty"`
	Cut       *cut      `json:"cut,omitempty"`
	Said      *said     `json:"said,omitempty"`
	Wished    *wished   `json:"wished,omitempty"`
	Applied   *applied  `json:"applied,omitempty"`
	Again     *again    `json:"again,omitempty"`
	Act       *act      `json:"act,omitempty"`
	Took      *took     `json:"took,omitempty"`
	Began     *happened `json:"began,omitempty"`
	Ended     *happened `json:"ended,omitempty"`
}

// cut is a member that is about to be killed, and why.
type cut struct {
	Slot int    `json:"slot"`
	Why  string `json:"why"`
}

// said is what a member has reported of its outcome.
type said struct {
	Slot   int            `json:"slot"`
	Report outcome.Report `json:"report"`
}

// wished is the nth configuration of its network that a member has asked for.
type wished struct {
	Slot   int    `json:"slot"`
	N      int64  `json:"n"`
	Prefix string `json:"prefix"`
	Config []byte `json:"config"`
}

// applied says that it is in force, and was answered.
type applied struct {
	Slot int   `json:"slot"`
	N    int64 `json:"n"`
}

// again is a member that is about to be started once more, with what its earlier processes have used.
type again struct {
	Slot   int     `json:"slot"`
	Starts int     `json:"starts"` // this one counted in
	Peak   int64   `json:"peak,omitempty"`
	CPU    float64 `json:"cpu,omitempty"`
}

// took is where instances on other nodes have moved, taken over: the last of the first so many moves.
type took struct {
	Upto  int64  `json:"upto"`
	Moves []move `json:"moves"`
}

// act is what an event is about to do: it chose Chosen, of which Slots are here and still run.
type act struct {
	Event  string   `json:"event"`
	Chosen []string `json:"chosen"`
	Slots  []int    `json:"slots"`
}

// happened is an event that has begun, or is over.
type happened struct {
	Event     string    `json:"event"`
	Time      time.Time `json:"time"`
	Instances []string  `json:"instances,omitempty"`
}

// note notes a step down, where another keeper may take this one's place.
func (s *stage) note(what step) {
	if s.steps == nil {
		return
	}
	if err := s.steps.write(what); err != nil && !errors.Is(err, os.ErrClosed) {
		s.keeper.log.Error("no other sidecar could go on with the stage now", "stage", s.ask.Stage, "error", err)
	}
}

// readLines reads a journal. What a killed writer left half done is none of its lines.
func readLines[T any](path string) ([]T, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var all []T
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		var document T
		if len(bytes.TrimSpace(line)) > 0 && json.Unmarshal(line, &document) == nil {
			all = append(all, document)
		}
		if err != nil {
			return all, nil
		}
	}
}
