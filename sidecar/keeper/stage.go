//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/events"
	"github.com/groundplan/groundplan/sidecar/keeper/outcome"
)

const (
	// mostFailing bounds how many failing instances a status names, mostTold how many the event log does.
	mostFailing = 10
	mostTold    = 20
	// settleTime is how long changes gather before a waiting caller is told, so that a thousand ends aren't a thousand
	// answers.
	settleTime = 20 * time.Millisecond
)

// Why a stage ended before every instance had an outcome by itself.
type cause int

const (
	causeNone cause = iota
	causeTimedOut
	causeHalted
	causeFailedFast
	causeFault // the sidecar's own
)

// reason is what is said of an instance that such an end cut off.
func (c cause) reason() string {
	switch c {
	case causeTimedOut:
		return "still running when the stage's timeout ended"
	case causeHalted:
		return "still running when the stage was halted"
	case causeFailedFast:
		return "still running when the failure of another instance ended the stage"
	default:
		return "still running when the sidecar had to end the stage"
	}
}

// stage is one opening of the gate.
type stage struct {
	keeper  *Keeper
	key     string
	ask     control.RunStage
	node    *control.Node // nil: the whole run is here
	all     []*place      // of all that take part, on whichever node
	members []*member     // here
	bySlot  map[int]*member
	results *journal
	steps   *journal // nil where no other keeper takes this one's place
	moves   *moves
	// Of a stage that another keeper has begun: adopted says so, announced that the network was said to be ready, and past
	// and acts are the events that have begun, and what they have done or were about to, by name.
	adopted   bool
	announced bool
	past      map[string]events.Past
	acts      map[string]*act
	// stopped is closed when the stage is to end before its time, finished when every member has an outcome, and over
	// when nothing is left of it.
	stopped  chan struct{}
	finished chan struct{}
	over     chan struct{}
	closing  chan struct{} // one token per outcome that is being worked out
	// ctx ends when the stage is stopped or over; work counts the network configurations under way.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	// signals is held by whoever stops processes or lets go of them, once the gate is open.
	signals sync.Mutex

	mu     sync.Mutex
	opened time.Time // when the gate was opened
	cause  cause
	left   int // members without an outcome
	told   int
	// lost says of the first lost members why they are, and lossTold is what was made the fault of that.
	lost     []string
	lossTold string
	now      control.RunStatus
	changed  chan struct{} // closed and replaced with every change
}

// member is an instance in a stage.
type member struct {
	stage *stage
	place *place
	group *control.Group
	// up says that its process may be there to be signalled.
	up atomic.Bool
	// before is what was used by the processes that were started before this one. It is set before that is started.
	before used

	// Guarded by the stage's mu.
	// entered is closed once the process is known to run. It may be heard of before: the kernel can have it run a while
	// before whoever started it goes on.
	entered chan struct{}
	logs    Started // its part of them
	starts  int
	started time.Time // the first time
	running bool
	ended   bool
	lost    bool
	wished  int64             // the number of the last configuration of its network that it has asked for
	applied int64             // the number of the last one that another keeper has put in force
	paused  bool              // by an event
	fall    *fall             // an event has killed it
	down    *control.Instance // what it was when an event killed it, while it waits to be started again
	report  outcome.Report
	cut     string // why it was killed
	atEnd   bool   // it was killed because the stage ended
	grace   *time.Timer
	outcome string
}

// used is what processes have used: the largest resident set in bytes, and processor time in seconds.
type used struct {
	peak int64
	cpu  float64
}

// Open opens the gate for a stage and returns at once. A known key only returns its status.
func (k *Keeper) Open(_ context.Context, key string, ask control.RunStage) (control.RunStatus, error) {
	s, status, err := k.open(key, ask)
	if s == nil || err != nil {
		return status, err
	}
	if err := s.keepOpen(); err != nil {
		s.fault(err)
	}
	k.work.Go(s.conduct)
	return status, nil
}

// open makes a stage, and returns it where it was not there before.
func (k *Keeper) open(key string, ask control.RunStage) (*stage, control.RunStatus, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s, known := k.stages[key]; known {
		return nil, s.status(), nil
	}
	if k.closing {
		return nil, control.RunStatus{}, control.Refuse(http.StatusConflict, "the run has been released")
	}
	if ask.Stage == "" || strings.ContainsAny(ask.Stage, "/\x00") {
		return nil, control.RunStatus{}, control.Refuse(http.StatusBadRequest, "a stage can't be called %q", ask.Stage)
	}
	all, err := k.world.choose(ask, false)
	if err != nil {
		return nil, control.RunStatus{}, err
	}
	s, err := newStage(k, key, ask, all)
	if err != nil {
		return nil, control.RunStatus{}, err
	}
	if len(k.active) == 0 { // else what goes wrong in the other stages as well is theirs too
		k.shaping.ResetOverload()
	}
	k.stages[key] = s
	k.active[s] = struct{}{}
	return s, s.status(), nil
}

// choose returns the places that a stage is for, on all nodes. Each that is here has to be placed, unless the stage is
// gone on with, and free.
func (w *world) choose(ask control.RunStage, goesOn bool) ([]*place, error) {
	if w == nil {
		return nil, control.Refuse(http.StatusBadRequest, "nothing has been placed yet")
	}
	groups, only := make(map[string]bool), make(map[string]bool)
	for _, name := range ask.Groups {
		if w.groups[name] == nil {
			return nil, control.Refuse(http.StatusBadRequest, "there is no group %q", name)
		}
		groups[name] = true
	}
	for _, name := range ask.Only {
		if p := w.byName[name]; p == nil || !groups[p.group.Name] {
			return nil, control.Refuse(http.StatusBadRequest, "there is no instance %q in the stage's groups", name)
		}
		only[name] = true
	}
	var chosen []*place
	for _, p := range w.places {
		if !groups[p.group.Name] || len(only) > 0 && !only[p.name] {
			continue
		}
		if p.own && !p.placed && !goesOn {
			return nil, control.Refuse(http.StatusBadRequest, "%s has not been placed", p.name)
		}
		if p.runs != nil {
			return nil, control.Refuse(http.StatusConflict, "%s still runs in stage %s", p.name, p.runs.stage.ask.Stage)
		}
		chosen = append(chosen, p)
	}
	if len(chosen) == 0 {
		return nil, control.Refuse(http.StatusBadRequest, "the stage has no instances")
	}
	return chosen, nil
}

func newStage(k *Keeper, key string, ask control.RunStage, all []*place) (*stage, error) {
	s := &stage{
		keeper: k, key: key, ask: ask, node: k.world.ask.Node, all: all,
		bySlot: make(map[int]*member), past: make(map[string]events.Past), acts: make(map[string]*act),
		stopped: make(chan struct{}), finished: make(chan struct{}), over: make(chan struct{}),
		closing: make(chan struct{}, finishers), changed: make(chan struct{}),
	}
	s.ask.Events = events.Named(ask.Events)
	s.ctx, s.cancel = context.WithCancel(k.ctx)
	s.now = control.RunStatus{Key: key, Version: 1, Groups: make(map[string]control.Counts), Started: time.Now()}
	if err := s.openJournals(); err != nil {
		s.cancel()
		return nil, err
	}
	for _, p := range all {
		if !p.own {
			continue
		}
		m := &member{stage: s, place: p, group: p.group, entered: make(chan struct{})}
		s.members = append(s.members, m)
		s.bySlot[p.slot], p.runs = m, m
		s.count(m, func(c *control.Counts) { c.Total++; c.Placed++ })
	}
	if s.left = len(s.members); s.left == 0 {
		close(s.finished)
	}
	s.moves = newMoves(s)
	return s, nil
}

// openJournals opens the files that the stage is kept in.
func (s *stage) openJournals() (err error) {
	k := s.keeper
	if s.results, err = openJournal(k.folder.Stage(s.ask.Stage)); err == nil && k.lasting {
		if s.steps, err = openJournal(stepsPath(k.folder, s.key)); err != nil {
			err = errors.Join(err, s.results.close())
		}
	}
	if err != nil {
		return fmt.Errorf("keeping the results of stage %s: %w", s.ask.Stage, err)
	}
	return nil
}

// closeJournals closes them.
func (s *stage) closeJournals() error {
	if s.steps == nil {
		return s.results.close()
	}
	return errors.Join(s.results.close(), s.steps.close())
}

// conduct carries the stage through.
func (s *stage) conduct() {
	k := s.keeper
	if !s.ask.Deadline.IsZero() {
		deadline := time.AfterFunc(time.Until(s.ask.Deadline), func() { s.stop(causeTimedOut) })
		defer deadline.Stop()
	}
	s.moves.follow()
	if !s.adopted && s.leads() {
		k.tell("stage-opened", s.ask.Stage, fmt.Sprintf("the gate has opened for %d instances of stage %s", len(s.all), s.ask.Stage))
	}
	if err := s.announce(); err != nil {
		s.fault(err)
	}
	s.startAll()
	k.work.Go(s.lookAround)
	happening := s.happen()
	select {
	case <-s.finished:
	case <-s.stopped:
	}
	s.stay()
	happening.Stop()
	if s.stopping() {
		s.leaveAll()
		s.killAll()
	}
	if err := s.clear(); err != nil {
		s.fault(err)
	}
	s.leave()
	s.cancel()
	s.work.Wait()
	s.heal(happening)
	s.end()
}

// heal leaves the network as it was before the stage, and says whether it was as asked while the stage went on. It is
// what has to be done whoever gives up meanwhile.
func (s *stage) heal(happening *events.Schedule) {
	k := s.keeper
	ctx := context.WithoutCancel(s.ctx)
	if err := happening.Lift(ctx); err != nil {
		s.fault(err)
	}
	if err := errors.Join(s.restoreNetwork(ctx), s.moves.end(ctx)); err != nil {
		s.fault(err)
	}
	if overload := k.shaping.Overload(); overload != "" {
		s.fault(errors.New(overload))
	}
}

// stop ends the stage before its time. Only the first cause counts, and none once every instance has an outcome.
func (s *stage) stop(why cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked(why)
}

func (s *stage) stopLocked(why cause) {
	if s.cause != causeNone {
		return
	}
	if s.left == 0 {
		if s.node != nil {
			s.cancel() // it waits for those of other nodes at most
		}
		return
	}
	s.cause = why
	s.note(step{Stopped: why})
	s.now.TimedOut, s.now.Halted, s.now.FailedFast = why == causeTimedOut, why == causeHalted, why == causeFailedFast
	close(s.stopped)
	s.cancel()
	s.changedLocked()
}

// stopping reports whether the stage is to end.
func (s *stage) stopping() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

// fault notes what the sidecar itself could not do, and ends the stage.
func (s *stage) fault(err error) {
	s.keeper.log.Error("a stage is at fault", "stage", s.ask.Stage, "key", s.key, "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Fault == "" {
		s.now.Fault = err.Error()
	}
	s.stopLocked(causeFault)
}

// end gives the places free and tells everybody that the stage is over.
func (s *stage) end() {
	k := s.keeper
	k.mu.Lock()
	for _, m := range s.members {
		m.place.runs = nil
	}
	delete(k.active, s)
	k.mu.Unlock()
	closed := s.closeJournals()

	s.mu.Lock()
	if closed != nil && s.now.Fault == "" {
		s.now.Fault = closed.Error()
	}
	s.now.Done, s.now.Ended = true, time.Now()
	s.changedLocked()
	text, status := s.summary(), s.statusLocked()
	s.mu.Unlock()
	if err := s.keepEnd(status); err != nil {
		k.log.Error("no other sidecar would know that the stage is over", "stage", s.ask.Stage, "error", err)
	}
	if s.leads() {
		k.tell(runs.KindStageClosed, s.ask.Stage, text)
	}
	close(s.over)
}

// announce tells the instances that are about to start that their network is ready.
func (s *stage) announce() error {
	if s.announced || len(s.members) == 0 {
		return nil
	}
	err := s.keeper.sync.Signal(s.ctx, s.key, s.prefix()+"states:network-initialized", int64(len(s.members)))
	if err == nil {
		s.note(step{Announced: true})
	}
	if err != nil && s.ctx.Err() == nil {
		return fmt.Errorf("signalling that the network is ready: %w", err)
	}
	return nil
}

// prefix is what the keys of the stage's states and topics begin with.
func (s *stage) prefix() string {
	return fmt.Sprintf("run:%s:plan:%s:case:%s:", s.keeper.run, s.keeper.pipeline(), s.ask.Case)
}

func (k *Keeper) pipeline() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.world.ask.Pipeline
}
