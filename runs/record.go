package runs

import (
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// Record is run.json: what a run was and what it came to. Fields are added, never renamed.
type Record struct {
	ID          string         `json:"id"`
	Pipeline    string         `json:"pipeline"`
	Description string         `json:"description,omitempty"`
	File        string         `json:"file,omitempty"`
	Digest      string         `json:"digest"`
	Seed        uint64         `json:"seed"`
	Parameters  map[string]any `json:"parameters,omitempty"`
	Cell        map[string]any `json:"cell,omitempty"`
	Ground      string         `json:"ground"`
	// Root is the absolute path of the repository root on the machine that started the run.
	Root   string `json:"root,omitempty"`
	Commit string `json:"commit,omitempty"`
	// Suite is the suite that started the run, and Turn the id of its turn; see SuiteTurn.
	Suite string `json:"suite,omitempty"`
	Turn  string `json:"turn,omitempty"`
	// From is the run whose results this one took over, up to the stage at which it began.
	From string `json:"from,omitempty"`
	// Status is one of stage.StatusRunning, stage.StatusHolding, stage.StatusEnded; Verdict is set when it ended.
	Status  string        `json:"status"`
	Verdict stage.Verdict `json:"verdict,omitempty"`
	// Reason is one sentence: which verdict, of which stage, which instances, why.
	Reason  string    `json:"reason,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Seconds is how long the run took.
	Seconds float64        `json:"seconds"`
	Stages  []stage.Result `json:"stages"`
	Tries   []stage.Result `json:"tries,omitempty"`
	Cells   []stage.Cell   `json:"cells,omitempty"`
	// Groups is group → figures over all its instances and run stages.
	Groups  map[string]Group             `json:"groups,omitempty"`
	Metrics map[string]pipelines.Summary `json:"metrics,omitempty"`
	// Assertions are those of all collect stages.
	Assertions []stage.Assertion `json:"assertions,omitempty"`
	// Versions names what the run was made with: groundplan, go, kernel, temporal.
	Versions map[string]string `json:"versions"`
}

// Group is what is known of a group's instances together.
type Group struct {
	Instances int                `json:"instances"`
	Outcomes  pipelines.Outcomes `json:"outcomes"`
	// PeakMemory is over instances, in bytes; CPU in seconds; Seconds from start to end of an instance.
	PeakMemory pipelines.Summary `json:"peakMemory"`
	CPU        pipelines.Summary `json:"cpu"`
	Seconds    pipelines.Summary `json:"seconds"`
}

// Taken is taken.json: what a run has taken over from an earlier one.
type Taken struct {
	From   string   `json:"from"`
	Stages []string `json:"stages"`
	// Discard are the times of the earlier run whose stages were not taken over, while what instances wrote then came
	// along: their files can't be cut at a moment.
	Discard []Span `json:"discard,omitempty"`
}

// Span is a time in which instances of some groups ran an attempt of a stage.
type Span struct {
	Stage   string    `json:"stage"`
	Attempt string    `json:"attempt"` // the stage's key
	Groups  []string  `json:"groups"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
}

// Event is one line of events.jsonl.
type Event struct {
	Time  time.Time `json:"time"`
	Kind  string    `json:"kind"` // stage-started, stage-ended, instance-failed, sidecar-started, …
	Stage string    `json:"stage,omitempty"`
	// Text is one sentence.
	Text string `json:"text"`

	// The rest is set for the events of a run stage (KindEventBegan, KindEventEnded, KindEventMissed).

	// Event is its name, or `event 3` for the third of a stage where it has none; Attempt is the stage's key.
	Event   string `json:"event,omitempty"`
	Attempt string `json:"attempt,omitempty"`
	// At is when, in nanoseconds after the opening of the gate, it was in force, or was taken back; Due is when it should
	// have been, and Took how long bringing that about took, which ended At.
	At   time.Duration `json:"at,omitempty"`
	Due  time.Duration `json:"due,omitempty"`
	Took time.Duration `json:"took,omitempty"`
	// Instances are those that it chose, as group/index.
	Instances []string `json:"instances,omitempty"`
}

// The kinds of lines about the events of a run stage. An event that has begun and not ended lasted until its stage was
// over (KindStageClosed).
const (
	KindEventBegan  = "event-began"
	KindEventEnded  = "event-ended"
	KindEventMissed = "event-missed" // the stage was over before its time
	KindStageClosed = "stage-closed"
	// KindStageEnded is what a worker writes when it knows what a stage's attempt came to: later, and also when the sidecar
	// that would have closed the stage is gone.
	KindStageEnded = "stage-ended"
)
