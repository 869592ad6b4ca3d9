package page

import (
	"context"
	"errors"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/workflows"
)

// ErrUnknown is wrapped by what Services answer about a run or suite that they don't know.
var ErrUnknown = errors.New("unknown")

// Services carry runs out and are asked about them. They are called from several goroutines.
type Services interface {
	// Runs are all runs, the newest first.
	Runs(ctx context.Context) ([]Run, error)
	// State asks a run where it stands, and Progress is the newest word of each stage under way.
	State(ctx context.Context, id string) (workflows.State, error)
	Progress(ctx context.Context, id string) ([]stage.Progress, error)
	// Cancel, Resume and Decide return once the wish has been taken, not when it has come true.
	Cancel(ctx context.Context, id string) error
	Resume(ctx context.Context, id, from string) error
	Decide(ctx context.Context, id string, d workflows.Decision) error

	// Suites are the suites that have a schedule.
	Suites(ctx context.Context) ([]Suite, error)
	Trigger(ctx context.Context, suite string) error
	Pause(ctx context.Context, suite, note string) error
	Unpause(ctx context.Context, suite string) error

	// Temporal is the URL of Temporal's own page; empty while there is none.
	Temporal() string
}

// Run is one row of the list of runs.
type Run struct {
	ID       string        `json:"id"`
	Pipeline string        `json:"pipeline"`
	Status   string        `json:"status"`
	Verdict  stage.Verdict `json:"verdict,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	// Stage is the one under way, or the one that holds.
	Stage   string    `json:"stage,omitempty"`
	Suite   string    `json:"suite,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Parent is the matrix run that a cell belongs to.
	Parent string `json:"parent,omitempty"`
}

// Suite is what is known of a suite's schedule.
type Suite struct {
	Name string `json:"name"`
	// When says it as the suite's file does.
	When   string    `json:"when,omitempty"`
	Next   time.Time `json:"next,omitzero"`
	Paused bool      `json:"paused,omitempty"`
	Note   string    `json:"note,omitempty"`
}
