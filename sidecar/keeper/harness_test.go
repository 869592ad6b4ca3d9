//go:build linux

package keeper

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
	"github.com/groundplan/groundplan/sidecar/links"
)

// theReaper is the one of the whole test process, which also inherits orphans as the first process of a namespace does.
var theReaper *reaper.Reaper

func TestMain(m *testing.M) {
	if os.Getenv("KEEPER_TEST_EAT") != "" {
		eat()
		return
	}
	if folder := os.Getenv(adoptVariable); folder != "" {
		if err := keepElsewhere(runs.Folder(folder)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	theReaper = reaper.New()
	status := m.Run()
	theReaper.Close()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// fakeNetwork gives each process a network namespace of its own, with nothing in it.
type fakeNetwork struct {
	mu      sync.Mutex
	present map[int]string
	inodes  map[int]uint64
	// held keeps the namespaces: a number that is free again may become that of somebody else's, whose processes would be
	// taken for an instance's and killed.
	held     map[int]*os.File
	addFault func(Seat) error
	added    []int // slots
	peers    []control.Peer
}

func newFakeNetwork() *fakeNetwork {
	return &fakeNetwork{
		present: map[int]string{}, inodes: map[int]uint64{}, held: map[int]*os.File{},
	}
}

func (f *fakeNetwork) Subnet() netip.Prefix { return netip.MustParsePrefix("10.0.0.0/16") }
func (f *fakeNetwork) Gateway() netip.Addr  { return netip.MustParseAddr("100.96.0.1") }

func (f *fakeNetwork) Addresses(slot int) (control, data netip.Addr) {
	n := slot + 2
	return netip.AddrFrom4([4]byte{100, 96, byte(n >> 8), byte(n)}), netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
}

func (f *fakeNetwork) Add(ctx context.Context, seats []Seat) []error {
	faults := make([]error, len(seats))
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range seats {
		if f.addFault != nil {
			faults[i] = f.addFault(s)
		}
		if f.added = append(f.added, s.Slot); faults[i] == nil {
			f.present[s.Slot] = s.Hostname
		}
	}
	return faults
}

func (f *fakeNetwork) SetPeers(peers []control.Peer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers = peers
	return nil
}

func (f *fakeNetwork) Present(slot int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.present[slot] != ""
}

func (f *fakeNetwork) Start(slot int, cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		held, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		f.mu.Lock()
		f.held[slot].Close() // nil at first, which is an error and nothing else
		f.held[slot], f.inodes[slot] = held, networkOf("thread-self")
		f.mu.Unlock()
		done <- cmd.Start()
	}()
	return <-done
}

func (f *fakeNetwork) Inode(slot int) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inodes[slot]
}

func (f *fakeNetwork) Address6(slot int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(slot + 2)})
}

// fakeShaping keeps what it was asked for.
type fakeShaping struct {
	moved    map[int]netip.Prefix // instances on other nodes
	mu       sync.Mutex
	seated   []pipelines.Group
	stage    pipelines.Network
	standing []string // events
	configs  map[int]Config
	calls    []string
	fail     map[string]error // by the name of the call
	hold     chan struct{}    // when set, Configure, Begin and SetStage wait for it
	pairs    []control.Pair
	overload string
}

func (f *fakeShaping) note(ctx context.Context, name, about string) error {
	f.mu.Lock()
	f.calls = append(f.calls, strings.TrimSpace(name+" "+about))
	hold := f.hold
	f.mu.Unlock()
	if hold != nil && (name == "Move" || name == "Configure" || name == "Begin" || name == "SetStage") {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail[name]
}

func (f *fakeShaping) Seat(ctx context.Context, groups []pipelines.Group) error {
	f.mu.Lock()
	f.seated = groups
	f.mu.Unlock()
	return f.note(ctx, "Seat", "")
}

func (f *fakeShaping) SetStage(ctx context.Context, state pipelines.Network) error {
	f.mu.Lock()
	f.stage = state
	f.mu.Unlock()
	return f.note(ctx, "SetStage", state.Access)
}

func (f *fakeShaping) Begin(ctx context.Context, event links.Event) error {
	f.mu.Lock()
	f.standing = append(f.standing, event.Name)
	f.mu.Unlock()
	return f.note(ctx, "Begin", event.Name)
}

func (f *fakeShaping) End(ctx context.Context, name string) error {
	f.mu.Lock()
	f.standing = slices.DeleteFunc(f.standing, func(other string) bool { return other == name })
	f.mu.Unlock()
	return f.note(ctx, "End", name)
}

func (f *fakeShaping) Configure(ctx context.Context, slot int, config Config) error {
	f.mu.Lock()
	f.configs[slot] = config
	f.mu.Unlock()
	return f.note(ctx, "Configure", fmt.Sprint(slot))
}

func (f *fakeShaping) Restore(ctx context.Context, slots []int) error {
	f.mu.Lock()
	for _, slot := range slots {
		delete(f.configs, slot)
	}
	f.mu.Unlock()
	return f.note(ctx, "Restore", fmt.Sprint(slots))
}

func (f *fakeShaping) Prove(ctx context.Context, verify pipelines.Verify, seed uint64, report func(done, total int)) (control.Proof, error) {
	report(1, verify.Pairs)
	return control.Proof{Shaper: "fake", Seed: seed, Tolerance: verify.Tolerance, Pairs: f.pairs}, f.note(ctx, "Prove", fmt.Sprint(verify.Pairs))
}

func (f *fakeShaping) Overload() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.overload
}

func (f *fakeShaping) ResetOverload() { _ = f.note(context.Background(), "ResetOverload", "") }

func (f *fakeShaping) Move(ctx context.Context, slot int, address netip.Prefix) error {
	f.mu.Lock()
	if f.moved == nil {
		f.moved = map[int]netip.Prefix{}
	}
	if f.moved[slot] = address; !address.IsValid() {
		delete(f.moved, slot)
	}
	f.mu.Unlock()
	return f.note(ctx, "Move", fmt.Sprint(slot, " ", address))
}

// config is what a slot was configured as last.
func (f *fakeShaping) config(slot int) (Config, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, there := f.configs[slot]
	return c, there
}

// called lists the calls that begin with a text.
func (f *fakeShaping) called(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []string
	for _, call := range f.calls {
		if strings.HasPrefix(call, prefix) {
			found = append(found, call)
		}
	}
	return found
}

// bench is a keeper on fakes.
type bench struct {
	*Keeper
	t        *testing.T
	network  *fakeNetwork
	shaping  *fakeShaping
	signals  *fakeSync
	programs *mortal
}

// mortal is Programs whose pods may go.
type mortal struct {
	*Children
	mu     sync.Mutex
	ended  map[int]func(Exit)
	gone   map[int]string
	placed []Home
	forgot []int
}

func (m *mortal) Place(ctx context.Context, homes []Home) []error {
	m.mu.Lock()
	m.placed = append(m.placed, homes...)
	m.mu.Unlock()
	return m.Children.Place(ctx, homes)
}

func (m *mortal) Forget(slot int) { m.forgot = append(m.forgot, slot) }

func (m *mortal) Start(slot int, p Program, ended func(Exit)) (Started, error) {
	m.mu.Lock()
	why := m.gone[slot]
	m.ended[slot] = ended
	m.mu.Unlock()
	if why != "" {
		return Started{}, fmt.Errorf("starting: %w", &Lost{why})
	}
	return m.Children.Start(slot, p, func(exit Exit) {
		m.mu.Lock()
		hears := m.ended[slot]
		m.ended[slot] = nil
		m.mu.Unlock()
		if hears != nil {
			hears(exit)
		}
	})
}

// lose has a slot's pod go, with what runs in it.
func (m *mortal) lose(slot int, why string) {
	m.mu.Lock()
	hears := m.ended[slot]
	m.ended[slot] = nil
	m.gone[slot] = why
	m.mu.Unlock()
	_ = m.Signal(slot, unix.SIGKILL)
	if hears != nil {
		hears(Exit{At: time.Now(), Lost: why})
	}
}

// revive has another pod in its place.
func (m *mortal) revive(slot int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.gone, slot)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchWith(t, newFakeSync())
}

// newBenchWith is a bench whose sync service others use too.
func newBenchWith(t *testing.T, signals *fakeSync) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("giving each process a network namespace of its own takes root")
	}
	b := &bench{
		t: t, network: newFakeNetwork(), shaping: &fakeShaping{configs: map[int]Config{}, fail: map[string]error{}}, signals: signals,
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	folder := runs.Home(t.TempDir()).Run("run-1")
	programs, err := NewChildren(folder, b.network, theReaper, log)
	if err != nil {
		t.Fatal(err)
	}
	b.programs = &mortal{Children: programs, ended: map[int]func(Exit){}, gone: map[int]string{}}
	b.Keeper, err = New(Options{
		Folder: folder, Network: b.network, Shaping: b.shaping, Sync: b.signals, Programs: b.programs, Log: log, Port: 5050,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := b.Release(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// shell is a group whose instances run a shell script; the case is its $1.
func shell(name string, instances int, script string) control.Group {
	return control.Group{
		Group:   pipelines.Group{Name: name, Instances: instances, Outcome: pipelines.OutcomeReport, Testground: true},
		Program: "/bin/sh", Arguments: []string{"-c", script},
	}
}

func (b *bench) place(groups ...control.Group) control.Status {
	b.t.Helper()
	status, err := b.Place(b.t.Context(), placement(groups...))
	if err != nil {
		b.t.Fatal(err)
	}
	return status
}

func placement(groups ...control.Group) control.Placement {
	ask := control.Placement{Run: "run-1", Pipeline: "plan", Seed: 7, All: groups}
	for _, g := range groups {
		ask.Groups = append(ask.Groups, g.Name)
	}
	return ask
}

// run opens the gate and waits for the stage's end.
func (b *bench) run(key string, ask control.RunStage) control.RunStatus {
	b.t.Helper()
	b.open(key, ask)
	return b.end(key)
}

func (b *bench) open(key string, ask control.RunStage) {
	b.t.Helper()
	if ask.Stage == "" {
		ask.Stage = "lookups"
	}
	if _, err := b.Open(b.t.Context(), key, ask); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) end(key string) control.RunStatus {
	b.t.Helper()
	return b.until(key, func(s control.RunStatus) bool { return s.Done })
}

// until waits for a stage to come to a state.
func (b *bench) until(key string, there func(control.RunStatus) bool) control.RunStatus {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	var since int64
	for {
		status, err := b.Wait(ctx, key, since, 10*time.Second)
		if err != nil {
			b.t.Fatalf("waiting for stage %s, which stands at %+v: %v", key, status, err)
		}
		if there(status) {
			return status
		}
		if status.Done {
			b.t.Fatalf("stage %s ended: %+v", key, status)
		}
		since = status.Version
	}
}

// results are what the stage's file says, by instance.
func (b *bench) results(stage string) map[string]control.Instance {
	b.t.Helper()
	data, err := os.ReadFile(b.folder.Stage(stage))
	if err != nil {
		b.t.Fatal(err)
	}
	found := map[string]control.Instance{}
	for text := range strings.Lines(string(data)) {
		var i control.Instance
		if err := json.Unmarshal([]byte(text), &i); err != nil {
			b.t.Fatalf("%s: %v", text, err)
		}
		name := fmt.Sprintf("%s/%d", i.Group, i.Index)
		if _, twice := found[name]; twice && found[name].Attempt == i.Attempt {
			b.t.Errorf("two lines for %s", name)
		}
		found[name] = i
	}
	return found
}

func (b *bench) output(group string, index int, name string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.folder.Outputs(group, index), name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// alive lists the processes of this test process's session tree that run a command with that text in its arguments.
func alive(t *testing.T, text string) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range names {
		line, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(line), text) && !strings.Contains(name, fmt.Sprint(os.Getpid())) {
			found = append(found, name)
		}
	}
	return found
}

// eat takes as many bytes of memory as asked, and says so on stdout.
func eat() {
	var size int
	fmt.Sscan(os.Getenv("KEEPER_TEST_EAT"), &size)
	memory := make([]byte, size)
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	fmt.Println(`{"event":{"success_event":{"group":"g"}}}`)
	time.Sleep(400 * time.Millisecond)
}
