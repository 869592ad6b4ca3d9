package stage

import (
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

// Names of the activities of a suite's turns. They are carried out on the machine on which the suite was created: its
// pipelines are read there, and its history is kept there.
const (
	// ActivitySuiteBegin gives a turn its id and begins its record. Takes SuiteBegin, returns SuiteBegun.
	ActivitySuiteBegin = "suite-begin"
	// ActivitySuiteLoad reads one pipeline as it is now. Takes SuiteLoad, returns SuiteLoaded.
	ActivitySuiteLoad = "suite-load"
	// ActivitySuiteRecord writes the record of a turn. Takes Turn, returns SuiteRecorded.
	ActivitySuiteRecord = "suite-record"
	// ActivitySuiteTell calls the webhook once. Takes SuiteTell.
	ActivitySuiteTell = "suite-tell"
	// ActivitySuiteTold notes in the record of a turn that nobody could be told. Takes SuiteTold.
	ActivitySuiteTold = "suite-told"
)

// Turn is one turn of a suite, as what carries it through knows it.
type Turn struct {
	Suite string `json:"suite"`
	// ID is empty until the turn has begun. Execution is Temporal's id of what carries the turn through.
	ID        string `json:"id,omitempty"`
	Execution string `json:"execution"`
	File      string `json:"file,omitempty"`
	Ground    string `json:"ground"`
	Commit    string `json:"commit,omitempty"`
	// Trigger is why it began: by the schedule, a person or a backfill; see package runs.
	Trigger string `json:"trigger,omitempty"`
	// Due is when it should have begun; zero where nothing but a person said so.
	Due     time.Time `json:"due,omitzero"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Status is StatusRunning or StatusEnded.
	Status  string    `json:"status"`
	Verdict Verdict   `json:"verdict,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Runs    []TurnRun `json:"runs"`
}

// TurnRun is one pipeline of a turn. Its turn has not come while Started is zero, and it has not ended while Verdict is
// empty.
type TurnRun struct {
	// Pipeline is its name; its file's while that has not been read.
	Pipeline string `json:"pipeline"`
	File     string `json:"file"`
	// Run is the id of the run; empty where none was begun.
	Run     string    `json:"run,omitempty"`
	Verdict Verdict   `json:"verdict,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
}

// Span is a time that somebody asked to be caught up with.
type Span struct {
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Asked time.Time `json:"asked"`
}

// SuiteBegin is what ActivitySuiteBegin is asked. Turn.Due is when Temporal's schedule had it begin, also where a person
// asked for that: why it began is told by Schedule and Backfills.
type SuiteBegin struct {
	Turn      Turn                    `json:"turn"`
	Root      string                  `json:"root"`
	Schedule  pipelines.SuiteSchedule `json:"schedule"`
	Backfills []Span                  `json:"backfills,omitempty"`
}

// SuiteBegun is what a turn is called and was found to be.
type SuiteBegun struct {
	ID      string    `json:"id"`
	Commit  string    `json:"commit,omitempty"`
	Trigger string    `json:"trigger"`
	Due     time.Time `json:"due,omitzero"`
}

// SuiteLoad is what ActivitySuiteLoad is asked.
type SuiteLoad struct {
	Root string            `json:"root"`
	File string            `json:"file"`
	Set  map[string]string `json:"set,omitempty"`
	// Compare is laid over a pipeline that has none of its own.
	Compare *pipelines.Compare `json:"compare,omitempty"`
}

// SuiteLoaded is a pipeline as it stood in its file, or what is wrong with it.
type SuiteLoaded struct {
	// Fault is one sentence; the rest is empty then.
	Fault string `json:"fault,omitempty"`
	// Pipeline is the pipeline, or that of a matrix' first cell, and Bundle, Cells and MaxParallel are the matrix.
	Pipeline    pipelines.Resolved `json:"pipeline,omitzero"`
	Bundle      *pipelines.Bundle  `json:"bundle,omitempty"`
	Cells       []map[string]any   `json:"cells,omitempty"`
	MaxParallel int                `json:"maxParallel,omitempty"`
}

// SuiteRecorded is what the turn's record brings to tell, when it has ended.
type SuiteRecorded struct {
	News []string `json:"news,omitempty"`
}

// SuiteTell is what ActivitySuiteTell is asked. Notify holds expressions over secrets, not their values.
type SuiteTell struct {
	Suite  string           `json:"suite"`
	Turn   string           `json:"turn"`
	Notify pipelines.Notify `json:"notify"`
}

// SuiteTold is what ActivitySuiteTold is asked.
type SuiteTold struct {
	Suite string `json:"suite"`
	Turn  string `json:"turn"`
	Text  string `json:"text"`
}
