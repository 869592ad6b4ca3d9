package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// StartOptions say what to run.
type StartOptions struct {
	Run      stage.Run
	Pipeline pipelines.Resolved
	// Earlier are results that Run.From came to and that this run takes over; see PlanFork.
	Earlier []stage.Result
	// Matrix makes it a matrix: one child run per cell. Pipeline is that of the first cell then.
	Matrix *Matrix
}

// Matrix is what a matrix run needs beyond its first cell.
type Matrix struct {
	Bundle      pipelines.Bundle
	Cells       []map[string]any
	MaxParallel int
}

// Handle is one run, under way or ended.
type Handle struct {
	session *Session
	id      string
}

// Run is the handle of a run; whether there is such a run shows when it is asked something.
func (s *Session) Run(id string) *Handle { return &Handle{session: s, id: id} }

// ID is the run's id.
func (h *Handle) ID() string { return h.id }

// Start starts a run. An id that is in use gives ErrRunning, one that was used before ErrExists (both wrapped).
func (s *Session) Start(ctx context.Context, o StartOptions) (*Handle, error) {
	options := s.startOptions(o.Run, o.Pipeline.Name)
	options.WorkflowIDReusePolicy = enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
	// Temporal forgets a run in time, and its database begins anew with another schema: the folder stays.
	if _, err := s.config.Home.Run(o.Run.ID).ReadRecord(); !errors.Is(err, runs.ErrNoRecord) {
		return nil, s.taken(ctx, o.Run.ID)
	}
	release, err := holdRuns(ctx, s.config.Home, false)
	if err != nil {
		return nil, fmt.Errorf("starting run %s: %w", o.Run.ID, err)
	}
	defer release()
	if err := s.forkable(o.Run); err != nil {
		return nil, err
	}
	workflow, input := s.input(o)
	_, err = s.client.ExecuteWorkflow(ctx, options, workflow, input)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	switch {
	case errors.As(err, &started):
		return nil, s.taken(ctx, o.Run.ID)
	case err != nil:
		return nil, fmt.Errorf("starting run %s: %w", o.Run.ID, err)
	}
	return s.Run(o.Run.ID), nil
}

// forkable says why a fork can't begin: what it is to take over may have been removed since it was planned.
func (s *Session) forkable(run stage.Run) error {
	if run.From == "" {
		return nil
	}
	if _, err := s.config.Home.Run(run.From).ReadRecord(); err != nil {
		return fmt.Errorf("starting run %s from %s: %w", run.ID, run.From, err)
	}
	return nil
}

func (s *Session) input(o StartOptions) (workflow string, input any) {
	queue := s.activityQueue(o.Run)
	if o.Matrix != nil {
		return workflows.WorkflowMatrix, workflows.MatrixInput{
			Run: o.Run, Queue: queue, Pipeline: o.Pipeline,
			Bundle: o.Matrix.Bundle, Cells: o.Matrix.Cells, MaxParallel: o.Matrix.MaxParallel,
		}
	}
	return workflows.WorkflowPipeline, workflows.Input{Run: o.Run, Pipeline: o.Pipeline, Queue: queue, Earlier: o.Earlier}
}

// activityQueue is where a run's activities are carried out: on this machine, where its repository and its folder are,
// wherever its instances live.
func (s *Session) activityQueue(run stage.Run) string {
	if run.Ground == GroundLocal || run.Ground == GroundKubernetes {
		return s.localQueue()
	}
	return ""
}

// workflowQueue is where a run's workflow is carried out: by any worker, or, where there is only one, on the queue of its
// activities: those then come back with the workflow's own tasks instead of by a queue (a fifth faster, measured).
func (s *Session) workflowQueue(run stage.Run) string {
	if queue := s.activityQueue(run); queue != "" && s.Embedded() {
		return queue
	}
	return Queue
}

// startOptions are those that a run's first and later executions share.
func (s *Session) startOptions(run stage.Run, pipeline string) client.StartWorkflowOptions {
	attributes := []temporal.SearchAttributeUpdate{
		keyword(workflows.AttributePipeline).ValueSet(pipeline),
		keyword(workflows.AttributeVerdict).ValueSet(stage.StatusRunning),
	}
	if run.Commit != "" {
		attributes = append(attributes, keyword(workflows.AttributeCommit).ValueSet(run.Commit))
	}
	if run.Suite != "" {
		attributes = append(attributes, keyword(workflows.AttributeSuite).ValueSet(run.Suite))
	}
	return client.StartWorkflowOptions{
		ID:        run.ID,
		TaskQueue: s.workflowQueue(run),
		// How long a workflow task of a killed worker holds its run up.
		WorkflowTaskTimeout:                      5 * time.Second,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		TypedSearchAttributes:                    temporal.NewSearchAttributes(attributes...),
	}
}

func keyword(name string) temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword(name)
}

// taken is the error for a run id that is in use or was.
func (s *Session) taken(ctx context.Context, id string) error {
	description, err := s.client.DescribeWorkflowExecution(ctx, id, "")
	if err == nil && description.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return fmt.Errorf("run %s: %w; follow it with `groundplan watch %s`, end it with `groundplan cancel %s`, or choose another id", id, ErrRunning, id, id)
	}
	return fmt.Errorf("run %s: %w by a run that has ended; go on with it by `groundplan resume %s` or choose another id", id, ErrExists, id)
}

// State asks the run where it stands. It needs a worker, also for a run that has ended.
func (h *Handle) State(ctx context.Context) (workflows.State, error) {
	var state workflows.State
	answer, err := h.session.client.QueryWorkflow(ctx, h.id, "", workflows.QueryState)
	if err == nil {
		err = answer.Get(&state)
	}
	if err != nil {
		return state, h.wrap("asking where it stands", err)
	}
	return state, nil
}

// Progress is the newest heartbeat of every stage under way; a stage that hasn't sent one yet is left out. For a matrix
// it is empty: ask its cells.
func (h *Handle) Progress(ctx context.Context) ([]stage.Progress, error) {
	description, err := h.session.client.DescribeWorkflowExecution(ctx, h.id, "")
	if err != nil {
		return nil, h.wrap("asking for its progress", err)
	}
	var all []stage.Progress
	for _, activity := range description.GetPendingActivities() {
		details := activity.GetHeartbeatDetails().GetPayloads()
		if len(details) == 0 {
			continue
		}
		var p stage.Progress
		if err := converter.GetDefaultDataConverter().FromPayload(details[0], &p); err != nil {
			return nil, fmt.Errorf("run %s: reading the heartbeat of %s: %w", h.id, activity.GetActivityType().GetName(), err)
		}
		all = append(all, p)
	}
	return all, nil
}

// Wait waits until the run has ended, over restarts of the services and take-overs, as long as the context allows. A run
// that was cancelled or ended by force has an Output too, as far as it came.
func (h *Handle) Wait(ctx context.Context) (workflows.Output, error) {
	var output workflows.Output
	err := retry(ctx, func() error {
		output = workflows.Output{}
		return h.session.client.GetWorkflow(ctx, h.id, "").Get(ctx, &output)
	})
	if err == nil {
		return output, nil
	}
	var ended *temporal.WorkflowExecutionError
	if errors.As(err, &ended) {
		return h.endedBadly(ctx, ended), nil
	}
	return output, h.wrap("waiting for its end", err)
}

// endedBadly is what a run came to that has no result.
func (h *Handle) endedBadly(ctx context.Context, ended *temporal.WorkflowExecutionError) workflows.Output {
	cause := ended.Unwrap()
	output := workflows.Output{Verdict: stage.Invalid, Reason: "the run's workflow failed: " + cause.Error()}
	var cancelled *temporal.CanceledError
	var terminated *temporal.TerminatedError
	switch {
	case errors.As(cause, &cancelled):
		if carried, ok := workflows.OutputOf(cancelled); ok {
			return carried
		}
		output = workflows.Output{Verdict: stage.Cancelled, Reason: "cancelled"}
	case errors.As(cause, &terminated):
		output = workflows.Output{Verdict: stage.Cancelled, Reason: "ended by force: nothing was cleaned up by the run itself"}
	}
	// The run's own account is better, where a worker can still give it.
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if state, err := h.State(asking); err == nil && state.Output != nil && state.Output.Verdict != "" {
		return *state.Output
	}
	return output
}

// Cancel asks the run to end: what it runs is ended, its placement released. Wait tells when that is done.
func (h *Handle) Cancel(ctx context.Context) error {
	if err := h.session.client.CancelWorkflow(ctx, h.id, ""); err != nil {
		return h.wrap("cancelling it", err)
	}
	return nil
}

// Decide says how a held run goes on. A run that doesn't hold refuses, with the reason.
func (h *Handle) Decide(ctx context.Context, d workflows.Decision) error {
	update, err := h.session.client.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: h.id, UpdateName: workflows.UpdateDecide, Args: []any{d}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = update.Get(ctx, nil)
	}
	if err != nil {
		return h.wrap("deciding to "+d.Action, err)
	}
	return nil
}

// wrap says which run an error is about, and turns an unknown id into ErrUnknown.
func (h *Handle) wrap(doing string, err error) error {
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) {
		return fmt.Errorf("run %s: %s: %w: %w", h.id, doing, ErrUnknown, err)
	}
	return fmt.Errorf("run %s: %s: %w", h.id, doing, err)
}
