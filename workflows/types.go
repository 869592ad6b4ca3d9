package workflows

import (
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// Names of the workflows, their queries, updates and search attributes.
const (
	// WorkflowPipeline is RunPipeline: takes Input, returns Output.
	WorkflowPipeline = "RunPipeline"
	// WorkflowMatrix is RunMatrix: takes MatrixInput, returns Output.
	WorkflowMatrix = "RunMatrix"

	// QueryState returns State.
	QueryState = "state"
	// UpdateDecide takes Decision while a run holds; refused, with the reason, when it doesn't.
	UpdateDecide = "decide"

	// Search attributes, all keywords.
	AttributePipeline = "GroundplanPipeline"
	AttributeVerdict  = "GroundplanVerdict" // a stage.Verdict once ended, before that a status (running, holding)
	AttributeStage    = "GroundplanStage"   // the stage under way, or the one that holds
	AttributeCommit   = "GroundplanCommit"
	AttributeSuite    = "GroundplanSuite"
)

// QueueFor is the task queue of the local ground on one machine: instances are processes there, so that only its own
// worker can carry out their activities.
func QueueFor(host string) string { return "groundplan-" + host }

// Input starts RunPipeline.
type Input struct {
	Run      stage.Run          `json:"run"`
	Pipeline pipelines.Resolved `json:"pipeline"`
	// Queue is where the activities are carried out; empty: the workflow's own queue.
	Queue string `json:"queue,omitempty"`
	// Earlier are results of an earlier execution of the same run that still hold: their stages are not run again,
	// whatever their verdict (which still counts for the run's), except skipped and cancelled ones.
	Earlier []stage.Result `json:"earlier,omitempty"`
	// Tries are all attempts of earlier executions, for the record and the attempt numbers.
	Tries []stage.Result `json:"tries,omitempty"`
	// Started is when the run first started; zero: now.
	Started time.Time `json:"started,omitzero"`
	// Aborted is the stage that aborted the run before its history was cut. RunPipeline hands it to itself; nobody else
	// sets it, and an execution that wasn't continued as new ignores it.
	Aborted string `json:"aborted,omitempty"`
	// Bounds on what is waited for; zero: the defaults of this package. HeartbeatTimeout is how long a silent
	// activity counts as alive.
	HeartbeatTimeout time.Duration `json:"heartbeatTimeout,omitempty"`
}

// MatrixInput starts RunMatrix.
type MatrixInput struct {
	Run    stage.Run        `json:"run"`
	Queue  string           `json:"queue,omitempty"`
	Bundle pipelines.Bundle `json:"bundle"`
	// Pipeline is the resolved pipeline of the first cell, for the name and the record.
	Pipeline pipelines.Resolved `json:"pipeline"`
	// Cells are the values of each child run, in order; child i has the run id `<run>.<i>`, counting from 1.
	Cells []map[string]any `json:"cells"`
	// MaxParallel is how many cells run at once; below 1: one.
	MaxParallel int `json:"maxParallel"`
	// Done is what cells came to in an earlier execution; they are not run again. RunMatrix hands it to itself when its
	// history grows long, and a resume hands over the cells that passed.
	Done []CellDone `json:"done,omitempty"`
	// Started and HeartbeatTimeout are as in Input.
	Started          time.Time     `json:"started,omitzero"`
	HeartbeatTimeout time.Duration `json:"heartbeatTimeout,omitempty"`
}

// CellDone is what one cell of a matrix came to.
type CellDone struct {
	// Cell counts from 1, as in the run id.
	Cell    int           `json:"cell"`
	Verdict stage.Verdict `json:"verdict"`
	Reason  string        `json:"reason,omitempty"`
}

// Output is what a run came to.
type Output struct {
	Verdict stage.Verdict  `json:"verdict"`
	Reason  string         `json:"reason"`
	Results []stage.Result `json:"results"`
	Tries   []stage.Result `json:"tries,omitempty"`
	Cells   []stage.Cell   `json:"cells,omitempty"`
}

// State answers QueryState.
type State struct {
	// Status is one of stage.StatusRunning, StatusHolding, StatusEnded.
	Status string `json:"status"`
	// Stages has one row per stage of the pipeline, in order (for a matrix: one per cell).
	Stages []StageState `json:"stages"`
	// Holding is set while the run waits for a Decision.
	Holding *Holding `json:"holding,omitempty"`
	// Output is set once the run has ended; that of a matrix has no Cells, since Stages tells of them.
	Output *Output `json:"output,omitempty"`
}

// StageState is where one stage stands.
type StageState struct {
	Name    string         `json:"name"`
	Kind    pipelines.Kind `json:"kind,omitempty"`
	Attempt int            `json:"attempt,omitempty"`
	// Phase is one of PhasePending, PhaseRunning, PhaseBackoff, PhaseHolding, PhaseEnded.
	Phase   string        `json:"phase"`
	Verdict stage.Verdict `json:"verdict,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Started time.Time     `json:"started,omitzero"`
	Ended   time.Time     `json:"ended,omitzero"`
}

// Where a stage stands.
const (
	PhasePending = "pending" // its turn has not come
	PhaseRunning = "running"
	PhaseBackoff = "backoff" // waits to be tried again
	PhaseHolding = "holding" // waits for a Decision
	PhaseEnded   = "ended"
)

// Holding says what a held run waits for.
type Holding struct {
	Stage  string    `json:"stage"`
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
}

// What can be decided about a held run.
const (
	DecideRetry = "retry" // run the held stage again on the placement that was kept
	DecideSkip  = "skip"  // take the stage as it ended and go on
	DecideAbort = "abort" // end the run with the verdict it has
)

// Decision is the argument of UpdateDecide.
type Decision struct {
	// Action is DecideRetry, DecideSkip or DecideAbort.
	Action string `json:"action"`
	// Stage is the stage that the decision is meant for; empty: whichever holds. Naming it keeps a late decision from
	// hitting the next stage that holds.
	Stage string `json:"stage,omitempty"`
}
