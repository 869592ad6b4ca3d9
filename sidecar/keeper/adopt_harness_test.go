//go:build linux

package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
	"github.com/groundplan/groundplan/sidecar/links"
)

// adoptVariable is set in a process that is a keeper, whose programs, sync service and shaping are in the process that
// started it: they outlive it. It holds the folder of the run.
const adoptVariable = "KEEPER_TEST_ADOPT"

// World is what outlives a keeper, as it is called from there.
type World struct {
	ctx      context.Context // of the test
	programs *Children
	signals  *fakeSync

	mu       sync.Mutex
	exits    map[Ran]*ending
	standing []string // events that the shaping of the keeper that lives has in force
	configs  map[int]netip.Prefix
	stage    string
	proofs   int
	held     bool
}

// Ran is one start of a program.
type Ran struct {
	Slot, Starts int
	Key          string
}

type ending struct {
	known chan struct{}
	exit  Exit
}

func newWorldOf(ctx context.Context, programs *Children) *World {
	return &World{ctx: ctx, programs: programs, signals: newFakeSync(), exits: map[Ran]*ending{}, configs: map[int]netip.Prefix{}}
}

func (w *World) at(which Ran) *ending {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.exits[which] == nil {
		w.exits[which] = &ending{known: make(chan struct{})}
	}
	return w.exits[which]
}

type StartAsk struct {
	Slot    int
	Program Program
}

func (w *World) Start(ask StartAsk, started *Started) (err error) {
	end := w.at(Ran{ask.Slot, ask.Program.Starts, ask.Program.Key})
	var once sync.Once
	*started, err = w.programs.Start(ask.Slot, ask.Program, func(exit Exit) {
		once.Do(func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			select {
			case <-end.known:
			default:
				end.exit = exit
				close(end.known)
			}
		})
	})
	return err
}

func (w *World) Ended(which Ran, exit *Exit) error {
	end := w.at(which)
	select {
	case <-end.known:
		*exit = end.exit
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

type SignalAsk struct {
	Slots []int
	All   bool
	What  unix.Signal
}

func (w *World) Signal(ask SignalAsk, _ *int) error {
	if ask.All {
		return w.programs.SignalAll(ask.Slots, ask.What)
	}
	return w.programs.Signal(ask.Slots[0], ask.What)
}

func (w *World) Clear(slots []int, left *int) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	*left, err = w.programs.Clear(ctx, slots)
	return err
}

type SyncAsk struct {
	Space, Key string
	Name       string
	N          int64
	Document   []byte
}

func (w *World) Count(ask SyncAsk, _ *int) error {
	return w.signals.Signal(context.Background(), ask.Space, ask.Key, ask.N)
}

func (w *World) Once(ask SyncAsk, _ *int) error {
	_, err := w.signals.SignalOnce(context.Background(), ask.Space, ask.Key, ask.Name)
	return err
}

func (w *World) Barrier(ask SyncAsk, _ *int) error {
	return w.signals.Barrier(w.ctx, ask.Space, ask.Key, ask.N)
}

func (w *World) Publish(ask SyncAsk, seq *int64) (err error) {
	*seq, err = w.signals.Publish(context.Background(), ask.Space, ask.Key, ask.Document)
	return err
}

func (w *World) Item(ask SyncAsk, document *[]byte) error {
	n := int64(0)
	for item := range w.signals.Subscribe(w.ctx, ask.Space, ask.Key) {
		if n++; n == ask.N {
			*document = item
			return nil
		}
	}
	return w.ctx.Err()
}

type ShapeAsk struct {
	Call, Name string
	Slots      []int
	Address    netip.Prefix
}

// Shape changes what is in force. A keeper that begins finds nothing in force.
func (w *World) Shape(ask ShapeAsk, _ *int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch ask.Call {
	case "Born":
		w.standing, w.stage = nil, ""
		clear(w.configs)
	case "Begin":
		w.standing = append(w.standing, ask.Name)
	case "End":
		w.standing = slices.DeleteFunc(w.standing, func(name string) bool { return name == ask.Name })
	case "SetStage":
		w.stage = ask.Name
	case "Hold", "Resume":
		w.held = ask.Call == "Hold"
	case "Configure", "Move":
		if w.configs[ask.Slots[0]] = ask.Address; !ask.Address.IsValid() {
			delete(w.configs, ask.Slots[0])
		}
	case "Restore":
		for _, slot := range ask.Slots {
			delete(w.configs, slot)
		}
	case "Prove":
		w.proofs++
	}
	return nil
}

// far is what a keeper's process has in the place of a World.
type far struct {
	*rpc.Client
	folder runs.Folder
}

func call[R any](ctx context.Context, f far, name string, ask any) (R, error) {
	var reply R
	done := f.Go("World."+name, ask, &reply, make(chan *rpc.Call, 1))
	select {
	case <-done.Done:
		return reply, done.Error
	case <-ctx.Done():
		var none R
		return none, ctx.Err()
	}
}

var always = context.Background()

type farPrograms struct{ far }

func (f farPrograms) Place(_ context.Context, homes []Home) []error { return make([]error, len(homes)) }

func (f farPrograms) Start(slot int, p Program, ended func(Exit)) (Started, error) {
	started, err := call[Started](always, f.far, "Start", StartAsk{slot, p})
	if err != nil {
		return started, err
	}
	go func() {
		if exit, err := call[Exit](always, f.far, "Ended", Ran{slot, p.Starts, p.Key}); err == nil {
			ended(exit)
		}
	}()
	return started, nil
}

func (f farPrograms) Signal(slot int, what unix.Signal) error {
	_, err := call[int](always, f.far, "Signal", SignalAsk{Slots: []int{slot}, What: what})
	return err
}

func (f farPrograms) SignalAll(slots []int, what unix.Signal) error {
	_, err := call[int](always, f.far, "Signal", SignalAsk{Slots: slots, All: true, What: what})
	return err
}

func (f farPrograms) Clear(ctx context.Context, slots []int) (int, error) {
	return call[int](ctx, f.far, "Clear", slots)
}

func (f farPrograms) Folders(slot int) (outputs, temp string) {
	return f.folder.Outputs("g", slot), f.folder.Temp("g", slot)
}

func (f farPrograms) Outputs(slot int) (*os.Root, error) {
	return os.OpenRoot(f.folder.Outputs("g", slot))
}

type farSync struct{ far }

func (f farSync) Signal(ctx context.Context, space, state string, n int64) error {
	_, err := call[int](ctx, f.far, "Count", SyncAsk{Space: space, Key: state, N: n})
	return err
}

func (f farSync) SignalOnce(ctx context.Context, space, state, name string) (func(), error) {
	_, err := call[int](ctx, f.far, "Once", SyncAsk{Space: space, Key: state, Name: name})
	return func() {}, err
}

func (f farSync) Barrier(ctx context.Context, space, state string, target int64) error {
	_, err := call[int](ctx, f.far, "Barrier", SyncAsk{Space: space, Key: state, N: target})
	return err
}

func (f farSync) Publish(ctx context.Context, space, topic string, document json.RawMessage) (int64, error) {
	return call[int64](ctx, f.far, "Publish", SyncAsk{Space: space, Key: topic, Document: document})
}

func (f farSync) Subscribe(ctx context.Context, space, topic string) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for n := int64(1); ; n++ {
			document, err := call[[]byte](ctx, f.far, "Item", SyncAsk{Space: space, Key: topic, N: n})
			if err != nil || !yield(document, nil) {
				return
			}
		}
	}
}

type farShaping struct{ far }

func (f farShaping) shape(ctx context.Context, ask ShapeAsk) error {
	_, err := call[int](ctx, f.far, "Shape", ask)
	return err
}

func (f farShaping) Seat(context.Context, []pipelines.Group) error { return nil }
func (f farShaping) SetStage(ctx context.Context, state pipelines.Network) error {
	return f.shape(ctx, ShapeAsk{Call: "SetStage", Name: state.Access})
}

func (f farShaping) Begin(ctx context.Context, event links.Event) error {
	return f.shape(ctx, ShapeAsk{Call: "Begin", Name: event.Name})
}

func (f farShaping) End(ctx context.Context, name string) error {
	return f.shape(ctx, ShapeAsk{Call: "End", Name: name})
}

func (f farShaping) Configure(ctx context.Context, slot int, c Config) error {
	return f.shape(ctx, ShapeAsk{Call: "Configure", Slots: []int{slot}, Address: c.Address})
}

func (f farShaping) Restore(ctx context.Context, slots []int) error {
	return f.shape(ctx, ShapeAsk{Call: "Restore", Slots: slots})
}

func (f farShaping) Move(ctx context.Context, slot int, address netip.Prefix) error {
	return f.shape(ctx, ShapeAsk{Call: "Move", Slots: []int{slot}, Address: address})
}

func (f farShaping) Hold() { _ = f.shape(always, ShapeAsk{Call: "Hold"}) }

func (f farShaping) Resume(ctx context.Context) error { return f.shape(ctx, ShapeAsk{Call: "Resume"}) }

func (f farShaping) Prove(ctx context.Context, verify pipelines.Verify, seed uint64, report func(done, total int)) (control.Proof, error) {
	return control.Proof{Shaper: "far", Seed: seed}, f.shape(ctx, ShapeAsk{Call: "Prove"})
}

func (f farShaping) Overload() string { return "" }
func (f farShaping) ResetOverload()   {}

// keepElsewhere is a keeper in a process of its own.
func keepElsewhere(folder runs.Folder) error {
	client, err := rpc.Dial("unix", filepath.Join(string(folder), "world.sock"))
	if err != nil {
		return err
	}
	f := far{client, folder}
	if err := (farShaping{f}).shape(always, ShapeAsk{Call: "Born"}); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	calls, err := control.Listen(folder)
	if err != nil {
		return err
	}
	k, err := New(Options{
		Folder: folder, Network: newFakeNetwork(), Shaping: farShaping{f}, Sync: farSync{f}, Programs: farPrograms{f},
		Log: log, Port: 5050, Adopt: true,
	})
	if err != nil {
		return err
	}
	path := filepath.Join(string(folder), "observe.sock")
	_ = os.Remove(path)
	seen, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() {
		_ = http.Serve(seen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var o Observation
			if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			k.Observe(o)
		}))
	}()
	ctx, over := context.WithCancel(always)
	server := &control.Server{Backend: k, Log: log, Released: over}
	return server.Serve(ctx, calls)
}

// successor starts keepers, one after the other, that take each other's place.
type successor struct {
	t      *testing.T
	folder runs.Folder
	world  *World
	client *control.Client
	pid    int // of the keeper that lives; 0: none
	gone   chan struct{}
}

// newSuccessor makes the world of a run whose groups have their programs here.
func newSuccessor(t *testing.T, instances int) *successor {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("giving each process a network namespace of its own takes root")
	}
	dir, err := os.MkdirTemp("", "keeper") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &successor{t: t, folder: runs.Home(dir).Run("run-1")}
	if err := os.MkdirAll(string(s.folder), 0o755); err != nil {
		t.Fatal(err)
	}
	programs, err := NewChildren(s.folder, newFakeNetwork(), theReaper, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var homes []Home
	for i := range instances {
		homes = append(homes, Home{Slot: i, Group: "g", Index: i})
	}
	if err := errors.Join(programs.Place(t.Context(), homes)...); err != nil {
		t.Fatal(err)
	}
	s.world = newWorldOf(t.Context(), programs)
	s.serve()
	s.client = control.Dial(control.Socket(s.folder))
	t.Cleanup(s.client.Close)
	t.Cleanup(s.kill)
	return s
}

func (s *successor) serve() {
	server := rpc.NewServer()
	if err := server.Register(s.world); err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(string(s.folder), "world.sock"))
	if err != nil {
		s.t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { server.ServeConn(conn) })
		}
	})
	s.t.Cleanup(func() {
		_ = l.Close()
		work.Wait()
	})
}

// begin starts a keeper.
func (s *successor) begin() {
	s.t.Helper()
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"keeper"}, Env: append(os.Environ(), adoptVariable+"="+string(s.folder))}
	file, err := os.OpenFile(filepath.Join(string(s.folder), "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	gone := make(chan struct{})
	cmd.Stderr, s.gone = file, gone
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.pid, err = theReaper.Start(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	}, func(reaper.Exit) { close(gone) })
	if err != nil {
		s.t.Fatal(err)
	}
}

// kill kills it, with SIGKILL, wherever it is.
func (s *successor) kill() {
	if s.pid != 0 {
		_ = theReaper.Signal(s.pid, unix.SIGKILL)
		<-s.gone
	}
	s.pid = 0
}
