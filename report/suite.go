package report

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// mostTurns is how many turns of a suite are shown, the newest ones.
const mostTurns = 60

// ErrNoHistory says that a suite has had no turn on this machine.
var ErrNoHistory = errors.New("this suite has had no turn on this machine")

// Suite writes the report of a suite: its turns and what became of its pipelines; errors.Is(err, ErrNoHistory) where it has
// had none.
func Suite(w io.Writer, home runs.Home, suite string) error {
	return suiteAt(w, home, suite, time.Now())
}

func suiteAt(w io.Writer, home runs.Home, suite string, now time.Time) error {
	if err := runs.CheckSuite(suite); err != nil {
		return fmt.Errorf("reporting a suite: %w", err)
	}
	files, err := openTree(filepath.Join(home.Suites(), suite))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNoHistory, suite)
	}
	if err != nil {
		return fmt.Errorf("reporting the suite %s: %w", suite, err)
	}
	defer files.Close()
	p := &suitePage{Name: suite, Made: now}
	p.read(files)
	if len(p.Turns) == 0 && len(p.Faults) == 0 {
		return fmt.Errorf("%w: %s", ErrNoHistory, suite)
	}
	return render(w, "suite", p)
}

// suitePage is what a suite's report shows.
type suitePage struct {
	Name   string
	Turns  []runs.SuiteTurn // the newest first
	Faults []string
	Made   time.Time
}

func (p *suitePage) title() string { return p.State() + ": " + p.Name }

// State is the newest turn's verdict.
func (p *suitePage) State() string {
	switch {
	case len(p.Turns) == 0:
		return string(stage.Skipped)
	case p.Turns[0].Verdict != "":
		return string(p.Turns[0].Verdict)
	}
	return p.Turns[0].Status
}

// read reads the newest turns. Their ids are times, so that they sort by name.
func (p *suitePage) read(files *tree) {
	entries, err := fs.ReadDir(files.root.FS(), ".")
	if err != nil {
		p.Faults = append(p.Faults, err.Error())
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(b.Name(), a.Name()) })
	for _, entry := range entries {
		name := entry.Name()
		id, isTurn := strings.CutSuffix(name, ".json")
		if !isTurn || runs.CheckTurn(id) != nil || len(p.Turns) == mostTurns {
			continue
		}
		var turn runs.SuiteTurn
		if _, err := files.json(name, &turn); err != nil {
			p.Faults = append(p.Faults, clean(err.Error(), shownRunes))
			continue
		}
		p.Turns = append(p.Turns, turn)
	}
}
