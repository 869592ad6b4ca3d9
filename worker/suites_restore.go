package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/client"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/workflows"
)

// restoreSuites brings the schedules of the suites that were created here up to this machine: a new version of the
// embedded database begins without any, and a machine may have got another name, by which turns would wait for a worker
// that never comes. An external Temporal's schedules are only ever changed: one that is gone was deleted by somebody.
func (s *Session) restoreSuites(ctx context.Context) error {
	names, err := s.config.Home.SuiteNames()
	if err != nil {
		return err
	}
	var faults []error
	for _, name := range names {
		suite, err := s.config.Home.ReadSuite(name)
		if errors.Is(err, runs.ErrNoSuite) {
			continue
		}
		if err == nil {
			err = s.restoreSuite(ctx, suite)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("suite %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

func (s *Session) restoreSuite(ctx context.Context, suite runs.Suite) error {
	name, input := suite.Suite.Name, s.suiteInput(suite)
	k, err := s.readSchedule(ctx, name)
	switch {
	case errors.Is(err, ErrNoSuite) && s.Embedded():
		s.log.Info("made the schedule of a suite anew: the database has none", "suite", name)
		return s.makeSchedule(ctx, suite, input)
	case errors.Is(err, ErrNoSuite):
		return nil
	case err != nil:
		return err
	}
	of, home, _ := strings.Cut(input.Host, "-"+short(string(s.config.Home)))
	before, sameHome := strings.CutSuffix(k.input.Host, "-"+short(string(s.config.Home)))
	if k.input.Queue == input.Queue || home != "" || !sameHome {
		return nil // nothing to do, or of another home since
	}
	s.log.Info("this machine has another name: its suite goes with it", "suite", name, "before", before, "now", of)
	input.Backfills = k.input.Backfills
	return s.changeSchedule(ctx, name, func(schedule *client.Schedule) {
		action, ok := schedule.Action.(*client.ScheduleWorkflowAction)
		if !ok {
			return
		}
		if action.TaskQueue == k.input.Queue {
			action.TaskQueue = input.Queue
		}
		in := k.input
		in.Host, in.Queue = input.Host, input.Queue
		action.Args = []any{in}
	})
}

// differences are what is different between two inputs of a suite, in words.
func differences(a, b workflows.SuiteInput) []string {
	var all []string
	note := func(what string, before, after any) {
		if one, other := fmt.Sprint(before), fmt.Sprint(after); one != other {
			all = append(all, fmt.Sprintf("%s: %s → %s", what, orElse(one, "none"), orElse(other, "none")))
		}
	}
	note("cron", a.Suite.Schedule.Cron, b.Suite.Schedule.Cron)
	note("timezone", a.Suite.Schedule.Timezone, b.Suite.Schedule.Timezone)
	note("overlap", a.Suite.Schedule.Overlap, b.Suite.Schedule.Overlap)
	note("catchUp", a.Suite.Schedule.CatchUp, b.Suite.Schedule.CatchUp)
	note("jitter", a.Suite.Schedule.Jitter, b.Suite.Schedule.Jitter)
	note("pipelines", pipelinesOf(a), pipelinesOf(b))
	note("compare", described(a.Suite.Compare), described(b.Suite.Compare))
	note("notify", described(a.Suite.Notify), described(b.Suite.Notify))
	note("file", a.Suite.File, b.Suite.File)
	note("on", a.Ground, b.Ground)
	note("repository", a.Root, b.Root)
	note("context", a.Context, b.Context)
	note("namespace", a.Namespace, b.Namespace)
	note("host", a.Host, b.Host)
	return slices.Clip(all)
}

// pipelinesOf lists a suite's pipelines with all that is said of them.
func pipelinesOf(in workflows.SuiteInput) string {
	var all []string
	for _, p := range in.Suite.Pipelines {
		text := p.File
		if len(p.Set) > 0 {
			text += fmt.Sprint(" ", p.Set) // in the order of the names
		}
		if p.OnFailure != "" && p.OnFailure != "abort" {
			text += " (" + p.OnFailure + ")"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// described shows what a pointer points to.
func described[T any](v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%+v", *v)
}
