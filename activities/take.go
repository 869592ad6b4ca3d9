package activities

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/activities/metrics"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// typeNotTaken is the type of the application error for what can't be taken over, however often it is tried.
const typeNotTaken = "NotTaken"

// takingName is the folder, in that of a run, where what is taken over lies until all of it is there.
const takingName = "taking"

// Take brings what an earlier run came to into the folder of one that goes on from it: what became of the instances, what
// they wrote, and what happened when. Instances go on in the files that they find, so that these are copies: the earlier
// run stays as it is.
func (a *Activities) Take(ctx context.Context, in stage.Take) error {
	for _, id := range []string{in.Run.ID, in.Run.From} {
		if err := runs.CheckID(id); err != nil {
			return badPipeline(err)
		}
	}
	var taken runs.Taken
	err := runs.ReadJSON(a.folder(in.Run).Taken(), &taken)
	if err == nil {
		return nil // a resumed run asks again
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading what was taken over: %w", err)
	}
	h := newHeart(stage.Progress{Note: "taking over what run " + in.Run.From + " came to"}, func(p stage.Progress) { activity.RecordHeartbeat(ctx, p) })
	t := taking{in: in, from: a.Home.Run(in.Run.From), to: a.folder(in.Run), report: h.report}
	err = t.all(ctx)
	h.stop()
	var final *temporal.ApplicationError
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("the disk is full: %v", err), typeNotTaken, err)
	case err == nil || errors.As(err, &final):
		return err
	}
	return fmt.Errorf("taking over what run %s came to: %w", in.Run.From, err)
}

// taking is one run's results on their way into another one's folder.
type taking struct {
	in       stage.Take
	from, to runs.Folder
	report   func(stage.Progress)
}

// all puts everything together aside, and then where it belongs: whoever is killed on the way begins anew. The note of
// what was taken comes last.
func (t *taking) all(ctx context.Context) error {
	record, err := t.from.ReadRecord()
	if errors.Is(err, runs.ErrNoRecord) {
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("run %s is gone: nothing of it is left on this machine", t.in.Run.From), typeNotTaken, nil)
	}
	if err != nil {
		return err
	}
	log, err := t.from.ReadEvents()
	if err != nil {
		return err
	}
	aside := runs.Folder(filepath.Join(string(t.to), takingName))
	if err := os.RemoveAll(string(aside)); err != nil {
		return err
	}
	if err := t.gather(ctx, record, aside); err != nil {
		return err
	}
	taken := runs.Taken{From: t.in.Run.From}
	for _, r := range t.in.Stages {
		taken.Stages = append(taken.Stages, r.Stage)
	}
	if taken.Discard, err = t.discard(record, log); err != nil {
		return err
	}
	if err := t.settle(aside); err != nil {
		return err
	}
	if err := t.events(log); err != nil {
		return err
	}
	return runs.WriteJSON(t.to.Taken(), taken)
}

// gather copies the files.
func (t *taking) gather(ctx context.Context, record runs.Record, aside runs.Folder) error {
	kinds := map[pipelines.Kind]bool{}
	type pair struct{ from, to string }
	var files []pair
	for _, r := range t.in.Stages {
		kinds[r.Kind] = true
		files = append(files, pair{t.from.Stage(r.Stage), aside.Stage(r.Stage)}, pair{t.from.Proof(r.Stage), aside.Proof(r.Stage)})
		for name := range artifactsOf(record, r.Stage) {
			files = append(files, pair{t.from.BuildLog(name), aside.BuildLog(name)})
		}
	}
	if kinds[pipelines.KindCollect] {
		files = append(files, pair{t.from.Metrics(), aside.Metrics()}, pair{t.from.Samples(), aside.Samples()}, pair{t.from.Comparison(), aside.Comparison()})
	}
	if kinds[pipelines.KindRun] {
		files = append(files, pair{filepath.Join(string(t.from), "outputs"), filepath.Join(string(aside), "outputs")})
	}
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f.to), 0o755); err != nil {
			return err
		}
		err := runs.CopyTree(ctx, f.from, f.to, func(bytes int64) {
			t.report(stage.Progress{Note: fmt.Sprintf("%d MB of what run %s came to copied", bytes>>20, t.in.Run.From)})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// artifactsOf are those that a build stage of a run made.
func artifactsOf(record runs.Record, stageName string) map[string]stage.Artifact {
	for _, r := range record.Stages {
		if r.Stage == stageName {
			return r.Artifacts
		}
	}
	return nil
}

// settle gives what was gathered its place. What has one already got it before this was killed.
func (t *taking) settle(aside runs.Folder) error {
	entries, err := os.ReadDir(string(aside))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		place := filepath.Join(string(t.to), entry.Name())
		if err := os.RemoveAll(place); err != nil { // of a try before this one
			return err
		}
		if err := os.Rename(filepath.Join(string(aside), entry.Name()), place); err != nil {
			return err
		}
	}
	return os.RemoveAll(string(aside))
}

// events copies what the log says of the stages that are taken over.
func (t *taking) events(log []runs.Event) error {
	have, err := t.to.ReadEvents()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	same := func(e runs.Event) string { return fmt.Sprint(e.Time.UnixNano(), e.Kind, e.Stage, e.Event, e.Text) }
	for _, e := range have {
		there[same(e)] = true
	}
	ours := map[string]bool{}
	for _, r := range t.in.Stages {
		ours[r.Stage] = true
	}
	for _, e := range log {
		if !ours[e.Stage] || there[same(e)] {
			continue
		}
		if err := t.to.AppendEvent(e); err != nil {
			return err
		}
	}
	return nil
}

// discard has the times of the run stages that were not taken over, and those that the earlier run itself discards.
func (t *taking) discard(record runs.Record, log []runs.Event) ([]runs.Span, error) {
	var before runs.Taken
	if err := runs.ReadJSON(t.from.Taken(), &before); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading what run %s has taken over itself: %w", record.ID, err)
	}
	spans := before.Discard
	for _, r := range record.Stages {
		ours := slices.ContainsFunc(t.in.Stages, func(taken stage.Result) bool { return taken.Stage == r.Stage })
		if ours || r.Kind != pipelines.KindRun {
			continue
		}
		groups := map[string]bool{}
		if err := eachRow(t.from.Stage(r.Stage), func(row control.Instance) { groups[row.Group] = true }); err != nil {
			return nil, fmt.Errorf("reading what became of the instances in stage %q: %w", r.Stage, err)
		}
		for _, w := range earlier(log, stage.Result{Stage: r.Stage, Attempt: math.MaxInt}) { // all of them
			if w.To.IsZero() {
				w.To = record.Ended
			}
			spans = append(spans, runs.Span{Stage: r.Stage, Attempt: w.Event, Groups: slices.Sorted(maps.Keys(groups)), From: w.From, To: w.To})
		}
	}
	return spans, nil
}

// discarded are, by group, the times of an earlier run whose results this one has not taken over.
func discarded(folder runs.Folder) (map[string][]metrics.Window, error) {
	var taken runs.Taken
	if err := runs.ReadJSON(folder.Taken(), &taken); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading what was taken over: %w", err)
	}
	times := map[string][]metrics.Window{}
	for _, s := range taken.Discard {
		for _, group := range s.Groups {
			times[group] = append(times[group], metrics.Window{Stage: s.Stage, Event: s.Attempt, From: s.From, To: s.To})
		}
	}
	return times, nil
}
