//go:build linux

package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// Seat is a place that the network makes for an instance.
type Seat struct {
	Slot     int
	Hostname string
}

// Network is the fabric that instances sit on.
type Network interface {
	// Subnet is the data network.
	Subnet() netip.Prefix
	// Gateway is the address at which instances find the sync service.
	Gateway() netip.Addr
	Addresses(slot int) (control, data netip.Addr)
	// Add makes what is missing; error i belongs to seat i.
	Add(ctx context.Context, seats []Seat) []error
	Present(slot int) bool
	// Address6 is the IPv6 address on the data network.
	Address6(slot int) netip.Addr
}

// Sync is the sync service.
type Sync interface {
	// Signal counts a state of a name space up by n.
	Signal(ctx context.Context, space, state string, n int64) error
	// SignalOnce counts a state up by one, unless a keeper of this run has done so under that name before. forget says that
	// nobody will ask for it any more.
	SignalOnce(ctx context.Context, space, state, name string) (forget func(), err error)
	// Barrier waits until a state of a name space has been signalled that often.
	Barrier(ctx context.Context, space, state string, target int64) error
	// Publish appends a JSON document to a topic of a name space, and returns its number there, from 1 on. Subscribe yields
	// every document of a topic, from the first on, and waits for more until ctx ends; it yields an error last. Keepers of
	// different nodes speak with each other so, in name spaces that no instance is in.
	Publish(ctx context.Context, space, topic string, document json.RawMessage) (int64, error)
	Subscribe(ctx context.Context, space, topic string) iter.Seq2[json.RawMessage, error]
}

// Peers is what a Network can do besides where a run is spread over several nodes.
type Peers interface {
	// SetPeers says which nodes hold instances of the run, this one among them. It is called before Add; the newest call
	// counts.
	SetPeers(peers []control.Peer) error
}

// Options say what a keeper works with.
type Options struct {
	// Run is the run's id; empty: the name of Folder.
	Run     string
	Folder  runs.Folder
	Network Network
	Shaping Shaping
	Sync    Sync
	// Programs start what instances run.
	Programs Programs
	Log      *slog.Logger
	// Port is where the sync service listens on the network's gateway address.
	Port int
	// Adopt has the keeper note down in Folder what it is asked for and how far that has come, and go on with what another
	// has left there that was killed. Programs have to outlive a keeper for that to be of use. A keeper whose place another
	// is to take is not released: its process just ends.
	Adopt bool
}

// Keeper holds the places of a run and its stages. It is a control.Backend.
type Keeper struct {
	run      string
	folder   runs.Folder
	fabric   Network
	shaping  Shaping
	sync     Sync
	programs Programs
	log      *slog.Logger
	port     int
	started  time.Time
	events   *journal
	memory   memoryShare
	probing  probing
	// lasting says that another keeper may take this one's place: what it would need is noted down, in asked.
	lasting bool
	keeping sync.Mutex
	asked   asked

	// ctx ends when the run is released.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	// placing is held by whoever places instances.
	placing chan struct{}

	mu       sync.RWMutex
	world    *world            // nil before the first placement
	stages   map[string]*stage // by key
	active   map[*stage]struct{}
	setting  *setting // the last one
	closing  bool
	released chan struct{} // closed once all is released
}

// New makes a keeper that holds nothing yet, or what another held whose place it takes. Release ends it.
func New(o Options) (*Keeper, error) {
	if o.Run == "" {
		o.Run = filepath.Base(string(o.Folder))
	}
	for _, dir := range []string{filepath.Dir(o.Folder.Stage("x")), filepath.Dir(stepsPath(o.Folder, "x")), tempRoot(o.Folder)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making the run's folders: %w", err)
		}
	}
	events, err := openJournal(o.Folder.Events())
	if err != nil {
		return nil, err
	}
	k := &Keeper{
		run: o.Run, folder: o.Folder, fabric: o.Network, shaping: o.Shaping, sync: o.Sync, programs: o.Programs, log: o.Log, port: o.Port,
		started: time.Now(), events: events,
		placing: make(chan struct{}, 1), stages: make(map[string]*stage), active: make(map[*stage]struct{}),
		released: make(chan struct{}),
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	if k.lasting = o.Adopt; !k.lasting {
		k.tell("sidecar-started", "", "the sidecar has started")
		return k, nil
	}
	if err := k.adopt(k.ctx); err != nil {
		k.cancel()
		k.work.Wait()
		return nil, errors.Join(err, k.events.close())
	}
	return k, nil
}

// tempRoot is the folder over all instances' temporary folders.
func tempRoot(f runs.Folder) string { return filepath.Dir(filepath.Dir(f.Temp("group", 0))) }

// tell writes a line of the run's event log. That it can't is worth a warning, not a failure.
func (k *Keeper) tell(kind, stage, text string) {
	k.record(runs.Event{Time: time.Now(), Kind: kind, Stage: stage, Text: text})
}

func (k *Keeper) record(event runs.Event) {
	if err := k.events.write(event); err != nil {
		k.log.Warn("an event could not be written", "event", event.Text, "error", err)
	}
}

// Client says who speaks from a slot: the instance's name, as group/index, and the name space of the stage that it
// runs in. ok is false when nothing runs there.
func (k *Keeper) Client(slot int) (name, space string, ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	p := k.world.at(slot)
	if p == nil || p.runs == nil {
		return "", "", false
	}
	return p.name, p.runs.stage.key, true
}

// Status says what the sidecar holds.
func (k *Keeper) Status(context.Context) (control.Status, error) { return k.status(), nil }

func (k *Keeper) status() control.Status {
	k.mu.RLock()
	defer k.mu.RUnlock()
	s := control.Status{Run: k.run, Started: k.started, Groups: make(map[string]control.Counts)}
	if k.world == nil {
		return s
	}
	for _, p := range k.world.places {
		if !p.own {
			continue
		}
		counts := s.Groups[p.group.Name]
		counts.Total++
		if p.placed {
			counts.Placed++
		}
		p.runs.count(&counts)
		s.Groups[p.group.Name] = counts
	}
	s.MemoryPerInstance = k.memory.perInstance()
	s.Probed, s.ToProbe = k.probing.get()
	return s
}

// stage finds a stage by its key.
func (k *Keeper) stage(key string) (*stage, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	s, ok := k.stages[key]
	if !ok {
		return nil, control.Refuse(http.StatusNotFound, "no stage was opened with the key %q", key)
	}
	return s, nil
}

// Wait returns how a stage stands: at once when it is done or newer than since, else when it changes or after wait.
func (k *Keeper) Wait(ctx context.Context, key string, since int64, wait time.Duration) (control.RunStatus, error) {
	s, err := k.stage(key)
	if err != nil {
		return control.RunStatus{}, err
	}
	return s.wait(ctx, since, wait)
}

// Halt ends every process of a stage, and returns once they are gone.
func (k *Keeper) Halt(ctx context.Context, key string) (control.RunStatus, error) {
	s, err := k.stage(key)
	if err != nil {
		return control.RunStatus{}, err
	}
	s.stop(causeHalted)
	select {
	case <-s.over:
		return s.status(), nil
	case <-ctx.Done():
		return s.status(), ctx.Err()
	}
}

// HaltAll halts every stage that runs, and returns once their processes are gone.
func (k *Keeper) HaltAll(ctx context.Context) (control.Status, error) {
	k.mu.RLock()
	var running []*stage
	for s := range k.active {
		running = append(running, s)
		s.stop(causeHalted)
	}
	k.mu.RUnlock()
	for _, s := range running {
		select {
		case <-s.over:
		case <-ctx.Done():
			return k.status(), ctx.Err()
		}
	}
	return k.status(), nil
}

// Release ends every process, removes the temporary files, and takes no further work. Asked twice, the second waits for
// the first.
func (k *Keeper) Release(ctx context.Context) (control.Status, error) {
	k.mu.Lock()
	first := !k.closing
	k.closing = true
	k.mu.Unlock()
	if !first {
		<-k.released
		return k.status(), nil
	}
	defer close(k.released)
	status, err := k.HaltAll(ctx)
	k.cancel()
	k.work.Wait()
	k.placing <- struct{}{} // whoever still places has seen that ctx ended
	defer func() { <-k.placing }()
	if gone := os.RemoveAll(tempRoot(k.folder)); gone != nil {
		err = errors.Join(err, fmt.Errorf("removing temporary files: %w", gone))
	}
	return status, errors.Join(err, k.events.close())
}
