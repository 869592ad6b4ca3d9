package progress

import (
	"encoding/json"
	"io"
	"reflect"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/workflows"
)

// document is one line of a stream.
type document struct {
	Time time.Time `json:"time"`
	Run  string    `json:"run"`
	workflows.State
	Progress []stage.Progress `json:"progress,omitempty"`
}

// NewStream is a view for programs: one JSON document per line, whenever something changed.
func NewStream(w io.Writer) View { return &stream{enc: json.NewEncoder(w)} }

type stream struct {
	enc  *json.Encoder
	last document
}

func (s *stream) Show(f Frame) {
	next := document{Run: f.Run, State: f.State, Progress: f.Progress}
	if reflect.DeepEqual(next, s.last) {
		return
	}
	s.last = next
	next.Time = f.Now
	_ = s.enc.Encode(next) // whoever reads may be gone; the run isn't
}

func (s *stream) Say(string) {}

func (s *stream) Close() {}
