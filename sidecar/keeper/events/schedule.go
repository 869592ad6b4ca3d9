// Package events carries out what is to happen while a run stage goes on: it knows when, and draws which instances. What
// is done then is for others. It lives in the sidecar, so that a partition heals on time whoever has died meanwhile.
package events

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

// Actions are what events do. They return when it is done, and obey their context.
type Actions interface {
	// Reached waits until every instance of the stage has signalled a state.
	Reached(ctx context.Context, state string) error
	// Begin does what the event asks for, and returns the instances that it chose, as group/index.
	Begin(ctx context.Context, event pipelines.Event) (instances []string, err error)
	// End takes it back: heals the network, starts what was killed, lets go of what was stopped. The instances are those
	// that Begin returned.
	End(ctx context.Context, event pipelines.Event, instances []string) error
	// Tell hears what has happened, one call at a time per event.
	Tell(Happening)
}

// Happening is something that has happened with an event.
type Happening struct {
	Event pipelines.Event
	What  What
	// Time is when it was done, Took how long the doing took, and Due when it should have begun: zero for what had no
	// time yet.
	Time, Due time.Time
	Took      time.Duration
	Instances []string
}

// What has happened.
type What int

// An event has begun, has ended, or never began because its stage was over before.
const (
	Began What = iota
	Ended
	Missed
)

// unnamed is what the names of events begin with that the pipeline gives none.
const unnamed = "event "

// Named gives the events that have none a name, which no pipeline can give: `event 3` for the third.
func Named(list []pipelines.Event) []pipelines.Event {
	named := slices.Clone(list)
	for i := range named {
		if named[i].Name == "" {
			named[i].Name = unnamed + strconv.Itoa(i+1)
		}
	}
	return named
}

// Schedule is the events of one stage, under way.
type Schedule struct {
	opened  time.Time
	actions Actions
	fail    func(error)
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
	all     map[string]*event

	mu       sync.Mutex
	standing []*event // what has changed the network and not been taken back, in the order in which it began
}

// event is one of them. Its times are set before the channel beside them is closed.
type event struct {
	pipelines.Event
	instances []string
	began     chan struct{}
	beganAt   time.Time
	ended     chan struct{}
	endedAt   time.Time
}

// lasts is how long the event lasts before it is taken back; false when it stays until the stage ends.
func (e *event) lasts() (time.Duration, bool) {
	switch {
	case e.Pause != nil:
		return time.Duration(e.Pause.For), true
	case e.Kill != nil:
		return time.Duration(e.Restart), e.Restart > 0
	}
	return time.Duration(e.For), e.For > 0
}

// Past is what is known of an event that has begun under another schedule of the stage, and is in force. Ended is zero
// where it is not over.
type Past struct {
	Began, Ended time.Time
	Instances    []string
}

// Start begins to carry out events, which are named, of a stage whose gate opened at that time. Those that are past don't
// happen again, by name. fail hears of the first thing that can't be done, for each event that it concerns. Who starts a
// schedule stops it, and then lifts what stands.
func Start(ctx context.Context, opened time.Time, list []pipelines.Event, past map[string]Past, actions Actions, fail func(error)) *Schedule {
	s := &Schedule{opened: opened, actions: actions, fail: fail, all: make(map[string]*event, len(list))}
	s.ctx, s.cancel = context.WithCancel(ctx)
	for _, e := range list {
		s.all[e.Name] = &event{Event: e, began: make(chan struct{}), ended: make(chan struct{})}
	}
	s.resume(past)
	for _, e := range list {
		s.work.Go(func() { s.conduct(s.all[e.Name]) })
	}
	return s
}

// resume takes over what is past, in the order in which it began.
func (s *Schedule) resume(past map[string]Past) {
	names := slices.SortedFunc(maps.Keys(past), func(a, b string) int { return past[a].Began.Compare(past[b].Began) })
	for _, name := range names {
		e, was := s.all[name], past[name]
		if e == nil || was.Began.IsZero() {
			continue
		}
		e.beganAt, e.instances = was.Began, was.Instances
		if was.Ended.IsZero() && e.Network != nil {
			s.standing = append(s.standing, e)
		}
		close(e.began)
		if !was.Ended.IsZero() {
			e.endedAt = was.Ended
			close(e.ended)
		}
	}
}

// Stop keeps anything more from beginning or ending, and returns when nothing is under way.
func (s *Schedule) Stop() {
	s.cancel()
	s.work.Wait()
}

// Lift takes back what has changed the network, after Stop. Whatever fails, it tries all.
func (s *Schedule) Lift(ctx context.Context) error {
	var failed []error
	for _, e := range slices.Backward(s.standing) {
		if err := s.end(ctx, e, time.Time{}); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// conduct carries one event through.
func (s *Schedule) conduct(e *event) {
	err := s.through(e)
	if err != nil && s.ctx.Err() == nil {
		s.fail(err)
	}
}

func (s *Schedule) through(e *event) error {
	switch {
	case !e.endedAt.IsZero():
		return nil
	case !e.beganAt.IsZero():
		return s.finish(e)
	}
	due, err := s.moment(e)
	if err == nil {
		err = s.until(due)
	}
	if err != nil {
		if s.ctx.Err() != nil {
			s.actions.Tell(Happening{Event: e.Event, What: Missed, Time: time.Now(), Due: due})
		}
		return err
	}
	if err := s.begin(e, due); err != nil {
		return err
	}
	return s.finish(e)
}

// finish takes an event back when its time is over, if it is to be.
func (s *Schedule) finish(e *event) error {
	lasts, ends := e.lasts()
	if !ends {
		return nil
	}
	due := e.beganAt.Add(lasts)
	if err := s.until(due); err != nil {
		return err
	}
	return s.end(s.ctx, e, due)
}

// moment waits for what the event is anchored to, and returns when it is due.
func (s *Schedule) moment(e *event) (time.Time, error) {
	offset := time.Duration(e.At.Offset)
	switch {
	case e.At.Event != "":
		other := s.all[e.At.Event]
		if other == nil {
			return time.Time{}, fmt.Errorf("%s waits for %s, which there isn't", Title(e.Name), Title(e.At.Event))
		}
		happens, at := other.began, &other.beganAt
		if e.At.Healed {
			happens, at = other.ended, &other.endedAt
		}
		select {
		case <-happens:
			return at.Add(offset), nil
		case <-s.ctx.Done():
			return time.Time{}, s.ctx.Err()
		}
	case e.At.State != "":
		if err := s.actions.Reached(s.ctx, e.At.State); err != nil {
			return time.Time{}, fmt.Errorf("%s waits for the state %s: %w", Title(e.Name), e.At.State, err)
		}
		return time.Now().Add(offset), nil
	}
	return s.opened.Add(offset), nil
}

// until waits for a time.
func (s *Schedule) until(due time.Time) error {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
		return s.ctx.Err()
	case <-timer.C:
		return s.ctx.Err()
	}
}

// begin begins the event.
func (s *Schedule) begin(e *event, due time.Time) error {
	if e.Network != nil { // half done it has to be taken back as well
		s.mu.Lock()
		s.standing = append(s.standing, e)
		s.mu.Unlock()
	}
	from := time.Now()
	instances, err := s.actions.Begin(s.ctx, e.Event)
	if err != nil {
		return fmt.Errorf("%s can't be carried out: %w", Title(e.Name), err)
	}
	e.beganAt, e.instances = time.Now(), instances
	s.actions.Tell(Happening{Event: e.Event, What: Began, Time: e.beganAt, Took: e.beganAt.Sub(from), Due: due, Instances: instances})
	close(e.began)
	return nil
}

// end takes the event back.
func (s *Schedule) end(ctx context.Context, e *event, due time.Time) error {
	from := time.Now()
	if err := s.actions.End(ctx, e.Event, e.instances); err != nil {
		return fmt.Errorf("%s can't be taken back: %w", Title(e.Name), err)
	}
	s.mu.Lock()
	s.standing = slices.DeleteFunc(slices.Clone(s.standing), func(other *event) bool { return other == e })
	s.mu.Unlock()
	if e.beganAt.IsZero() {
		return nil // nobody has heard that it began
	}
	e.endedAt = time.Now()
	s.actions.Tell(Happening{Event: e.Event, What: Ended, Time: e.endedAt, Took: e.endedAt.Sub(from), Due: due, Instances: e.instances})
	close(e.ended)
	return nil
}

// Title is how sentences call an event.
func Title(name string) string {
	if strings.HasPrefix(name, unnamed) {
		return name
	}
	return "the event " + name
}
