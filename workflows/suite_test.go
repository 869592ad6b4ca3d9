package workflows

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

// suiteActivities are the activities of a suite as they are where nothing goes wrong.
func suiteActivities(register func(name string, fn any), p pipelines.Resolved) {
	register(stage.ActivitySuiteBegin, func(_ context.Context, in stage.SuiteBegin) (stage.SuiteBegun, error) {
		return stage.SuiteBegun{ID: testTurn, Commit: "abc123", Trigger: "schedule", Due: in.Turn.Due}, nil
	})
	register(stage.ActivitySuiteLoad, func(_ context.Context, in stage.SuiteLoad) (stage.SuiteLoaded, error) {
		return loadedAs(p, in.File), nil
	})
	register(stage.ActivitySuiteRecord, func(_ context.Context, in stage.Turn) (stage.SuiteRecorded, error) {
		if in.Status == stage.StatusEnded {
			return stage.SuiteRecorded{News: []string{string(in.Verdict)}}, nil
		}
		return stage.SuiteRecorded{}, nil
	})
	register(stage.ActivitySuiteTell, func(context.Context, stage.SuiteTell) error { return nil })
	register(stage.ActivitySuiteTold, func(context.Context, stage.SuiteTold) error { return nil })
}

// loadedAs is what a file holds: its name says whether that is a matrix.
func loadedAs(p pipelines.Resolved, file string) stage.SuiteLoaded {
	p.Name = strings.TrimSuffix(file, ".yaml")
	loaded := stage.SuiteLoaded{Pipeline: p}
	if p.Name == "matrix" {
		loaded.Bundle = &pipelines.Bundle{File: file}
		loaded.Cells = []map[string]any{{"n": "1"}, {"n": "2"}}
		loaded.MaxParallel = 2
	}
	return loaded
}

func nameOfSuite(name string, args converter.EncodedValues) string {
	switch name {
	case stage.ActivitySuiteBegin:
		var in stage.SuiteBegin
		_ = args.Get(&in)
		return fmt.Sprintf("%s due %s, %d pipelines", name, in.Turn.Due.Format(time.RFC3339), len(in.Turn.Runs))
	case stage.ActivitySuiteLoad:
		var in stage.SuiteLoad
		_ = args.Get(&in)
		return name + " " + in.File
	case stage.ActivitySuiteRecord:
		var in stage.Turn
		_ = args.Get(&in)
		text := name + " " + in.Status
		for _, r := range in.Runs {
			at := "pending"
			switch {
			case r.Verdict != "":
				at = string(r.Verdict)
			case r.Run != "":
				at = r.Run
			}
			text += fmt.Sprintf(" %s=%s", r.Pipeline, at)
		}
		return text
	case stage.ActivitySuiteTell:
		var in stage.SuiteTell
		_ = args.Get(&in)
		return fmt.Sprintf("%s %s %s", name, in.Turn, in.Notify.Webhook)
	default:
		var in stage.SuiteTold
		_ = args.Get(&in)
		return fmt.Sprintf("%s [%s]", name, in.Text)
	}
}

// answerSuite makes the next call of an activity of a suite be answered so.
func (c *course) answerSuite(name string, a answer) {
	bare := func() error { _, err := reply(a, stage.Input{}); return err }
	var fn any
	switch name {
	case stage.ActivitySuiteBegin:
		fn = func(context.Context, stage.SuiteBegin) (stage.SuiteBegun, error) { return stage.SuiteBegun{}, bare() }
	case stage.ActivitySuiteLoad:
		fn = func(_ context.Context, in stage.SuiteLoad) (stage.SuiteLoaded, error) {
			if a.what == "fault" {
				return stage.SuiteLoaded{Fault: a.reason}, nil
			}
			return loadedAs(c.s.in.Pipeline, in.File), bare()
		}
	case stage.ActivitySuiteRecord:
		fn = func(context.Context, stage.Turn) (stage.SuiteRecorded, error) { return stage.SuiteRecorded{}, bare() }
	case stage.ActivitySuiteTell:
		fn = func(context.Context, stage.SuiteTell) error { return bare() }
	}
	c.env.OnActivity(name, mock.Anything, mock.Anything).After(a.takes).Return(fn).Once()
}

// tellTurn tells what a turn of a suite came to.
func (c *course) tellTurn(text *bytes.Buffer) {
	var out SuiteOutput
	err := c.env.GetWorkflowError()
	if err == nil {
		fmt.Fprintln(text, "completed")
		err = c.env.GetWorkflowResult(&out)
	} else if carried, ok := SuiteOutputOf(err); ok {
		fmt.Fprintln(text, "closed as cancelled")
		out, err = carried, nil
	}
	if err != nil {
		fmt.Fprintln(text, "error", err)
		return
	}
	fmt.Fprintf(text, "%s %s: %s; news %v\n", out.Suite, out.Turn, out.Reason, out.News)
	if !strings.HasPrefix(out.Reason, string(out.Verdict)) {
		fmt.Fprintf(text, "but the verdict is %s\n", out.Verdict)
	}
	value, err := c.env.QueryWorkflow(QueryTurn)
	var state stage.Turn
	if err == nil {
		err = value.Get(&state)
	}
	if err != nil {
		fmt.Fprintln(text, "error", err)
		return
	}
	for _, r := range state.Runs {
		fmt.Fprintf(text, "  %s %s: %s %s\n", r.Pipeline, r.Run, r.Verdict, r.Reason)
	}
	fmt.Fprintf(text, "finally %s %s by %s\n", state.Status, state.Verdict, state.Trigger)
}

// TestTellSuite: a webhook is called again and again for a day, and what became of it is said in the end.
func TestTellSuite(t *testing.T) {
	for name, c := range map[string]struct {
		fails func(try int) error
		least int
		told  string
		took  time.Duration
	}{
		"taken at once":    {func(int) error { return nil }, 1, "", 0},
		"taken in the end": {func(try int) error { return failsUntil(try, 5) }, 5, "", time.Minute},
		"refused":          {func(int) error { return temporal.NewNonRetryableApplicationError("it answered 404", "", nil) }, 1, "not told: it answered 404", 0},
		// The environment of this test gives up after ten tries; the real one goes on for a day.
		"away": {func(int) error { return errors.New("it answered 503") }, 10, "not told: it answered 503", 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var suite testsuite.WorkflowTestSuite
			suite.SetLogger(silent())
			env := suite.NewTestWorkflowEnvironment()
			env.SetStartTime(epoch)
			tries, told := 0, ""
			env.RegisterActivityWithOptions(func(context.Context, stage.SuiteTell) error { tries++; return c.fails(tries) },
				activity.RegisterOptions{Name: stage.ActivitySuiteTell})
			env.RegisterActivityWithOptions(func(_ context.Context, in stage.SuiteTold) error { told = in.Text; return nil },
				activity.RegisterOptions{Name: stage.ActivitySuiteTold})
			Register(env)
			env.ExecuteWorkflow(WorkflowTell, stage.SuiteTell{Suite: "nightly", Turn: testTurn})
			if err := env.GetWorkflowError(); err != nil || tries < c.least || !strings.Contains(told, c.told) || (c.told == "") != (told == "") {
				t.Errorf("%v after %d tries; told %q", err, tries, told)
			}
			if took := env.Now().Sub(epoch); took < c.took || took > 25*time.Hour {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func failsUntil(try, last int) error {
	if try < last {
		return errors.New("not yet")
	}
	return nil
}

// TestSuiteHandsOn: what a run of a suite is started with.
func TestSuiteHandsOn(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(silent())
	env := suite.NewTestWorkflowEnvironment()
	Register(env)
	with := &pipelines.Compare{With: "last-success", Runs: 5}
	var loads []stage.SuiteLoad
	register := func(name string, fn any) { env.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: name}) }
	suiteActivities(register, pipelines.Resolved{Name: "p"})
	env.OnActivity(stage.ActivitySuiteLoad, mock.Anything, mock.Anything).Return(func(_ context.Context, in stage.SuiteLoad) (stage.SuiteLoaded, error) {
		loads = append(loads, in)
		return loadedAs(pipelines.Resolved{}, in.File), nil
	})
	var ran []stage.Run
	env.OnWorkflow(WorkflowPipeline, mock.Anything, mock.Anything).Return(func(_ workflow.Context, in Input) (Output, error) {
		ran = append(ran, in.Run)
		return Output{Verdict: stage.Passed}, nil
	})
	env.OnWorkflow(WorkflowMatrix, mock.Anything, mock.Anything).Return(func(_ workflow.Context, in MatrixInput) (Output, error) {
		ran = append(ran, in.Run)
		if len(in.Cells) != 2 || in.MaxParallel != 2 || in.Bundle.File != "matrix.yaml" {
			t.Errorf("the matrix is %+v", in)
		}
		return Output{Verdict: stage.Passed}, nil
	})
	env.ExecuteWorkflow(WorkflowSuite, SuiteInput{
		Suite: pipelines.Suite{Name: "nightly", Compare: with, Pipelines: []pipelines.SuitePipeline{
			{File: "a.yaml", Set: map[string]string{"n": "2"}}, {File: "matrix.yaml"},
		}},
		Ground: "kubernetes", Root: "/repo", Context: "c", Namespace: "n", Queue: "q",
	})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	want := stage.Run{ID: "nightly.20260101-000000.1", Ground: "kubernetes", Root: "/repo", Commit: "abc123", Suite: "nightly", Turn: testTurn, Context: "c", Namespace: "n"}
	other := want
	other.ID = "nightly.20260101-000000.2"
	if !slices.Equal(ran, []stage.Run{want, other}) {
		t.Errorf("ran %+v", ran)
	}
	if len(loads) != 2 || loads[0].Root != "/repo" || loads[0].Set["n"] != "2" || loads[0].Compare.Runs != 5 || loads[1].File != "matrix.yaml" {
		t.Errorf("loaded %+v", loads)
	}
}
