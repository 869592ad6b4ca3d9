//go:build linux

package keeper

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
)

const (
	// starters is how many instances are started at a time.
	starters = 4
	// grace is how long an instance that has reported its outcome may take to exit.
	grace = 10 * time.Second
)

// startAll starts every member, several at a time, and returns once the last was started or the stage is to end. Each
// is held right after its start until all are there: else the first ones would keep the processor from the last ones'
// starts, and a thousand would take half a minute instead of a second or two.
func (s *stage) startAll() {
	around := s.surroundings()
	inParallel(starters, s.members, func(m *member) {
		if m.ended { // before another keeper took over
			return
		}
		if err := m.start(around[m.group.Name], true); err != nil {
			m.unstarted(err)
		}
	})
	if err := s.meet(stateGate); err != nil && s.ctx.Err() == nil {
		s.fault(err)
	}
	s.openGate()
	s.work.Go(s.rouseAll)
}

// surroundings are what the members of each group share.
func (s *stage) surroundings() map[string]surroundings {
	k := s.keeper
	k.mu.RLock()
	run := k.world.ask
	k.mu.RUnlock()
	run.Run = k.run
	shared := make(map[string]surroundings)
	for _, p := range s.all {
		around := shared[p.group.Name]
		around.own++
		shared[p.group.Name] = around
	}
	for _, m := range s.members {
		around := shared[m.group.Name]
		around.run, around.group, around.stage, around.started = run, m.group, s.ask, s.now.Started
		around.subnet, around.gateway, around.port = k.fabric.Subnet(), k.gateway(), k.port
		around.all = len(s.all)
		shared[m.group.Name] = around
	}
	return shared
}

// gateway is where instances find the sync service: in a pod its supervisor listens.
func (k *Keeper) gateway() netip.Addr {
	if gateway := k.fabric.Gateway(); gateway.IsValid() {
		return gateway
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// errStopped says that a stage ended before an instance was started.
var errStopped = errors.New("the stage has ended")

// start starts the member's program. One that is to be held is stopped at once.
func (m *member) start(around surroundings, held bool) error {
	if m.stage.stopping() && !m.stage.adopted { // else it may run already
		return errStopped
	}
	p, k := m.place, m.stage.keeper
	starts, entered := m.next()
	outputs, temp := k.programs.Folders(p.slot)
	env, err := environment(around, instance{
		index: p.index, host: p.host, control: p.control, data: p.data, outputs: outputs, temp: temp, starts: starts,
	})
	if err != nil {
		return err
	}
	if starts > 1 {
		m.stage.note(step{Again: &again{Slot: p.slot, Starts: starts, Peak: m.before.peak, CPU: m.before.cpu}})
	}
	program := Program{Key: m.stage.key, Starts: starts, Path: m.group.Program, Args: m.arguments(), Env: env, Held: held}
	m.up.Store(true)
	started, err := k.programs.Start(p.slot, program, func(exit Exit) { m.exited(exit, entered) })
	if err != nil {
		m.up.Store(false)
		return err
	}
	m.stage.entered(m, started)
	return nil
}

// next is the number of the start that is under way, and what is closed when it has succeeded.
func (m *member) next() (starts int, entered chan struct{}) {
	m.stage.mu.Lock()
	defer m.stage.mu.Unlock()
	return m.starts + 1, m.entered
}

// entered notes that a member runs, before anybody acts on its end.
func (s *stage) entered(m *member, started Started) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.logs = started
	if m.starts++; m.starts == 1 {
		m.started = started.At
	}
	m.running = true
	s.count(m, func(c *control.Counts) { c.Running++ })
	s.changedLocked()
	close(m.entered)
}

func (m *member) arguments() []string {
	args := append([]string{m.group.Program}, m.group.Arguments...)
	return append(args, m.group.Args...)
}

// exited hears that the member's process has ended, maybe before its start is known to have succeeded. It does not block.
func (m *member) exited(exit Exit, entered <-chan struct{}) {
	m.up.Store(false)
	go func() {
		<-entered
		m.finish(exit)
	}()
}

// killAll kills whatever of the stage still runs.
func (s *stage) killAll() {
	s.look(0, 1)
	inParallel(openers, s.members, func(m *member) { m.kill(s.cause.reason(), true) })
}

// kill kills the member's processes, if it still runs, for that reason.
func (m *member) kill(why string, atEnd bool) {
	s := m.stage
	s.mu.Lock()
	running := m.running
	if running && m.cut == "" {
		m.cut, m.atEnd = why, atEnd
		if !atEnd {
			s.note(step{Cut: &cut{Slot: m.place.slot, Why: why}})
		}
	}
	if running { // the place is not another stage's before it was signalled
		s.work.Add(1)
		defer s.work.Done()
	}
	s.mu.Unlock()
	if running {
		m.signal(unix.SIGKILL)
	}
}

// signal sends a signal to the member's processes, if they are still there.
func (m *member) signal(what unix.Signal) {
	if !m.up.Load() {
		return
	}
	if err := m.stage.keeper.programs.Signal(m.place.slot, what); err != nil {
		m.stage.keeper.log.Warn("an instance could not be sent a signal", "instance", m.place.name, "signal", what, "error", err)
	}
}

// clearAll kills every process at members' slots, and returns how many are left after a while.
func (k *Keeper) clearAll(ctx context.Context, members []*member) (left int, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearing)
	defer cancel()
	return k.programs.Clear(ctx, slotsOf(members))
}
