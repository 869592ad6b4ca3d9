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

// mostTurns is how many turns of a suite are shown, the newest ones, and mostPipelines how many pipelines.
const mostTurns, mostPipelines = 60, 200

// ErrNoHistory says that a suite has had no turn on this machine.
var ErrNoHistory = errors.New("this suite has had no turn on this machine")

// Suite writes the report of a suite: its turns and what became of its pipelines; errors.Is(err, ErrNoHistory) where it has
// had none.
func Suite(w io.Writer, home runs.Home, suite string) error {
	return suiteAt(w, home, suite, time.Now())
}

// suiteAt is Suite at a given time.
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
	turns := p.read(files)
	if len(turns) == 0 && len(p.Faults) == 0 {
		return fmt.Errorf("%w: %s", ErrNoHistory, suite)
	}
	p.fill(home, turns)
	return render(w, "suite", p)
}

// suitePage is what a suite's report shows.
type suitePage struct {
	Name string
	// State is the newest turn's verdict, or where it is, and Sentence its reason.
	State, Sentence string
	Facts           []fact
	News            []string
	Faults          []string
	// Now are the pipelines of the newest turn, History all of the shown turns, and Turns those.
	Now     []suiteRow
	History []history
	Turns   []turnRow
	Trends  []trend
	Made    time.Time
}

// suiteRow is a pipeline in the newest turn.
type suiteRow struct {
	Pipeline, File, State, Reason, Run, Link, Took string
	Since                                          string
	Regressed                                      []string
}

// turnRow is a turn, and history what became of a pipeline in each, the oldest first.
type (
	turnRow struct {
		ID, State, Reason, Trigger, Commit, Took string
		Started                                  time.Time
		News                                     []string
		Notified                                 string
	}
	history struct {
		Pipeline string
		Cells    []historyCell
	}
	// historyCell is one pipeline in one turn; State is empty where it wasn't in it.
	historyCell struct{ Turn, State, Link string }
)

func (p *suitePage) title() string { return p.State + " · suite " + p.Name }

// Long says that the sentence is too long for large letters.
func (p *suitePage) Long() bool { return len(p.Sentence) > 140 }

// read reads the newest turns, the newest first. Their ids are times, so that they sort by name.
func (p *suitePage) read(files *tree) []runs.SuiteTurn {
	entries, err := fs.ReadDir(files.root.FS(), ".")
	if err != nil {
		p.Faults = append(p.Faults, clean(err.Error(), shownRunes))
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(b.Name(), a.Name()) })
	var turns []runs.SuiteTurn
	for _, entry := range entries {
		id, isTurn := strings.CutSuffix(entry.Name(), ".json")
		if !isTurn || runs.CheckTurn(id) != nil || len(turns) == mostTurns {
			continue
		}
		turn := runs.SuiteTurn{}
		if _, err := files.json(entry.Name(), &turn); err != nil {
			p.Faults = append(p.Faults, clean(err.Error(), shownRunes))
			continue
		}
		turn.ID = id
		turns = append(turns, turn)
	}
	return turns
}

// fill makes the page of the turns, the newest first.
func (p *suitePage) fill(home runs.Home, turns []runs.SuiteTurn) {
	if len(turns) == 0 {
		p.State, p.Sentence = "unknown", "None of the suite's turns could be read."
		return
	}
	newest := turns[0]
	p.State = stateOf(string(newest.Verdict), newest.Status)
	p.Sentence = clean(strings.TrimPrefix(newest.Reason, string(newest.Verdict)+": "), 4*shownRunes)
	if p.Sentence == "" {
		p.Sentence = sumOf(newest)
	}
	p.News = shown(newest.News)
	p.Facts = turnFacts(newest)
	for _, r := range newest.Runs[:min(len(newest.Runs), mostPipelines)] {
		p.Now = append(p.Now, rowOf(r))
	}
	for _, t := range turns {
		p.Turns = append(p.Turns, turnRow{
			ID: t.ID, State: stateOf(string(t.Verdict), t.Status), Trigger: clean(t.Trigger, 20), Commit: short(t.Commit), Started: t.Started,
			Reason: clean(strings.TrimPrefix(t.Reason, string(t.Verdict)+": "), shownRunes), Took: between(t.Started, t.Ended), News: shown(t.News), Notified: clean(t.Notified, shownRunes),
		})
	}
	p.History = histories(turns)
	p.Trends = trends(home, turns)
}

func stateOf(verdict, status string) string {
	if verdict != "" {
		return verdict
	}
	return status
}

// sumOf says how many pipelines passed, where a turn has no reason.
func sumOf(t runs.SuiteTurn) string {
	passed := 0
	for _, r := range t.Runs {
		if r.Verdict == stage.Passed {
			passed++
		}
	}
	return fmt.Sprintf("%d of %s passed", passed, plural(len(t.Runs), "pipeline"))
}

func turnFacts(t runs.SuiteTurn) []fact {
	var list []fact
	for _, f := range []fact{
		{Name: "Newest turn", Text: t.ID}, {Name: "Started", Text: instant(t.Started)}, {Name: "Took", Text: between(t.Started, t.Ended)},
		{Name: "By", Text: t.Trigger}, {Name: "Ground", Text: t.Ground}, {Name: "Commit", Text: short(t.Commit)}, {Name: "File", Text: t.File},
	} {
		if f.Text = clean(f.Text, 120); f.Text != "" {
			list = append(list, f)
		}
	}
	return list
}

// short is a commit as people write it.
func short(commit string) string {
	hash, behind, _ := strings.Cut(commit, "-")
	if behind != "" {
		behind = "-" + behind
	}
	return clean(hash[:min(len(hash), 10)]+behind, 30)
}

func between(from, to time.Time) string {
	if from.IsZero() || to.Before(from) {
		return ""
	}
	return lasted(to.Sub(from))
}

func rowOf(r runs.SuiteRun) suiteRow {
	row := suiteRow{
		Pipeline: clean(r.Pipeline, 100), File: clean(r.File, 200), State: string(r.Verdict), Run: clean(r.Run, 63),
		Reason: clean(strings.TrimPrefix(r.Reason, string(r.Verdict)+": "), shownRunes), Took: between(r.Started, r.Ended), Since: clean(r.Since, 40), Regressed: shown(r.Regressed),
	}
	row.Link = runLink(r.Run)
	return row
}

// runLink is where a suite's report finds the report of a run.
func runLink(id string) string {
	if runs.CheckID(id) != nil {
		return ""
	}
	return "../../runs/" + id + "/report.html"
}

// histories are the pipelines of all turns, each with what became of it, the oldest turn first.
func histories(turns []runs.SuiteTurn) []history {
	var list []history
	at := map[string]int{}
	for _, t := range turns {
		for _, r := range t.Runs {
			if _, known := at[r.Pipeline]; !known && len(list) < mostPipelines {
				at[r.Pipeline] = len(list)
				list = append(list, history{Pipeline: clean(r.Pipeline, 100), Cells: make([]historyCell, len(turns))})
			}
		}
	}
	for i, t := range slices.Backward(turns) {
		column := len(turns) - 1 - i
		for row := range list {
			list[row].Cells[column].Turn = t.ID
		}
		for _, r := range t.Runs {
			if row, known := at[r.Pipeline]; known {
				state := string(r.Verdict)
				if state == "" {
					state = "not begun"
				}
				list[row].Cells[column] = historyCell{t.ID, state, runLink(r.Run)}
			}
		}
	}
	return list
}
