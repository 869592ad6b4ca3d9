package workflows

import (
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// Names of the workflows of suites and their query.
const (
	// WorkflowSuite is RunSuite: takes SuiteInput, returns SuiteOutput.
	WorkflowSuite = "RunSuite"
	// WorkflowTell is TellSuite: takes stage.SuiteTell.
	WorkflowTell = "TellSuite"

	// QueryTurn returns stage.Turn.
	QueryTurn = "turn"

	// SuitePrefix begins the ids of suites' schedules and workflows. No run's id has a colon, so that they never meet.
	SuitePrefix = "suite:"
)

// SuiteInput starts RunSuite: a suite as it was created, and where its runs happen.
type SuiteInput struct {
	Suite  pipelines.Suite `json:"suite"`
	Ground string          `json:"ground"`
	// Root, Context and Namespace are as in stage.Run.
	Root      string `json:"root"`
	Context   string `json:"context,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// Host names the machine and home on which the suite was created, and Queue is that of its activities.
	Host  string `json:"host"`
	Queue string `json:"queue"`
	// Backfills are the last that were asked for.
	Backfills []stage.Span `json:"backfills,omitempty"`
}

// SuiteOutput is what one turn of a suite came to.
type SuiteOutput struct {
	Suite string `json:"suite"`
	// Turn is the turn's id; empty where it could not even begin.
	Turn    string        `json:"turn,omitempty"`
	Verdict stage.Verdict `json:"verdict"`
	Reason  string        `json:"reason"`
	News    []string      `json:"news,omitempty"`
}
