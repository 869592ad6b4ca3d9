package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/groundplan/groundplan/workflows"
)

// recover takes up what an earlier worker of this home left when it was killed: its started activities are failed with
// an error that has them tried again at once, heartbeat details kept, instead of when their heartbeats are missed. To be
// called under the home's lock, before the worker polls.
func (s *Session) recover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	running := fmt.Sprintf("ExecutionStatus = 'Running' AND WorkflowType IN ('%s', '%s', '%s', '%s')",
		workflows.WorkflowPipeline, workflows.WorkflowMatrix, workflows.WorkflowSuite, workflows.WorkflowTell)
	var faults []error
	err := s.eachRun(ctx, running, func(id, run string) {
		if err := s.recoverRun(ctx, id, run); err != nil {
			faults = append(faults, fmt.Errorf("run %s: %w", id, err))
		}
	})
	return errors.Join(append(faults, err)...)
}

// eachRun calls for every workflow that a visibility query gives.
func (s *Session) eachRun(ctx context.Context, query string, each func(id, run string)) error {
	var token []byte
	for {
		page, err := s.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: s.config.Namespace, Query: query, PageSize: 500, NextPageToken: token,
		})
		if err != nil {
			return fmt.Errorf("listing runs: %w", err)
		}
		for _, e := range page.GetExecutions() {
			each(e.GetExecution().GetWorkflowId(), e.GetExecution().GetRunId())
		}
		if token = page.GetNextPageToken(); len(token) == 0 {
			return nil
		}
	}
}

func (s *Session) recoverRun(ctx context.Context, id, run string) error {
	description, err := s.client.DescribeWorkflowExecution(ctx, id, run)
	if err != nil {
		return err
	}
	left := temporal.NewApplicationErrorWithOptions("the worker that carried this out was killed", "WorkerLost",
		temporal.ApplicationErrorOptions{NextRetryDelay: time.Millisecond})
	var faults []error
	for _, activity := range description.GetPendingActivities() {
		if activity.GetState() == enumspb.PENDING_ACTIVITY_STATE_SCHEDULED || !s.dead(activity.GetLastWorkerIdentity()) {
			continue
		}
		err := s.client.CompleteActivityByID(ctx, s.config.Namespace, id, run, activity.GetActivityId(), nil, left)
		var gone *serviceerror.NotFound
		if err != nil && !errors.As(err, &gone) { // gone: it timed out meanwhile
			faults = append(faults, fmt.Errorf("failing activity %s of a dead worker: %w", activity.GetActivityType().GetName(), err))
			continue
		}
		s.log.Info("took up an activity of a dead worker", "run", id, "activity", activity.GetActivityType().GetName(),
			"worker", activity.GetLastWorkerIdentity())
	}
	// Its next workflow task would wait for the dead worker's own queue to be found empty.
	_, err = s.client.WorkflowService().ResetStickyTaskQueue(ctx, &workflowservice.ResetStickyTaskQueueRequest{
		Namespace: s.config.Namespace, Execution: description.GetWorkflowExecutionInfo().GetExecution(),
	})
	return errors.Join(append(faults, err)...)
}

// dead says whether an identity is that of an earlier worker of this home on this machine.
func (s *Session) dead(worker string) bool {
	return strings.HasPrefix(worker, identityPrefix(s.config.Home)) && worker != identity(s.config.Home)
}
