package workflows

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
)

const (
	// cellsPerExecution bounds the history: a cell takes about 15 events, of the 51,200 that a history may have.
	cellsPerExecution = 500
	// mostParallel is far below the 2,000 children that may be pending at once.
	mostParallel = 500
	// longestCellReason is in bytes; the whole sentence is in the child's own record.
	longestCellReason = 300
	// mostCellReasons is of how many cells that did not pass the reason is kept.
	mostCellReasons = 200
	// mostCellBytes is about what the cells of a record may take: a payload may have 2 MB, and the pipeline is in it too.
	mostCellBytes = 1_300_000
)

// RunMatrix runs every cell of a matrix as a child run of its own, at most MaxParallel at once, each resolved when its
// turn comes. Its verdict is the worst of its cells: cancelled, then invalid, failed and passed. A cell that doesn't pass
// doesn't keep the others back. Cancelling the matrix cancels the cells that run, waits until they have released what
// they held, and closes as Canceled as RunPipeline does; cancelling one child only ends that cell.
//
// A long matrix continues as new between cells, so that its history stays far below the limit.
func RunMatrix(ctx workflow.Context, in MatrixInput) (Output, error) {
	m := newMatrix(ctx, in)
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (State, error) { return m.state, nil }); err != nil {
		return Output{}, fmt.Errorf("answering queries: %w", err)
	}
	if err := checkMatrix(in); err != nil {
		return m.end(ctx, stage.Invalid, "invalid: "+err.Error())
	}
	m.mark(ctx, stage.StatusRunning)
	m.recording = startRecord(ctx, in.Queue, m.record(stage.StatusRunning))
	m.runCells(ctx)
	if ctx.Err() == nil && len(m.done) < len(in.Cells) {
		_ = m.recording.Get(ctx, nil) // the next execution writes it again
		return Output{}, workflow.NewContinueAsNewError(ctx, WorkflowMatrix, m.next())
	}
	verdict, reason := m.verdict()
	return m.end(ctx, verdict, reason)
}

// matrix is one execution of RunMatrix.
type matrix struct {
	in        MatrixInput
	state     State
	done      map[int]CellDone // by cell, from 1
	passed    int              // how many of them passed
	turn      int              // the cell whose turn was last
	begun     int              // cells begun by this execution
	started   time.Time
	recording workflow.Future
	marked    map[string]string
}

func newMatrix(ctx workflow.Context, in MatrixInput) *matrix {
	m := &matrix{in: in, done: map[int]CellDone{}, started: in.Started, marked: map[string]string{}}
	if m.started.IsZero() {
		m.started = workflow.Now(ctx)
	}
	m.state.Status = stage.StatusRunning
	for cell := range len(in.Cells) {
		m.state.Stages = append(m.state.Stages, StageState{Name: m.run(cell + 1), Phase: PhasePending})
	}
	for _, d := range in.Done {
		if 1 <= d.Cell && d.Cell <= len(in.Cells) {
			m.finish(d)
		}
	}
	return m
}

func checkMatrix(in MatrixInput) error {
	switch {
	case in.Run.ID == "":
		return errors.New("the input names no run")
	case len(in.Cells) == 0:
		return errors.New("the matrix has no cells")
	}
	return nil
}

// run is the run id of a cell's child.
func (m *matrix) run(cell int) string { return m.in.Run.ID + "." + strconv.Itoa(cell) }

// runCells returns when every cell has ended, or when those that began have and no more may begin.
func (m *matrix) runCells(ctx workflow.Context) {
	all := workflow.NewWaitGroup(ctx)
	for range min(max(m.in.MaxParallel, 1), mostParallel, len(m.in.Cells)) {
		all.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer all.Done()
			for cell := m.take(ctx); cell > 0; cell = m.take(ctx) {
				m.runCell(ctx, cell)
			}
		})
	}
	all.Wait(ctx)
}

// take gives out the next cell; 0 when there is none, or none may begin any more.
func (m *matrix) take(ctx workflow.Context) int {
	if ctx.Err() != nil || m.begun >= cellsPerExecution || workflow.GetInfo(ctx).GetContinueAsNewSuggested() && m.begun > 0 {
		return 0
	}
	for m.turn < len(m.in.Cells) {
		m.turn++
		if _, done := m.done[m.turn]; !done {
			m.begun++
			return m.turn
		}
	}
	return 0
}

// runCell resolves a cell and runs it to its end.
func (m *matrix) runCell(ctx workflow.Context, cell int) {
	row := &m.state.Stages[cell-1]
	row.Phase, row.Started = PhaseRunning, workflow.Now(ctx)
	out, err := m.runChild(ctx, cell)
	if err != nil {
		out = unfinished(ctx, "cell", err)
	}
	m.finish(CellDone{Cell: cell, Verdict: out.Verdict, Reason: out.Reason})
	row.Ended = workflow.Now(ctx)
}

func (m *matrix) runChild(ctx workflow.Context, cell int) (Output, error) {
	child := Input{Run: m.in.Run, Queue: m.in.Queue, HeartbeatTimeout: m.in.HeartbeatTimeout}
	child.Run.ID = m.run(cell)
	resolving := workflow.WithActivityOptions(ctx, housekeeping(m.in.Queue, resolveTimeout, 0))
	err := workflow.ExecuteActivity(resolving, stage.ActivityResolve, stage.Resolve{
		Bundle: m.in.Bundle, Cell: m.in.Cells[cell-1],
	}).Get(ctx, &child.Pipeline)
	if err != nil {
		return Output{}, err
	}
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            child.Run.ID,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WaitForCancellation:   true,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
	})
	var out Output
	err = workflow.ExecuteChildWorkflow(ctx, WorkflowPipeline, child).Get(ctx, &out)
	return out, err
}

// unfinished makes an output out of the error that a cell of a matrix or a pipeline of a suite ended with.
func unfinished(ctx workflow.Context, what string, err error) Output {
	if out, ok := OutputOf(err); ok {
		return out
	}
	if ctx.Err() != nil || temporal.IsCanceledError(err) {
		return Output{Verdict: stage.Cancelled, Reason: "cancelled: before it could say where it stood"}
	}
	return Output{Verdict: stage.Invalid, Reason: "invalid: the " + what + " could not be run: " + explain(err)}
}

// finish notes what a cell came to.
func (m *matrix) finish(d CellDone) {
	if d.Verdict == stage.Passed {
		m.passed++
	}
	if d.Verdict == stage.Passed || len(m.done)-m.passed >= mostCellReasons {
		d.Reason = ""
	}
	d.Reason = shorten(d.Reason, longestCellReason)
	m.done[d.Cell] = d
	row := &m.state.Stages[d.Cell-1]
	row.Phase, row.Verdict, row.Reason = PhaseEnded, d.Verdict, d.Reason
}

// next is the input of the execution that goes on with the cells that are left.
func (m *matrix) next() MatrixInput {
	next := m.in
	next.Started = m.started
	next.Done = nil
	for _, cell := range workflow.DeterministicKeys(m.done) {
		next.Done = append(next.Done, m.done[cell])
	}
	return next
}

// verdict is the worst of all cells.
func (m *matrix) verdict() (stage.Verdict, string) {
	total := count(len(m.in.Cells), "cell")
	if len(m.done) < len(m.in.Cells) { // only a cancelled matrix ends before all of its cells
		return stage.Cancelled, fmt.Sprintf("cancelled: %d of %s had passed", m.passed, total)
	}
	var bad []CellDone // the worst first
	for _, verdict := range []stage.Verdict{stage.Cancelled, stage.Invalid, stage.Failed} {
		for _, cell := range workflow.DeterministicKeys(m.done) {
			if m.done[cell].Verdict == verdict {
				bad = append(bad, m.done[cell])
			}
		}
	}
	if len(bad) == 0 {
		return stage.Passed, "passed: " + total
	}
	var names []string
	for _, d := range bad[:min(len(bad), 10)] {
		names = append(names, m.run(d.Cell))
	}
	if len(bad) > 10 {
		names = append(names, "…")
	}
	reason := fmt.Sprintf("%s: %d of %s did not pass (%s)", bad[0].Verdict, len(bad), total, strings.Join(names, ", "))
	if bad[0].Reason != "" {
		reason += fmt.Sprintf("; %s: %s", names[0], bad[0].Reason)
	}
	return bad[0].Verdict, reason
}

// end writes the record and closes the matrix.
func (m *matrix) end(ctx workflow.Context, verdict stage.Verdict, reason string) (Output, error) {
	closed := ctx.Err()
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	record := m.record(stage.StatusEnded)
	record.Verdict, record.Reason, record.Ended = verdict, reason, workflow.Now(ctx)
	if m.recording != nil {
		_ = m.recording.Get(ctx, nil) // whatever became of it, this record replaces it
	}
	if err := startRecord(ctx, m.in.Queue, record).Get(ctx, nil); err != nil {
		reason += "; its record could not be written: " + explain(err)
	}
	out := Output{Verdict: verdict, Reason: reason, Results: record.Results, Cells: record.Cells}
	told := out
	told.Cells = nil // the state has a row for each
	m.state.Status, m.state.Output = stage.StatusEnded, &told
	m.mark(ctx, string(verdict))
	if verdict == stage.Cancelled && closed != nil {
		return out, temporal.NewCanceledError(out)
	}
	return out, nil
}

func (m *matrix) record(status string) stage.Record {
	return stage.Record{
		Run: m.in.Run, Pipeline: m.in.Pipeline, Status: status, Started: m.started,
		Results: []stage.Result{}, Cells: m.cells(status),
	}
}

// cells has one row per cell. Where they would not fit into a payload, those that
// passed go without their values first, and then all go without values and reasons: each has a record of its own.
func (m *matrix) cells(status string) []stage.Cell {
	cells := make([]stage.Cell, 0, len(m.in.Cells))
	size := 0
	for i, values := range m.in.Cells {
		d, done := m.done[i+1]
		if !done && status == stage.StatusEnded {
			d.Verdict = stage.Skipped
		}
		cells = append(cells, stage.Cell{Run: m.run(i + 1), Values: values, Verdict: d.Verdict, Reason: d.Reason})
		size += cellBytes(values) + len(d.Reason) + len(m.run(i+1)) + 50
	}
	for i := range cells {
		if size > mostCellBytes && cells[i].Verdict == stage.Passed {
			size -= cellBytes(cells[i].Values)
			cells[i].Values = nil
		}
	}
	for i := range cells {
		if size > mostCellBytes {
			size -= cellBytes(cells[i].Values) + len(cells[i].Reason)
			cells[i].Values, cells[i].Reason = nil, ""
		}
	}
	return cells
}

// cellBytes is about what a cell's values take in JSON.
func cellBytes(values map[string]any) int {
	size := 0
	for _, axis := range workflow.DeterministicKeys(values) {
		size += len(axis) + len(fmt.Sprint(values[axis])) + 6
	}
	return size
}

func (m *matrix) mark(ctx workflow.Context, verdict string) {
	mark(ctx, m.marked, [][2]string{
		{AttributePipeline, m.in.Pipeline.Name},
		{AttributeCommit, m.in.Run.Commit},
		{AttributeSuite, m.in.Run.Suite},
		{AttributeVerdict, verdict},
	})
}
