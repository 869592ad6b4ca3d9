package worker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// Filter says which runs to list; an empty field takes all.
type Filter struct {
	Pipeline, Suite, Commit string
	// Verdict is a stage.Verdict, Status one of stage.StatusRunning, StatusHolding and StatusEnded.
	Verdict stage.Verdict
	Status  string
	// Cells includes the child runs of matrices.
	Cells bool
	// Limit is how many of the newest are listed; 0: all.
	Limit int
}

// Row is one run of a list.
type Row struct {
	ID       string        `json:"id"`
	Pipeline string        `json:"pipeline"`
	Status   string        `json:"status"`
	Verdict  stage.Verdict `json:"verdict,omitempty"`
	// Reason is known for runs whose record is on this machine.
	Reason string `json:"reason,omitempty"`
	// Stage is the one under way, or the one that holds.
	Stage   string    `json:"stage,omitempty"`
	Commit  string    `json:"commit,omitempty"`
	Suite   string    `json:"suite,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Parent is the matrix run that a cell belongs to.
	Parent string `json:"parent,omitempty"`
}

// List gives the runs that Temporal and this home's run folders know, newest first. Temporal's word counts for what is
// under way, the record's for what has ended. A run folder that can't be read is left out.
func (s *Session) List(ctx context.Context, f Filter) ([]Row, error) {
	known, err := s.visible(ctx)
	if err != nil {
		return nil, err
	}
	rows := map[string]Row{}
	for _, row := range known { // the newest execution of an id comes first
		if _, seen := rows[row.ID]; !seen {
			rows[row.ID] = row
		}
	}
	records, _ := s.config.Home.List() // its error names folders that can't be read
	for _, record := range records {
		rows[record.ID] = merge(rows[record.ID], record)
	}
	var list []Row
	for _, row := range rows {
		if f.takes(row) {
			list = append(list, row)
		}
	}
	slices.SortFunc(list, func(a, b Row) int {
		return cmp.Or(b.Started.Compare(a.Started), strings.Compare(a.ID, b.ID))
	})
	if f.Limit > 0 && len(list) > f.Limit {
		list = list[:f.Limit]
	}
	return list, nil
}

// merge adds what a run's record says to what Temporal says; row is zero when that doesn't know the run (any more).
func merge(row Row, record runs.Record) Row {
	if row.ID != "" && row.Status != stage.StatusEnded {
		row.Reason = record.Reason
		return row
	}
	if row.ID == "" && record.Status != stage.StatusEnded {
		// Nobody carries it through any more: its services' database is gone.
		record.Status, record.Verdict = stage.StatusEnded, cmp.Or(record.Verdict, stage.Invalid)
	}
	if row.ID != "" && record.Status != stage.StatusEnded {
		return row // it was ended by force: the record could not be written
	}
	return Row{
		ID: record.ID, Pipeline: record.Pipeline, Status: record.Status, Verdict: record.Verdict, Reason: record.Reason,
		Commit: record.Commit, Suite: record.Suite, Started: record.Started, Ended: record.Ended, Parent: row.Parent,
	}
}

func (f Filter) takes(row Row) bool {
	return (f.Pipeline == "" || f.Pipeline == row.Pipeline) &&
		(f.Suite == "" || f.Suite == row.Suite) &&
		(f.Commit == "" || f.Commit == row.Commit) &&
		(f.Verdict == "" || f.Verdict == row.Verdict) &&
		(f.Status == "" || f.Status == row.Status) &&
		(f.Cells || row.Parent == "")
}

// visible are all executions that Temporal knows, newest first.
func (s *Session) visible(ctx context.Context) ([]Row, error) {
	query := fmt.Sprintf("WorkflowType IN ('%s', '%s')", workflows.WorkflowPipeline, workflows.WorkflowMatrix)
	var rows []Row
	var token []byte
	for {
		var page *workflowservice.ListWorkflowExecutionsResponse
		err := retry(ctx, func() (err error) {
			page, err = s.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
				Namespace: s.config.Namespace, Query: query, PageSize: 1000, NextPageToken: token,
			})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("listing runs: %w", err)
		}
		for _, e := range page.GetExecutions() {
			rows = append(rows, row(e))
		}
		if token = page.GetNextPageToken(); len(token) == 0 {
			slices.SortStableFunc(rows, func(a, b Row) int { return b.Started.Compare(a.Started) })
			return rows, nil
		}
	}
}

func row(e *workflowpb.WorkflowExecutionInfo) Row {
	attribute := func(name string) string { return text(e.GetSearchAttributes().GetIndexedFields()[name]) }
	r := Row{
		ID:       e.GetExecution().GetWorkflowId(),
		Pipeline: attribute(workflows.AttributePipeline),
		Stage:    attribute(workflows.AttributeStage),
		Commit:   attribute(workflows.AttributeCommit),
		Suite:    attribute(workflows.AttributeSuite),
		Started:  e.GetStartTime().AsTime(),
		Parent:   e.GetParentExecution().GetWorkflowId(),
	}
	if strings.HasPrefix(r.Parent, workflows.SuitePrefix) {
		r.Parent = "" // a turn of a suite, not a matrix
	}
	said := attribute(workflows.AttributeVerdict)
	if e.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		r.Status = stage.StatusRunning
		if said == stage.StatusHolding {
			r.Status = said
		}
		return r
	}
	r.Status, r.Stage, r.Ended = stage.StatusEnded, "", e.GetCloseTime().AsTime()
	r.Verdict = stage.Verdict(said)
	if said == stage.StatusRunning || said == stage.StatusHolding || said == "" { // it could not say any more
		r.Verdict = stage.Invalid
		if e.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_FAILED {
			r.Verdict = stage.Cancelled
		}
	}
	return r
}

// text is a search attribute's value; empty when it is not set.
func text(p *commonpb.Payload) string {
	if p == nil {
		return ""
	}
	var value string
	if err := converter.GetDefaultDataConverter().FromPayload(p, &value); err == nil {
		return value
	}
	var list []string // some stores give a keyword as a list of one
	if err := converter.GetDefaultDataConverter().FromPayload(p, &list); err == nil {
		return strings.Join(list, ", ")
	}
	return ""
}
