package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/converter"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/workflows"
)

// Resume goes on with a run that has ended: a new execution with the same id, the same pipeline and the earlier results
// that still hold. from names the stage to begin with; empty: those that did not pass. What needs a stage that is run
// again is run again too. The placement is gone, so that stages that schedule or shape the network are run again as well
// where a run stage follows. A matrix runs the cells that did not pass again. A run under way gives ErrRunning.
func (h *Handle) Resume(ctx context.Context, from string) error {
	var began *historypb.HistoryEvent
	err := retry(ctx, func() (err error) {
		began, err = h.firstEvent(ctx)
		return err
	})
	if err != nil {
		return h.forgotten(h.wrap("resuming it", err))
	}
	ended, err := h.ended(ctx)
	if err != nil {
		return err
	}
	attributes := began.GetWorkflowExecutionStartedEventAttributes()
	if attributes.GetWorkflowType().GetName() == workflows.WorkflowMatrix {
		return h.resumeMatrix(ctx, attributes.GetInput(), began.GetEventTime().AsTime(), ended, from)
	}
	return h.resumePipeline(ctx, attributes.GetInput(), began.GetEventTime().AsTime(), ended, from)
}

// ended is what a run that has ended came to.
func (h *Handle) ended(ctx context.Context) (workflows.Output, error) {
	description, err := h.session.client.DescribeWorkflowExecution(ctx, h.id, "")
	if err != nil {
		return workflows.Output{}, h.wrap("resuming it", err)
	}
	if description.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return workflows.Output{}, fmt.Errorf("run %s: %w; follow it with `groundplan watch %s`, or end it first with `groundplan cancel %s`", h.id, ErrRunning, h.id, h.id)
	}
	return h.Wait(ctx)
}

// forgotten explains the error about a run that only its folder tells of.
func (h *Handle) forgotten(err error) error {
	if _, missing := h.session.config.Home.Run(h.id).ReadRecord(); missing != nil || !errors.Is(err, ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w (its record is here, but its history is not: histories are kept for %d days, and a new version of the database begins anew); run the pipeline again under another id",
		err, int(historyKept.Hours()/24))
}

// firstEvent is how the newest execution was started.
func (h *Handle) firstEvent(ctx context.Context) (*historypb.HistoryEvent, error) {
	history := h.session.client.GetWorkflowHistory(ctx, h.id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	if !history.HasNext() {
		return nil, serviceerror.NewNotFound("its history is empty")
	}
	return history.Next()
}

func (h *Handle) resumePipeline(ctx context.Context, payload *commonpb.Payloads, began time.Time, ended workflows.Output, from string) error {
	var in workflows.Input
	if err := converter.GetDefaultDataConverter().FromPayloads(payload, &in); err != nil {
		return fmt.Errorf("run %s: reading what it was started with: %w", h.id, err)
	}
	results, tries := ended.Results, ended.Tries
	if results == nil { // it was ended by force and could not say
		results, tries = in.Earlier, in.Tries
	}
	held, again, err := stillHolds(in.Pipeline, results, from)
	if err != nil {
		return fmt.Errorf("run %s: %w", h.id, err)
	}
	in.Earlier, in.Tries = held, append(tries, again...)
	if in.Started.IsZero() {
		in.Started = began
	}
	in.Queue = h.session.activityQueue(in.Run)
	return h.execute(ctx, in.Run, in.Pipeline.Name, workflows.WorkflowPipeline, in)
}

func (h *Handle) resumeMatrix(ctx context.Context, payload *commonpb.Payloads, began time.Time, ended workflows.Output, from string) error {
	if from != "" {
		return fmt.Errorf("run %s is a matrix: a stage to begin with can be named for one of its cells (%s.1, …)", h.id, h.id)
	}
	var in workflows.MatrixInput
	if err := converter.GetDefaultDataConverter().FromPayloads(payload, &in); err != nil {
		return fmt.Errorf("run %s: reading what it was started with: %w", h.id, err)
	}
	in.Done = nil
	for _, c := range ended.Cells {
		number, err := strconv.Atoi(strings.TrimPrefix(c.Run, h.id+"."))
		if err == nil && c.Verdict == stage.Passed {
			in.Done = append(in.Done, workflows.CellDone{Cell: number, Verdict: c.Verdict, Reason: c.Reason})
		}
	}
	if len(in.Done) == len(in.Cells) {
		return fmt.Errorf("run %s: every cell passed: there is nothing to go on with", h.id)
	}
	if in.Started.IsZero() {
		in.Started = began
	}
	in.Queue = h.session.activityQueue(in.Run)
	return h.execute(ctx, in.Run, in.Pipeline.Name, workflows.WorkflowMatrix, in)
}

// execute starts the next execution of a run that has ended.
func (h *Handle) execute(ctx context.Context, run stage.Run, pipeline, workflow string, input any) error {
	release, err := holdRuns(ctx, h.session.config.Home, false)
	if err != nil {
		return fmt.Errorf("resuming run %s: %w", h.id, err)
	}
	defer release()
	options := h.session.startOptions(run, pipeline)
	options.WorkflowIDReusePolicy = enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
	_, err = h.session.client.ExecuteWorkflow(ctx, options, workflow, input)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &started) {
		return fmt.Errorf("run %s: %w: somebody else resumed it", h.id, ErrRunning)
	}
	if err != nil {
		return fmt.Errorf("resuming run %s: %w", h.id, err)
	}
	return nil
}

// stillHolds divides the results of a run that has ended into those that a resume keeps and those whose stages it runs
// again.
func stillHolds(p pipelines.Resolved, results []stage.Result, from string) (held, again []stage.Result, err error) {
	verdicts := map[string]stage.Verdict{}
	for _, r := range results {
		verdicts[r.Stage] = r.Verdict
	}
	redo, known := map[string]bool{}, from == ""
	for _, s := range p.Stages {
		known = known || s.Name == from
		switch verdicts[s.Name] {
		case stage.Passed:
			redo[s.Name] = s.Name == from
		case stage.Failed: // an answer: it is asked again only where nothing else is said
			redo[s.Name] = s.Name == from || from == ""
		default:
			redo[s.Name] = true
		}
	}
	if !known {
		return nil, nil, fmt.Errorf("the pipeline has no stage %q to begin with; it has %s", from, names(p.Stages))
	}
	spread(p.Stages, redo)
	replace(p.Stages, redo)
	if !slices.Contains(slices.Collect(maps.Values(redo)), true) {
		return nil, nil, errors.New("every stage passed: there is nothing to go on with, unless a stage to begin with is named")
	}
	for _, r := range results {
		if redo[r.Stage] {
			again = append(again, r)
		} else {
			held = append(held, r)
		}
	}
	return held, again, nil
}

// spread adds every stage that needs, over however many others, one that is run again. Needs stand before what needs
// them only in most files: it goes round until nothing is added.
func spread(stages []pipelines.Stage, redo map[string]bool) {
	for added := true; added; {
		added = false
		for _, s := range stages {
			if !redo[s.Name] && slices.ContainsFunc(s.Needs, func(need string) bool { return redo[need] }) {
				redo[s.Name], added = true, true
			}
		}
	}
}

// replace adds the stages that make the placement and its network, where a run stage will need them. What needed those
// keeps its result: it had its placement.
func replace(stages []pipelines.Stage, redo map[string]bool) {
	if !slices.ContainsFunc(stages, func(s pipelines.Stage) bool { return redo[s.Name] && s.Kind == pipelines.KindRun }) {
		return
	}
	for _, s := range stages {
		if s.Kind == pipelines.KindSchedule || s.Kind == pipelines.KindNetwork {
			redo[s.Name] = true
		}
	}
}

func names(stages []pipelines.Stage) string {
	var all []string
	for _, s := range stages {
		all = append(all, s.Name)
	}
	return strings.Join(all, ", ")
}
