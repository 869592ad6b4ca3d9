package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// turnsUnderWay are the workflows of a suite's turns that have not ended. A schedule knows only of those that keep others
// back (known), and the list of workflows comes a moment late: one completes the other.
func (s *Session) turnsUnderWay(ctx context.Context, name string, known []client.ScheduleWorkflowExecution) ([]*commonpb.WorkflowExecution, error) {
	var all []*commonpb.WorkflowExecution
	for _, w := range known {
		all = append(all, &commonpb.WorkflowExecution{WorkflowId: w.WorkflowID, RunId: w.FirstExecutionRunID})
	}
	found, err := s.turnsWhere(ctx, fmt.Sprintf("%s = '%s' AND ExecutionStatus = 'Running'", workflows.AttributeSuite, name))
	for _, e := range found {
		same := func(w *commonpb.WorkflowExecution) bool { return w.GetRunId() == e.GetExecution().GetRunId() }
		if !slices.ContainsFunc(all, same) {
			all = append(all, e.GetExecution())
		}
	}
	return all, err
}

// turnsWhere are the workflows of turns that a visibility query gives, at most 100.
func (s *Session) turnsWhere(ctx context.Context, query string) ([]*workflowpb.WorkflowExecutionInfo, error) {
	var page *workflowservice.ListWorkflowExecutionsResponse
	err := retry(ctx, func() (err error) {
		page, err = s.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: s.config.Namespace, PageSize: 100, Query: fmt.Sprintf("WorkflowType = '%s' AND %s", workflows.WorkflowSuite, query),
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing turns of suites: %w", err)
	}
	return page.GetExecutions(), nil
}

// unheardOf is how long a turn may be missing from the list of workflows before it counts as lost.
const unheardOf = time.Minute

// mendTurns ends the records of turns that could not do so themselves: they were ended by force, as `overlap:
// terminate-other` does, or the database that they were in is gone.
func (s *Session) mendTurns(ctx context.Context, name string, underWay []*commonpb.WorkflowExecution) error {
	turns, _ := s.config.Home.ReadSuiteTurns(name) // its error names turns that can't be read
	for _, t := range turns {
		alive := func(e *commonpb.WorkflowExecution) bool { return e.GetRunId() == t.Execution }
		if t.Status == stage.StatusEnded || slices.ContainsFunc(underWay, alive) {
			continue
		}
		found, err := s.turnsWhere(ctx, fmt.Sprintf("RunId = '%s'", t.Execution))
		if err != nil {
			return err
		}
		ended := time.Now()
		switch {
		case len(found) == 0 && time.Since(t.Started) < unheardOf:
			continue
		case len(found) > 0 && found[0].GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
			continue
		case len(found) > 0:
			ended = found[0].GetCloseTime().AsTime()
		}
		// A turn writes its record before it ends: what it says now counts.
		if t, err = s.config.Home.ReadSuiteTurn(name, t.ID); err != nil || t.Status == stage.StatusEnded {
			continue
		}
		if err := s.config.Home.WriteSuiteTurn(byForce(t, ended)); err != nil {
			return err
		}
	}
	return nil
}

// byForce is the record of a turn that somebody or something ended by force.
func byForce(t runs.SuiteTurn, ended time.Time) runs.SuiteTurn {
	t.Status, t.Verdict, t.Ended = stage.StatusEnded, stage.Cancelled, ended.UTC()
	t.Reason = "cancelled: the turn was ended by force, and its run was asked to end"
	for i := range t.Runs {
		r := &t.Runs[i]
		switch {
		case r.Verdict != "":
		case r.Run != "":
			r.Verdict, r.Reason, r.Ended = stage.Cancelled, "cancelled: with the turn, which was ended by force", ended.UTC()
		default:
			r.Verdict, r.Reason = stage.Skipped, "not run: the turn was ended by force"
		}
	}
	return t
}
