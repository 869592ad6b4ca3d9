package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// ErrNoSuite says that a suite has no definition here: it was never created on this machine, or deleted.
var ErrNoSuite = errors.New("no definition of this suite")

// Suite is suites/<suite>/suite.json: what a suite was created with. The schedule that starts its turns is in Temporal;
// this is what it can be made of again when Temporal's database begins anew.
type Suite struct {
	Suite pipelines.Suite `json:"suite"`
	// Ground is where its runs' instances live, Root the absolute path of the repository root, and Context and Namespace
	// are as in stage.Run.
	Ground    string `json:"ground"`
	Root      string `json:"root"`
	Context   string `json:"context,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// Paused says that no turn begins by the schedule, and Note who paused it and why.
	Paused bool   `json:"paused,omitempty"`
	Note   string `json:"note,omitempty"`
	// Created is when it was first created, Changed when it was last created again.
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed,omitzero"`
}

// SuiteTurn is what one turn of a suite was and came to: suites/<suite>/<id>.json. Fields are added, never renamed.
type SuiteTurn struct {
	ID     string `json:"id"`
	Suite  string `json:"suite"`
	File   string `json:"file,omitempty"`
	Ground string `json:"ground"`
	Commit string `json:"commit,omitempty"`
	// Execution is the id that Temporal gave to what carries the turn through.
	Execution string `json:"execution,omitempty"`
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

var (
	turnID    = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}(-[0-9]{1,3})?$`)
	suiteName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)
)

// CheckTurn says why id can't name a turn of a suite; nil when it can.
func CheckTurn(id string) error {
	if !turnID.MatchString(id) {
		return fmt.Errorf("%q can't name a turn of a suite: it is a time like 20260102-150405", id)
	}
	return nil
}

// CheckSuite says why name can't name a suite, whose history is a folder of that name; nil when it can.
func CheckSuite(name string) error {
	if !suiteName.MatchString(name) {
		return fmt.Errorf("%q can't name a suite: use 1 to 63 of the characters a-z A-Z 0-9 . _ -, and begin with a letter or a digit", name)
	}
	return nil
}

// WriteSuiteTurn replaces the record of a turn. A reader sees the old one or the new one, never a part.
func (h Home) WriteSuiteTurn(t SuiteTurn) error {
	if err := errors.Join(CheckSuite(t.Suite), CheckTurn(t.ID)); err != nil {
		return err
	}
	return WriteJSON(h.SuiteTurn(t.Suite, t.ID), t)
}

// ReadSuiteTurn reads the record of one turn; errors.Is(err, fs.ErrNotExist) when there is none.
func (h Home) ReadSuiteTurn(suite, id string) (SuiteTurn, error) {
	var t SuiteTurn
	if err := errors.Join(CheckSuite(suite), CheckTurn(id)); err != nil {
		return t, err
	}
	return t, ReadJSON(h.SuiteTurn(suite, id), &t)
}

// ReadSuiteTurns reads the records of a suite's turns, the newest first; none when it has had none. A turn whose record
// can't be read is left out, and named in the error beside the others.
func (h Home) ReadSuiteTurns(suite string) ([]SuiteTurn, error) {
	if err := CheckSuite(suite); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(h.Suites(), suite))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the turns of %s: %w", suite, err)
	}
	var turns []SuiteTurn
	var faults []error
	for _, entry := range entries {
		id, isTurn := strings.CutSuffix(entry.Name(), ".json")
		if !isTurn || CheckTurn(id) != nil {
			continue
		}
		t, err := h.ReadSuiteTurn(suite, id)
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		turns = append(turns, t)
	}
	slices.SortStableFunc(turns, func(a, b SuiteTurn) int { return b.Started.Compare(a.Started) })
	return turns, errors.Join(faults...)
}

// SuiteNames are the suites that were created on this machine or have a history here, in the order of their names.
func (h Home) SuiteNames() ([]string, error) {
	entries, err := os.ReadDir(h.Suites())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the suites: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && CheckSuite(entry.Name()) == nil {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// WriteSuite keeps what a suite was created with.
func (h Home) WriteSuite(s Suite) error {
	if err := CheckSuite(s.Suite.Name); err != nil {
		return err
	}
	return WriteJSON(h.Suite(s.Suite.Name), s)
}

// ReadSuite reads what a suite was created with; errors.Is(err, ErrNoSuite) when that is not known here.
func (h Home) ReadSuite(name string) (Suite, error) {
	var s Suite
	if err := CheckSuite(name); err != nil {
		return s, err
	}
	err := ReadJSON(h.Suite(name), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("%w: %s", ErrNoSuite, name)
	}
	return s, err
}

// RemoveSuite forgets what a suite was created with. Its history stays.
func (h Home) RemoveSuite(name string) error {
	if err := CheckSuite(name); err != nil {
		return err
	}
	if err := os.Remove(h.Suite(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the suite %s: %w", name, err)
	}
	return nil
}
