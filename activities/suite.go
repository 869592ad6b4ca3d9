package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/groundplan/groundplan/activities/notify"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

// Suites is what the activities of suites need. Its fields are set before Register and not changed after it.
type Suites struct {
	// Home is the state folder: the suites' history is below it.
	Home runs.Home
	// Secrets is where secrets are looked up when they are needed.
	Secrets notify.Secrets
	// Caller calls webhooks; nil: one of its own.
	Caller *notify.Caller
}

// RegisterSuites makes the activities of suites known to a worker, under the names that package stage lists.
func RegisterSuites(r Registry, s *Suites) {
	for name, function := range map[string]any{
		stage.ActivitySuiteBegin:  s.Begin,
		stage.ActivitySuiteLoad:   s.Load,
		stage.ActivitySuiteRecord: s.Record,
		stage.ActivitySuiteTell:   s.Tell,
		stage.ActivitySuiteTold:   s.Told,
	} {
		r.RegisterActivityWithOptions(function, activity.RegisterOptions{Name: name})
	}
}

// mostInstalments bounds how many turns may bear the same time.
const mostInstalments = 999

// Begin gives a turn its id, which is the time at which it was due, and writes its first record. Where an earlier turn
// bears that id, as after a backfill, a number is put behind it. A second try finds the first one's record.
func (s *Suites) Begin(ctx context.Context, in stage.SuiteBegin) (stage.SuiteBegun, error) {
	begun := stage.SuiteBegun{Commit: Commit(ctx, in.Root)}
	begun.Trigger, begun.Due = trigger(in)
	at := in.Turn.Started
	if !begun.Due.IsZero() {
		at = begun.Due
	}
	base := at.UTC().Format("20060102-150405")
	for n := 1; n <= mostInstalments; n++ {
		begun.ID = base
		if n > 1 {
			begun.ID += "-" + strconv.Itoa(n)
		}
		known, err := s.Home.ReadSuiteTurn(in.Turn.Suite, begun.ID)
		if err == nil && known.Execution == in.Turn.Execution {
			return begun, nil
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return begun, fmt.Errorf("looking for the turn %s: %w", begun.ID, err)
		}
		turn := in.Turn
		turn.ID, turn.Commit, turn.Trigger, turn.Due = begun.ID, begun.Commit, begun.Trigger, begun.Due
		_, err = s.Record(ctx, turn)
		return begun, err
	}
	return begun, fmt.Errorf("%d turns of %s bear the time %s already", mostInstalments, in.Turn.Suite, base)
}

// trigger tells why a turn began, and when it was due by the suite's own schedule. Temporal gives a turn that a person
// asked for the time of asking, which is none of the schedule's; one that a backfill asked for looks like a late one.
func trigger(in stage.SuiteBegin) (why string, due time.Time) {
	at := in.Turn.Due
	if at.IsZero() || !in.Schedule.Due(at) {
		return runs.TriggerPerson, time.Time{}
	}
	for _, span := range in.Backfills {
		if !at.Before(span.From) && !at.After(span.To) && !in.Turn.Started.Before(span.Asked) {
			return runs.TriggerBackfill, at
		}
	}
	return runs.TriggerSchedule, at
}

// mostPipelineBytes is what a pipeline may take as JSON: a payload of Temporal's may have 2 MB.
const mostPipelineBytes = 1_900_000

// Load reads one pipeline as it is now. What is wrong with its file is an answer, not an error.
func (s *Suites) Load(_ context.Context, in stage.SuiteLoad) (stage.SuiteLoaded, error) {
	doc, err := pipelines.Load(filepath.Join(in.Root, filepath.FromSlash(in.File)), pipelines.Options{
		Root: in.Root, Set: in.Set, Getenv: os.LookupEnv, Compare: in.Compare,
	})
	if err != nil {
		return stage.SuiteLoaded{Fault: faulty(in.File, err)}, nil
	}
	loaded := stage.SuiteLoaded{}
	cells := doc.Cells()
	if loaded.Pipeline, err = doc.Resolve(cells[0]); err != nil {
		return stage.SuiteLoaded{Fault: faulty(in.File, err)}, nil
	}
	if cells[0] != nil {
		bundle := doc.Bundle()
		loaded.Bundle, loaded.Cells, loaded.MaxParallel = &bundle, cells, doc.MaxParallel()
	}
	text, err := json.Marshal(loaded)
	if err != nil {
		return stage.SuiteLoaded{}, fmt.Errorf("handing over %s: %w", in.File, err)
	}
	if len(text) > mostPipelineBytes {
		return stage.SuiteLoaded{Fault: fmt.Sprintf("%s is too large to be handed over: %d bytes with its files, of at most %d", in.File, len(text), mostPipelineBytes)}, nil
	}
	return loaded, nil
}

// faulty is one sentence about a file that is wrong: the first of its faults, and how many more there are.
func faulty(file string, err error) string {
	var faults pipelines.Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		return fmt.Sprintf("%s can't be read: %v", file, err)
	}
	first, _, _ := strings.Cut(faults[0].Error(), "\n") // the line itself is quoted below it
	if len(faults) == 1 {
		return first
	}
	return fmt.Sprintf("%s; and %d more: `groundplan validate %s`", first, len(faults)-1, file)
}

// Commit is the git commit of a folder, with "-dirty" behind it when files changed; empty outside git or without git.
func Commit(ctx context.Context, root string) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
