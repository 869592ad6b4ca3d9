// Package wire is what a supervisor and the sidecar of its node say to each other, over the Unix socket supervisor.sock in
// the pod's folder: one JSON document per line in both directions. The supervisor says Hello first; then each request is
// answered under its id, in any order, and what ends is told to everybody who is connected, whoever started it.
//
// Neither trusts the other's lines: they are bounded, and what can't be read ends the connection and nothing else.
package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// Socket and Sync are the names of the sockets in the pod's folder: the supervisor listens on the first, the sidecar on
	// the second, for what the pod's relay carries to its gateway.
	Socket = "supervisor.sock"
	Sync   = "sync.sock"
	// Outputs and Temp are the instance's folders there.
	Outputs = "outputs"
	Temp    = "temp"
	// Stdout and Stderr are the names of what the program wrote, in Outputs.
	Stdout = "stdout.log"
	Stderr = "stderr.log"
	// Folder is where the pod's folder is mounted in its container.
	Folder = "/groundplan"

	// LongestLine bounds a line, in bytes: an environment and arguments as large as the kernel takes fit.
	LongestLine = 8 << 20
)

// Request is asked of a supervisor: one of its bodies is there.
type Request struct {
	ID     int64   `json:"id"` // from 1
	Start  *Start  `json:"start,omitempty"`
	Attach *Ident  `json:"attach,omitempty"`
	Signal *Signal `json:"signal,omitempty"`
	Clear  *Clear  `json:"clear,omitempty"`
}

// Ident names one start.
type Ident struct {
	Key    string `json:"key"`
	Starts int    `json:"starts"`
}

// Start asks for a start, and is answered by its State. One that is known already is only told of.
type Start struct {
	Ident
	Path string   `json:"path"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Held bool     `json:"held,omitempty"`
}

// Signal asks for a signal to the process group of what runs, or to every process in the pod; it is answered once sent.
type Signal struct {
	Number int  `json:"number"`
	All    bool `json:"all,omitempty"`
}

// Clear asks for the end of every process in the pod but the supervisor, and is answered by Cleared once there is none or
// Within, in milliseconds, is over.
type Clear struct {
	Within int64 `json:"within"`
}

// Answer is what a supervisor says: the answer to request ID, or of itself with ID 0.
type Answer struct {
	ID int64 `json:"id,omitempty"`
	// Error is why what was asked could not be done.
	Error   string   `json:"error,omitempty"`
	State   *State   `json:"state,omitempty"`
	Cleared *Cleared `json:"cleared,omitempty"`

	Hello *Hello `json:"hello,omitempty"`
	Ended *State `json:"ended,omitempty"`
	Bye   *Bye   `json:"bye,omitempty"`
}

// Hello is what a supervisor says to whoever connects.
type Hello struct {
	// Boot is another one for each process that is a supervisor.
	Boot string `json:"boot"`
	// Folder is the pod's folder as the pod sees it.
	Folder string `json:"folder"`
	// Environ is the image's environment.
	Environ []string `json:"environ"`
	// Sync is where the pod's relay listens.
	Sync string `json:"sync"`
}

// State is what is known of a start. Times are in nanoseconds since 1970.
type State struct {
	Ident
	At     int64 `json:"at"`
	Stdout int64 `json:"stdout"`
	Stderr int64 `json:"stderr"`
	// Exit is how it ended; nil while it runs.
	Exit *Exit `json:"exit,omitempty"`
}

// Exit is how a program ended.
type Exit struct {
	At int64 `json:"at"`
	// Status is the kernel's, as wait4 gives it.
	Status uint32 `json:"status"`
	// PeakMemory is the largest resident set in bytes, 0 when it isn't known; CPU is in seconds.
	PeakMemory int64   `json:"peakMemory"`
	CPU        float64 `json:"cpu"`
}

// Cleared says how many processes could not be ended.
type Cleared struct {
	Left int `json:"left"`
}

// Bye is the last that a supervisor says.
type Bye struct {
	Why string `json:"why"`
}

// ErrTooLong says that a line is longer than LongestLine.
var ErrTooLong = fmt.Errorf("a line is longer than %d bytes", LongestLine)

// Reader reads documents.
type Reader struct{ in *bufio.Reader }

// NewReader reads from r.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, 4096)} }

// Read reads the next document into v. It returns io.EOF at the end, and io.ErrUnexpectedEOF within a line.
func (r *Reader) Read(v any) error {
	line, err := r.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = r.rest(append([]byte(nil), line...))
	}
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("a line of %d bytes is not the JSON that is expected: %w", len(line), err)
	}
	return nil
}

// rest reads a long line on.
func (r *Reader) rest(line []byte) ([]byte, error) {
	for {
		more, err := r.in.ReadSlice('\n')
		if len(line)+len(more) > LongestLine {
			return line, ErrTooLong
		}
		line = append(line, more...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// Line encodes a document as a line; it refuses what no Reader would take.
func Line(v any) ([]byte, error) {
	line, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(line) >= LongestLine {
		return nil, ErrTooLong
	}
	return append(line, '\n'), nil
}
