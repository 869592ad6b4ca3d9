package workflows

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/mock"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
)

var (
	epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	built = map[string]stage.Artifact{"peer": {Name: "peer", Digest: "d1", Path: "/artifacts/d1/peer"}}
)

// TestStories plays every story in an environment that skips time, and compares the course of events.
func TestStories(t *testing.T) {
	for _, path := range stories(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			archive, s := readStory(t, path)
			got := play(t, s)
			if len(archive.Files) < 2 {
				archive.Files = append(archive.Files, txtar.File{Name: "course"})
			}
			if *update {
				archive.Files[1].Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(archive.Files[1].Data); got != want {
				t.Errorf("the story went another way (go test ./workflows -run TestStories -update writes it anew)\n--- want\n%s--- got\n%s", want, got)
			}
		})
	}
}

// play runs a story to its end and tells its course.
func play(t *testing.T, s story) string {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	env.SetStartTime(epoch)
	env.SetTestTimeout(time.Minute)
	env.SetContinueAsNewSuggested(s.suggest)
	if s.continued {
		env.SetContinuedExecutionRunID("the-one-before")
	}
	Register(env)
	c := &course{env: env, s: s, calls: map[string]*call{}}
	c.listen()
	c.script()
	for _, a := range s.actions {
		env.RegisterDelayedCallback(func() { c.act(a) }, a.at)
	}
	switch {
	case s.suite != nil:
		if err := env.SetTypedSearchAttributesOnStart(temporal.NewSearchAttributes(
			temporal.NewSearchAttributeKeyTime("TemporalScheduledStartTime").ValueSet(epoch))); err != nil {
			t.Fatal(err)
		}
		env.ExecuteWorkflow(WorkflowSuite, *s.suite)
	case s.matrix != nil:
		env.ExecuteWorkflow(WorkflowMatrix, *s.matrix)
	default:
		env.ExecuteWorkflow(WorkflowPipeline, s.in)
	}
	if !env.IsWorkflowCompleted() {
		t.Fatal("the workflow did not end")
	}
	return c.tell()
}

// course notes what a story leads to.
type course struct {
	env *testsuite.TestWorkflowEnvironment
	s   story

	lock  sync.Mutex
	calls map[string]*call // by run and activity id
	lines []line
	marks []string
}

// call is one activity as the workflow sees it: all tries of it by the server together.
type call struct {
	name  string
	begin time.Time
	tries int
}

// line is one line of a course.
type line struct {
	begin, end time.Duration
	text       string
}

func (c *course) since(at time.Time) time.Duration { return at.Sub(epoch).Round(time.Second) }

func (c *course) listen() {
	id := func(info *activity.Info) string { return info.WorkflowExecution.ID + "#" + info.ActivityID }
	note := func(info *activity.Info, outcome string) {
		c.lock.Lock()
		defer c.lock.Unlock()
		k := c.calls[id(info)]
		if k == nil { // cancelled before it began
			return
		}
		if k.tries > 1 {
			outcome += fmt.Sprintf(" (after %d tries)", k.tries)
		}
		c.lines = append(c.lines, line{c.since(k.begin), c.since(c.env.Now()), k.name + ": " + outcome})
		delete(c.calls, id(info))
	}
	c.env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, args converter.EncodedValues) {
		c.lock.Lock()
		defer c.lock.Unlock()
		k := c.calls[id(info)]
		if k == nil {
			k = &call{name: c.name(info, args), begin: c.env.Now()}
			c.calls[id(info)] = k
		}
		k.tries++
	})
	c.env.SetOnActivityCompletedListener(func(info *activity.Info, result converter.EncodedValue, err error) {
		note(info, outcomeOf(info.ActivityType.Name, result, err))
	})
	c.env.SetOnActivityCanceledListener(func(info *activity.Info) { note(info, "cancelled") })
	c.env.OnUpsertTypedSearchAttributes(mock.MatchedBy(func(a temporal.SearchAttributes) bool {
		c.mark(a)
		return true
	})).Return(nil)
}

// name says which activity was asked what.
func (c *course) name(info *activity.Info, args converter.EncodedValues) string {
	prefix := ""
	if id := info.WorkflowExecution.ID; strings.HasPrefix(id, testRun.ID+".") || strings.HasPrefix(id, testSuite+".") {
		prefix = id + "/"
	}
	if strings.HasPrefix(info.ActivityType.Name, "suite-") {
		return nameOfSuite(info.ActivityType.Name, args)
	}
	switch name := info.ActivityType.Name; name {
	case stage.ActivityRecord:
		var r stage.Record
		_ = args.Get(&r)
		text := prefix + "record " + r.Status
		if r.Verdict != "" || r.Reason != "" {
			text += fmt.Sprintf(" %s [%s]", r.Verdict, r.Reason)
		}
		return text
	case stage.ActivityRelease:
		return prefix + name
	case stage.ActivityTake:
		var t stage.Take
		_ = args.Get(&t)
		text := prefix + name + " from " + t.Run.From + ":"
		for _, r := range t.Stages {
			text += " " + stage.Key(r.Stage, r.Attempt)
		}
		return text
	case stage.ActivityResolve:
		var r stage.Resolve
		_ = args.Get(&r)
		return fmt.Sprintf("%s%s %v", prefix, name, r.Cell)
	default:
		var in stage.Input
		_ = args.Get(&in)
		text := fmt.Sprintf("%s%s %s #%d until %s", prefix, name, in.Stage.Name, in.Attempt, c.since(in.Deadline))
		if len(in.Artifacts) > 0 {
			text += " with peer"
		}
		return text
	}
}

func outcomeOf(name string, result converter.EncodedValue, err error) string {
	switch {
	case err != nil:
		return "error: " + explain(err)
	case result.HasValue() && slices.Contains([]string{"build", "schedule", "network", "run", "collect"}, name):
		var r stage.Result
		_ = result.Get(&r)
		return strings.TrimSpace(fmt.Sprintf("%s %s", r.Verdict, r.Reason))
	}
	return "done"
}

func (c *course) mark(a temporal.SearchAttributes) {
	var parts []string
	for key, value := range a.GetUntypedValues() {
		parts = append(parts, fmt.Sprintf("%s=%v", strings.TrimPrefix(key.GetName(), "Groundplan"), value))
	}
	slices.Sort(parts)
	c.marks = append(c.marks, strings.Join(parts, " "))
}

// script makes the activities answer as the story says.
func (c *course) script() {
	dummy := func(context.Context, stage.Input) (stage.Result, error) { return stage.Result{}, nil }
	kinds := []string{stage.ActivityBuild, stage.ActivitySchedule, stage.ActivityNetwork, stage.ActivityRun, stage.ActivityCollect}
	for _, kind := range kinds {
		c.env.RegisterActivityWithOptions(dummy, activity.RegisterOptions{Name: kind})
	}
	after := map[string]any{}
	register := func(name string, fn any) {
		c.env.RegisterActivityWithOptions(fn, activity.RegisterOptions{Name: name})
		after[name] = fn
	}
	register(stage.ActivityHalt, func(context.Context, stage.Input) error { return nil })
	register(stage.ActivityRelease, func(context.Context, stage.Release) error { return nil })
	register(stage.ActivityRecord, func(context.Context, stage.Record) error { return nil })
	register(stage.ActivityTake, func(context.Context, stage.Take) error { return nil })
	register(stage.ActivityResolve, func(context.Context, stage.Resolve) (pipelines.Resolved, error) { return c.s.in.Pipeline, nil })
	suiteActivities(register, c.s.in.Pipeline)
	c.env.RegisterActivityWithOptions(evaluate, activity.RegisterOptions{Name: stage.ActivityEvaluate})
	for _, a := range c.s.answers {
		c.answer(a)
	}
	for name, fn := range after {
		c.env.OnActivity(name, mock.Anything, mock.Anything).After(time.Second).Return(fn)
	}
	for _, kind := range kinds {
		c.env.OnActivity(kind, mock.Anything, mock.Anything).After(10 * time.Second).Return(
			func(_ context.Context, in stage.Input) (stage.Result, error) {
				return reply(answer{what: "passed"}, in)
			})
	}
}

// answer makes the next call that fits be answered so.
func (c *course) answer(a answer) {
	run, name, of := strings.Cut(a.call, "/")
	if !of {
		run, name = "", run
	}
	fits := func(r stage.Run) bool { return run == "" || r.ID == run }
	on := func(activity string, fits any, reply any) {
		c.env.OnActivity(activity, mock.Anything, mock.MatchedBy(fits)).After(a.takes).Return(reply).Once()
	}
	bare := func() error { _, err := reply(a, stage.Input{}); return err }
	if strings.HasPrefix(name, "suite-") {
		c.answerSuite(name, a)
		return
	}
	switch name {
	case stage.ActivityHalt:
		on(name, func(in stage.Input) bool { return fits(in.Run) }, func(context.Context, stage.Input) error { return bare() })
	case stage.ActivityRelease:
		on(name, func(r stage.Release) bool { return fits(r.Run) }, func(context.Context, stage.Release) error { return bare() })
	case stage.ActivityRecord:
		on(name, func(r stage.Record) bool { return fits(r.Run) }, func(context.Context, stage.Record) error { return bare() })
	case stage.ActivityTake:
		on(name, func(t stage.Take) bool { return fits(t.Run) }, func(context.Context, stage.Take) error { return bare() })
	case stage.ActivityResolve:
		on(name, func(stage.Resolve) bool { return true }, func(context.Context, stage.Resolve) (pipelines.Resolved, error) {
			return c.s.in.Pipeline, bare()
		})
	default:
		for _, st := range c.s.in.Pipeline.Stages {
			if st.Name == name {
				on(string(st.Kind), func(in stage.Input) bool { return in.Stage.Name == name && fits(in.Run) },
					func(_ context.Context, in stage.Input) (stage.Result, error) { return reply(a, in) })
			}
		}
	}
}

// reply is what an activity says.
func reply(a answer, in stage.Input) (stage.Result, error) {
	switch a.what {
	case "error":
		return stage.Result{}, errors.New(a.reason)
	case "fatal":
		return stage.Result{}, temporal.NewNonRetryableApplicationError(a.reason, "", nil)
	case "panic":
		panic(a.reason)
	case "timeout":
		return stage.Result{}, temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, nil)
	}
	r := stage.Result{Verdict: stage.Verdict(a.what), Reason: a.reason, Failing: a.failing}
	switch in.Stage.Kind {
	case pipelines.KindBuild:
		r.Artifacts = built
	case pipelines.KindRun:
		r.Outcomes = map[string]pipelines.Outcomes{"eu": {Succeeded: 30 - len(a.failing), Crashed: len(a.failing)}, "us": {Succeeded: 20}}
	}
	return r, nil
}

// evaluate stands in for CEL: true, false, or whether a stage ended so (`stages.X.outcome == 'failed'`).
func evaluate(_ context.Context, e stage.Evaluate) (bool, error) {
	name, rest, looks := strings.Cut(strings.TrimPrefix(e.Expr, "stages."), ".outcome == ")
	switch {
	case looks:
		at := slices.IndexFunc(e.Stages, func(r stage.Result) bool { return r.Stage == name })
		return at >= 0 && string(e.Stages[at].Verdict) == strings.Trim(rest, "'"), nil
	case e.Expr == "outcomes.eu.crashed > 0":
		return slices.ContainsFunc(e.Stages, func(r stage.Result) bool { return r.Outcomes["eu"].Crashed > 0 }), nil
	case e.Expr == "true", e.Expr == "false":
		return e.Expr == "true", nil
	}
	return false, temporal.NewNonRetryableApplicationError("no such key: "+e.Expr, "", nil)
}

// act does to the run what the story says for a moment.
func (c *course) act(a action) {
	switch a.words[0] {
	case "cancel":
		c.add(a.at, "cancel")
		c.env.CancelWorkflow()
	case "suggest":
		c.add(a.at, "the server suggests to continue as new")
		c.env.SetContinueAsNewSuggested(true)
	case "state":
		c.add(a.at, "state: "+c.state())
	case "decide":
		d := Decision{Action: a.words[1]}
		if len(a.words) > 2 {
			d.Stage = a.words[2]
		}
		what := strings.Join(a.words, " ")
		c.env.UpdateWorkflow(UpdateDecide, what+a.at.String(), &testsuite.TestUpdateCallback{
			OnAccept:   func() { c.add(a.at, what+": accepted") },
			OnReject:   func(err error) { c.add(a.at, what+": refused: "+err.Error()) },
			OnComplete: func(any, error) {},
		}, d)
	default:
		panic("unknown action " + a.words[0])
	}
}

func (c *course) add(at time.Duration, text string) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.lines = append(c.lines, line{at, at, "! " + text})
}

func (c *course) state() string {
	value, err := c.env.QueryWorkflow(QueryState)
	if err != nil {
		return err.Error()
	}
	var s State
	if err := value.Get(&s); err != nil {
		return err.Error()
	}
	text := s.Status
	for _, row := range s.Stages {
		text += fmt.Sprintf(", %s %s", row.Name, row.Phase)
		if row.Verdict != "" {
			text += " " + string(row.Verdict)
		}
	}
	if s.Holding != nil {
		text += fmt.Sprintf("; %s holds until %s: %s", s.Holding.Stage, c.since(s.Holding.Until), s.Holding.Reason)
	}
	return text
}

// tell writes the course down: what was asked and done in the order of time, and what it came to.
func (c *course) tell() string {
	slices.SortStableFunc(c.lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.text, b.text))
	})
	var text bytes.Buffer
	for _, l := range c.lines {
		fmt.Fprintf(&text, "%8s %8s  %s\n", l.begin, l.end, l.text)
	}
	for _, m := range c.marks {
		fmt.Fprintf(&text, "marks %s\n", m)
	}
	c.tellEnd(&text)
	return text.String()
}

func (c *course) tellEnd(text *bytes.Buffer) {
	if c.s.suite != nil {
		c.tellTurn(text)
		return
	}
	var out Output
	err := c.env.GetWorkflowError()
	var again *workflow.ContinueAsNewError
	switch {
	case err == nil:
		fmt.Fprintln(text, "completed")
		err = c.env.GetWorkflowResult(&out)
	case errors.As(err, &again):
		fmt.Fprintln(text, "continued as new "+c.next(again))
		return
	default:
		var ok bool
		if out, ok = OutputOf(err); ok {
			fmt.Fprintln(text, "closed as cancelled")
			err = nil
		}
	}
	if err != nil {
		fmt.Fprintln(text, "error", err)
		return
	}
	fmt.Fprintf(text, "%s\n", out.Reason)
	if !strings.HasPrefix(out.Reason, string(out.Verdict)) {
		fmt.Fprintf(text, "but the verdict is %s\n", out.Verdict)
	}
	for _, r := range out.Results {
		fmt.Fprintf(text, "  %s\n", strings.TrimSpace(fmt.Sprintf("%s #%d %s %s", r.Stage, r.Attempt, r.Verdict, r.Reason)))
	}
	for _, r := range out.Tries {
		fmt.Fprintf(text, "  before: %s\n", strings.TrimSpace(fmt.Sprintf("%s #%d %s %s", r.Stage, r.Attempt, r.Verdict, r.Reason)))
	}
	for _, cell := range out.Cells {
		fmt.Fprintf(text, "  %s\n", strings.TrimSpace(fmt.Sprintf("%s %v %s %s", cell.Run, cell.Values, cell.Verdict, cell.Reason)))
	}
	fmt.Fprintf(text, "finally %s\n", c.state())
}

// next tells with what a run continues.
func (c *course) next(again *workflow.ContinueAsNewError) string {
	from := func(next any) {
		if err := converter.GetDefaultDataConverter().FromPayloads(again.Input, next); err != nil {
			panic(err)
		}
	}
	if c.s.matrix != nil {
		var next MatrixInput
		from(&next)
		done, _ := json.Marshal(next.Done)
		return fmt.Sprintf("with %d of %d cells done: %s", len(next.Done), len(next.Cells), done)
	}
	var next Input
	from(&next)
	var text []string
	for _, r := range next.Earlier {
		text = append(text, fmt.Sprintf("%s #%d %s", r.Stage, r.Attempt, r.Verdict))
	}
	for _, r := range next.Tries {
		text = append(text, fmt.Sprintf("before: %s #%d %s", r.Stage, r.Attempt, r.Verdict))
	}
	if next.Aborted != "" {
		text = append(text, "aborted by "+next.Aborted)
	}
	return fmt.Sprintf("with %s; started %s", strings.Join(text, ", "), c.since(next.Started))
}
