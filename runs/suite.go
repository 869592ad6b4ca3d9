package runs

import (
	"time"

	"github.com/groundplan/groundplan/activities/stage"
)

// SuiteTurn is what one turn of a suite was and came to: suites/<suite>/<id>.json. Fields are added, never renamed.
type SuiteTurn struct {
	ID     string `json:"id"`
	Suite  string `json:"suite"`
	File   string `json:"file,omitempty"`
	Ground string `json:"ground"`
	Commit string `json:"commit,omitempty"`
	// Trigger is why it began: one of TriggerSchedule, TriggerPerson, TriggerBackfill.
	Trigger string `json:"trigger"`
	// Due is when it should have begun; zero where a person began it.
	Due     time.Time `json:"due,omitzero"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Status is stage.StatusRunning or stage.StatusEnded; Verdict is set when it ended: the worst of its runs'.
	Status  string        `json:"status"`
	Verdict stage.Verdict `json:"verdict,omitempty"`
	// Reason is one sentence: which pipelines did not pass, and why.
	Reason string     `json:"reason,omitempty"`
	Runs   []SuiteRun `json:"runs"`
	// News are what changed against the turn before, each as NewsFailed, NewsInvalid, NewsRegressed, NewsRecovered or
	// NewsPassed.
	News []string `json:"news,omitempty"`
	// Notified says what became of telling about it; empty where nobody was to be told.
	Notified string `json:"notified,omitempty"`
}

// SuiteRun is one pipeline's run in a turn.
type SuiteRun struct {
	// Pipeline is its name, and File where it is, relative to the repository root.
	Pipeline string `json:"pipeline"`
	File     string `json:"file"`
	// Run is the run's id; empty where it was not begun.
	Run     string        `json:"run,omitempty"`
	Verdict stage.Verdict `json:"verdict,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	// Regressed names the figures that were worse than before by more than the tolerance.
	Regressed []string  `json:"regressed,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	// Since is the id of the turn since which the pipeline has not passed; empty when it passed.
	Since string `json:"since,omitempty"`
}

// Why a turn of a suite began.
const (
	TriggerSchedule = "schedule"
	TriggerPerson   = "person"
	TriggerBackfill = "backfill"
)

// What a turn of a suite brings to tell; the words of `notify.on`.
const (
	NewsFailed    = "failed"
	NewsInvalid   = "invalid"
	NewsRegressed = "regressed"
	NewsRecovered = "recovered"
	NewsPassed    = "passed"
)
