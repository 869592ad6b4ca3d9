package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/page"
	"github.com/groundplan/groundplan/worker"
	"github.com/groundplan/groundplan/workflows"
)

// pageServices is a session as the live page asks it.
type pageServices struct{ session *worker.Session }

func (s pageServices) Runs(ctx context.Context) ([]page.Run, error) {
	rows, err := s.session.List(ctx, worker.Filter{Cells: true})
	if err != nil {
		return nil, err
	}
	list := make([]page.Run, 0, len(rows))
	for _, r := range rows {
		list = append(list, page.Run{
			ID: r.ID, Pipeline: r.Pipeline, Status: r.Status, Verdict: r.Verdict, Reason: r.Reason, Stage: r.Stage,
			Suite: r.Suite, Started: r.Started, Ended: r.Ended, Parent: r.Parent,
		})
	}
	return list, nil
}

func (s pageServices) State(ctx context.Context, id string) (workflows.State, error) {
	state, err := s.session.Run(id).State(ctx)
	return state, unknown(err)
}

func (s pageServices) Progress(ctx context.Context, id string) ([]stage.Progress, error) {
	progress, err := s.session.Run(id).Progress(ctx)
	return progress, unknown(err)
}

// Cancel does what `groundplan cancel` does, without waiting for the end.
func (s pageServices) Cancel(ctx context.Context, id string) error {
	handle := s.session.Run(id)
	state, err := handle.State(ctx)
	switch {
	case err != nil:
		return unknown(err)
	case state.Status == stage.StatusEnded:
		return fmt.Errorf("run %s has ended already", id)
	case onlyHolds(state):
		return unknown(handle.Decide(ctx, workflows.Decision{Action: workflows.DecideAbort}))
	}
	return unknown(noted{handle, s.session.Home().Run(id)}.Cancel(ctx))
}

func (s pageServices) Resume(ctx context.Context, id, from string) error {
	if err := s.session.Run(id).Resume(ctx, from); err != nil {
		return unknown(err)
	}
	note(s.session.Home().Run(id), eventResume, "the run goes on")
	return nil
}

func (s pageServices) Decide(ctx context.Context, id string, d workflows.Decision) error {
	return unknown(s.session.Run(id).Decide(ctx, d))
}

func (s pageServices) Temporal() string { return s.session.Info().TemporalUI }

// unknown is an error in the page's words.
func unknown(err error) error {
	if errors.Is(err, worker.ErrUnknown) || errors.Is(err, worker.ErrNoSuite) {
		return fmt.Errorf("%w: %w", page.ErrUnknown, err)
	}
	return err
}

func (s pageServices) Suites(ctx context.Context) ([]page.Suite, error) {
	all, err := s.session.Suites(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]page.Suite, 0, len(all))
	for _, suite := range all {
		when := suite.Schedule.Cron
		if suite.Schedule.Timezone != "" {
			when += ", " + suite.Schedule.Timezone
		}
		list = append(list, page.Suite{Name: suite.Name, When: when, Next: suite.Next, Paused: suite.Paused, Note: suite.Note})
	}
	return list, nil
}

func (s pageServices) Trigger(ctx context.Context, suite string) error {
	_, err := s.session.TriggerSuite(ctx, suite, "")
	return unknown(err)
}

func (s pageServices) Pause(ctx context.Context, suite, note string) error {
	return unknown(s.session.PauseSuite(ctx, suite, note))
}

func (s pageServices) Unpause(ctx context.Context, suite string) error {
	return unknown(s.session.UnpauseSuite(ctx, suite, ""))
}
