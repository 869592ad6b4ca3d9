package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/artifacts"
	"github.com/groundplan/groundplan/activities/comparison"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/runs/retention"
	"github.com/groundplan/groundplan/workflows"
)

// Retain removes what a policy takes from a home, and what nobody names any more; with dry it only says what that would
// be. session is nil while the services are down: a run whose record says that it is under way stays then, since it goes
// on when they are up again.
func Retain(ctx context.Context, config Config, session *Session, policy retention.Policy, dry bool) (retention.Plan, error) {
	r := retaining{home: config.Home, session: session, store: artifacts.New(config.Home.Artifacts()), now: time.Now()}
	facts, err := r.facts(ctx)
	if err != nil {
		return retention.Plan{}, err
	}
	plan := retention.Decide(facts, policy)
	if dry {
		return plan, nil
	}
	return plan, errors.Join(r.removeRuns(ctx, plan), r.removeTurns(plan), r.removeArtifacts(plan))
}

// retaining is one look through a home.
type retaining struct {
	home    runs.Home
	session *Session
	store   *artifacts.Store
	now     time.Time
}

// facts finds out what there is.
func (r *retaining) facts(ctx context.Context) (retention.Facts, error) {
	f := retention.Facts{Now: r.now}
	underway := map[string]bool{}
	if r.session != nil {
		rows, err := r.session.visible(ctx)
		if err != nil {
			return f, err
		}
		for _, row := range rows {
			underway[row.ID] = underway[row.ID] || row.Status != stage.StatusEnded
		}
	}
	if err := r.runs(&f, underway); err != nil {
		return f, err
	}
	if err := r.turns(&f); err != nil {
		return f, err
	}
	stored, err := r.store.List()
	if err != nil {
		return f, err
	}
	for _, s := range stored {
		bytes, _, _ := retention.Usage(s.Folder)
		f.Artifacts = append(f.Artifacts, retention.Artifact{Digest: s.Digest, Used: s.Used, Bytes: bytes})
	}
	return f, nil
}

// runs adds every run that has a folder.
func (r *retaining) runs(f *retention.Facts, underway map[string]bool) error {
	entries, err := os.ReadDir(r.runsFolder())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the runs: %w", err)
	}
	parents := map[string]string{}
	for _, entry := range entries {
		if !entry.IsDir() || runs.CheckID(entry.Name()) != nil {
			continue
		}
		record, err := r.home.Run(entry.Name()).ReadRecord()
		if err != nil && !errors.Is(err, runs.ErrNoRecord) {
			record = runs.Record{} // a record that can't be read tells nothing; the folder's age does
		}
		for _, cell := range record.Cells {
			parents[cell.Run] = entry.Name()
		}
		f.Runs = append(f.Runs, r.run(entry.Name(), record, underway[entry.Name()]))
	}
	for i := range f.Runs {
		f.Runs[i].Parent = parents[f.Runs[i].ID]
		f.Runs[i].Underway = f.Runs[i].Underway || underway[f.Runs[i].Parent]
	}
	return nil
}

func (r *retaining) runsFolder() string { return filepath.Dir(string(r.home.Run("x"))) }

// run is what a folder says of its run.
func (r *retaining) run(id string, record runs.Record, underway bool) retention.Run {
	folder := r.home.Run(id)
	fact := retention.Run{
		ID: id, Pipeline: record.Pipeline, From: record.From, Underway: underway,
		Started: record.Started, Ended: record.Ended, Kind: comparison.Kind(record),
		Compared: record.Status == stage.StatusEnded && record.Verdict == stage.Passed && len(record.Metrics) > 0,
	}
	if record.ID == "" { // nothing is known of it
		fact.Kind = "unknown " + id
	}
	if r.session == nil && record.ID != "" && record.Status != stage.StatusEnded {
		fact.Underway = true
	}
	fact.Bytes, fact.Changed, _ = retention.Usage(string(folder)) // what can't be looked at isn't counted
	if fact.Started.IsZero() {
		fact.Started = fact.Changed
	}
	for _, results := range [][]stage.Result{record.Stages, record.Tries} {
		for _, result := range results {
			for _, a := range result.Artifacts {
				fact.Artifacts = append(fact.Artifacts, r.digests(a)...)
			}
		}
	}
	fact.Compares, fact.With = compares(folder)
	return fact
}

// digests are the folders of the store that an artifact lies in: a ground may have given it another digest since.
func (r *retaining) digests(a stage.Artifact) []string {
	list := []string{a.Digest}
	for _, path := range []string{a.Path, a.Archive} {
		inside, err := filepath.Rel(r.home.Artifacts(), path)
		if digest, _, ok := strings.Cut(inside, string(filepath.Separator)); path != "" && err == nil && ok {
			list = append(list, digest)
		}
	}
	return list
}

// compares is how many runs a pipeline compares with, or which one.
func compares(folder runs.Folder) (most int, with string) {
	pipeline, err := folder.ReadPipeline()
	if err != nil {
		return 0, ""
	}
	for _, s := range pipeline.Stages {
		if s.Kind != pipelines.KindCollect || s.Collect == nil || s.Collect.Compare == nil {
			continue
		}
		runs, id := activities.ComparesWith(*s.Collect.Compare)
		most, with = max(most, runs), cmp.Or(id, with)
	}
	return most, with
}

// turns adds every turn of every suite.
func (r *retaining) turns(f *retention.Facts) error {
	names, err := r.home.SuiteNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		turns, _ := r.home.ReadSuiteTurns(name) // one that can't be read stays
		for _, t := range turns {
			fact := retention.Turn{Suite: t.Suite, ID: t.ID, Started: t.Started, Ended: t.Ended, Underway: t.Status != stage.StatusEnded}
			if info, err := os.Lstat(r.home.SuiteTurn(name, t.ID)); err == nil {
				fact.Bytes = info.Size()
			}
			for _, run := range t.Runs {
				if run.Run != "" {
					fact.Runs = append(fact.Runs, run.Run)
				}
			}
			f.Turns = append(f.Turns, fact)
		}
	}
	return nil
}

// removeRuns takes away the runs that go. While they are put aside no run is begun or resumed; one that was since they
// were decided about stays.
func (r *retaining) removeRuns(ctx context.Context, plan retention.Plan) error {
	bin, err := retention.OpenBin(r.runsFolder())
	if err != nil || bin == nil {
		return err
	}
	defer bin.Close()
	gone, err := r.putAside(ctx, bin, plan)
	if err != nil {
		return errors.Join(err, bin.Empty())
	}
	return errors.Join(bin.Empty(), r.forget(ctx, gone))
}

func (r *retaining) putAside(ctx context.Context, bin *retention.Bin, plan retention.Plan) (gone map[string]bool, err error) {
	unlock, err := holdRuns(ctx, r.home, true)
	if err != nil {
		return nil, err
	}
	defer unlock()
	gone = map[string]bool{}
	for _, d := range plan.Runs {
		if !d.Goes {
			continue
		}
		begun, err := r.begunSince(ctx, d.Name)
		if err != nil {
			return gone, err
		}
		if begun {
			continue
		}
		if err := bin.PutAside(d.Name); err != nil {
			return gone, err
		}
		gone[d.Name] = true
	}
	return gone, nil
}

// begunSince says whether a run was resumed after the facts were found.
func (r *retaining) begunSince(ctx context.Context, id string) (bool, error) {
	if info, err := os.Stat(r.home.Run(id).Events()); err == nil && info.ModTime().After(r.now) {
		return true, nil
	}
	if r.session == nil {
		return false, nil
	}
	description, err := r.session.client.DescribeWorkflowExecution(ctx, id, "")
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking whether run %s is under way: %w", id, err)
	}
	return description.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

// forget has Temporal forget the runs that are gone, so that no list shows them any more. With the embedded services that
// goes for all that have ended and have no folder: they were removed while these were down.
func (r *retaining) forget(ctx context.Context, gone map[string]bool) error {
	s := r.session
	if s == nil {
		return nil
	}
	type execution struct{ id, run string }
	var list []execution
	add := func(query string, wanted func(id string) bool) error {
		return s.eachRun(ctx, query, func(id, run string) {
			if wanted(id) {
				list = append(list, execution{id, run})
			}
		})
	}
	query := fmt.Sprintf("WorkflowType IN ('%s', '%s') AND ExecutionStatus != 'Running'", workflows.WorkflowPipeline, workflows.WorkflowMatrix)
	faults := []error{add(query, func(id string) bool { return gone[id] })}
	if s.Embedded() {
		query += fmt.Sprintf(" AND CloseTime < '%s'", r.now.Add(-retention.Grace).UTC().Format(time.RFC3339))
		faults = append(faults, add(query, func(id string) bool {
			_, err := os.Lstat(string(r.home.Run(id)))
			return !gone[id] && errors.Is(err, fs.ErrNotExist)
		}))
	}
	for _, e := range list {
		_, err := s.client.WorkflowService().DeleteWorkflowExecution(ctx, &workflowservice.DeleteWorkflowExecutionRequest{
			Namespace: s.config.Namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: e.id, RunId: e.run},
		})
		var missing *serviceerror.NotFound
		if err != nil && !errors.As(err, &missing) {
			faults = append(faults, fmt.Errorf("forgetting run %s: %w", e.id, err))
		}
	}
	return errors.Join(faults...)
}

func (r *retaining) removeTurns(plan retention.Plan) error {
	var faults []error
	for _, d := range plan.Turns {
		suite, id, _ := strings.Cut(d.Name, "/")
		if !d.Goes || runs.CheckSuite(suite) != nil || runs.CheckTurn(id) != nil {
			continue
		}
		if err := os.Remove(r.home.SuiteTurn(suite, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, fmt.Errorf("removing turn %s: %w", d.Name, err))
		}
	}
	return errors.Join(faults...)
}

func (r *retaining) removeArtifacts(plan retention.Plan) error {
	faults := []error{r.store.Sweep()}
	for _, d := range plan.Artifacts {
		if d.Goes {
			_, err := r.store.Discard(d.Name, r.now)
			faults = append(faults, err)
		}
	}
	return errors.Join(slices.DeleteFunc(faults, func(err error) bool { return err == nil })...)
}

// How often a worker that stays up looks after its home, and how long after its start it does so first.
const (
	retainEvery = 24 * time.Hour
	retainFirst = 10 * time.Minute
)

// retainDaily carries out the policy of the configuration, if there is one, until the context ends. Only the owner does.
func (s *Session) retainDaily(ctx context.Context) {
	if s.config.Retention == (retention.Policy{}) {
		return
	}
	for wait := retainFirst; sleep(ctx, wait) == nil; wait = retainEvery {
		if !s.Owner() {
			continue
		}
		plan, err := Retain(ctx, s.config, s, s.config.Retention, false)
		if err != nil {
			s.log.Error("looking after what may go", "home", string(s.config.Home), "error", err)
			continue
		}
		s.log.Info("removed what may go", "home", string(s.config.Home), "bytes", plan.Frees())
	}
}
