package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
	"github.com/groundplan/groundplan/sidecar/node"
)

const token = "0123456789abcdef"

// standIn is the backend of a sidecar that stands in for a real one.
type standIn struct {
	told    node.Sidecar
	started time.Time
}

// beStandIn is what the test's program does as a sidecar.
func beStandIn() error {
	ctx, told, err := node.Attend(context.Background(), os.Stdin)
	if err != nil {
		return err
	}
	if told.Seed == 666 {
		return errors.New("this seed is a bad one")
	}
	l, err := control.Listen(runs.Folder(told.Folder))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	server := &control.Server{
		Backend: &standIn{told: told, started: time.Now()}, Log: slog.New(slog.DiscardHandler),
		Released: func() { cancel(nil) }, IdleLimit: told.IdleLimit, Idle: func() { cancel(nil) },
	}
	err = server.Serve(ctx, l)
	return errors.Join(err, l.Close())
}

func (s *standIn) Place(_ context.Context, ask control.Placement) (control.Status, error) {
	return control.Status{Run: ask.Run}, node.WriteInstances(runs.Folder(s.told.Folder), ask)
}

func (s *standIn) Network(context.Context, control.Network) (control.NetworkReply, error) {
	return control.NetworkReply{}, nil
}

func (s *standIn) Open(_ context.Context, key string, _ control.RunStage) (control.RunStatus, error) {
	if key == "die/now" {
		fmt.Fprintln(os.Stderr, "as I was told")
		os.Exit(3)
	}
	return control.RunStatus{Key: key}, nil
}

func (s *standIn) Wait(ctx context.Context, key string, _ int64, wait time.Duration) (control.RunStatus, error) {
	select {
	case <-time.After(wait):
		return control.RunStatus{Key: key, Version: 7}, nil
	case <-ctx.Done():
		return control.RunStatus{}, ctx.Err()
	}
}

func (s *standIn) Halt(_ context.Context, key string) (control.RunStatus, error) {
	return control.RunStatus{}, control.Refuse(http.StatusNotFound, "no stage %q", key)
}
func (s *standIn) HaltAll(context.Context) (control.Status, error) { return control.Status{}, nil }
func (s *standIn) Status(context.Context) (control.Status, error) {
	return control.Status{Run: filepath.Base(s.told.Folder), Started: s.started, New: int(s.told.Seed)}, nil
}
func (s *standIn) Release(context.Context) (control.Status, error) { return control.Status{}, nil }

// agent is an agent in this process.
type agent struct {
	*node.Client
	t       *testing.T
	options node.Options
	address string
	stop    context.CancelFunc
	ended   chan error
}

func startAgent(t *testing.T, o node.Options) *agent {
	t.Helper()
	leaksNothing(t)
	dir := t.TempDir()
	o.Name, o.Address, o.Token, o.Redis = "n1", netip.MustParseAddr("192.0.2.1"), token, "redis://:secret@192.0.2.9"
	o.State, o.Kubelet = filepath.Join(dir, "s"), filepath.Join(dir, "kubelet")
	o.Command = []string{os.Args[0]}
	o.Env = launchtest.Environment(roleStandIn)
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	a := &agent{t: t, options: o}
	a.start()
	t.Cleanup(func() { a.end() })
	return a
}

func (a *agent) start() {
	a.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	serves, err := node.New(a.options)
	if err != nil {
		a.t.Fatal(err)
	}
	var ctx context.Context
	ctx, a.stop = context.WithCancel(context.Background())
	a.address, a.ended = l.Addr().String(), make(chan error, 1)
	go func() { a.ended <- serves.Serve(ctx, l) }()
	a.Client = node.Dial(a.dial, token)
}

func (a *agent) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", a.address)
}

// end ends the agent as SIGTERM does.
func (a *agent) end() {
	a.t.Helper()
	a.stop()
	if err := <-a.ended; err != nil {
		a.t.Error(err)
	}
	a.ended <- nil
	a.Close()
}

func (a *agent) folder(run string) runs.Folder { return runs.Home(a.options.State).Run(run) }

func (a *agent) ensure(run string) control.Status {
	a.t.Helper()
	status, err := a.Ensure(a.t.Context(), run, node.Ask{Seed: 7})
	if err != nil {
		a.t.Fatal(err)
	}
	return status
}

// pid is the process of the run's sidecar.
func (a *agent) pid(run string) int {
	a.t.Helper()
	info, err := a.Node(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	for _, r := range info.Runs {
		if r.ID == run {
			return r.PID
		}
	}
	return 0
}

func TestARunFromItsStartToItsRemoval(t *testing.T) {
	a := startAgent(t, node.Options{})
	first := a.ensure("r1")
	if first.Run != "r1" || first.New != 7 || first.PID != 0 {
		t.Errorf("%+v", first)
	}
	if again := a.ensure("r1"); !again.Started.Equal(first.Started) {
		t.Errorf("another sidecar was started: %+v, %+v", first, again)
	}
	c := a.Control("r1")
	if s, err := c.Open(t.Context(), "a key/with ünusual%things", control.RunStage{}); err != nil || s.Key != "a key/with ünusual%things" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := c.Wait(t.Context(), "k", 1, 50*time.Millisecond); err != nil || s.Version != 7 {
		t.Errorf("%+v, %v", s, err)
	}
	var refused *control.Error
	if _, err := c.Halt(t.Context(), "k"); !errors.As(err, &refused) || refused.Status != 404 {
		t.Errorf("%v", err)
	}
	info, err := a.Node(t.Context())
	if err != nil || len(info.Runs) != 1 || info.Runs[0].State != node.StateRunning || info.Runs[0].Memory == 0 || info.Name != "n1" {
		t.Errorf("%+v, %v", info, err)
	}
	if err := a.Remove(t.Context(), "r1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(a.folder("r1"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run's folder: %v", err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, control.ErrAway) {
		t.Errorf("got %v, want ErrAway", err)
	}
	if err := a.Remove(t.Context(), "r1"); err != nil {
		t.Errorf("removed again: %v", err)
	}
}

func TestWhoIsRefused(t *testing.T) {
	a := startAgent(t, node.Options{})
	a.ensure("r1")
	for name, c := range map[string]struct {
		do     func() error
		status int
	}{
		"another token":   {func() error { _, err := node.Dial(a.dial, token+"0").Node(t.Context()); return err }, 401},
		"no token":        {func() error { _, err := node.Dial(a.dial, "").Ensure(t.Context(), "r", node.Ask{}); return err }, 401},
		"another seed":    {func() error { _, err := a.Ensure(t.Context(), "r1", node.Ask{Seed: 8}); return err }, 409},
		"a bad id":        {func() error { _, err := a.Ensure(t.Context(), "..%2f", node.Ask{}); return err }, 400},
		"no such archive": {func() error { _, err := a.Archive(t.Context(), "r2", node.ArchiveOptions{}); return err }, 404},
		"a bad archive": {func() error {
			_, err := a.Archive(t.Context(), "r1", node.ArchiveOptions{Index: new(int)})
			return err
		}, 400},
	} {
		var refused *control.Error
		if err := c.do(); !errors.As(err, &refused) || refused.Status != c.status {
			t.Errorf("%s: %v, want a refusal with %d", name, err, c.status)
		}
	}
	answer, err := http.Get("http://" + a.address + "/healthz")
	if err != nil || answer.StatusCode != 200 {
		t.Errorf("without a token: %v, %v", answer, err)
	}
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if _, err := a.Control("r9").Status(t.Context()); !errors.Is(err, control.ErrAway) {
		t.Errorf("a run that isn't there: %v, want ErrAway", err)
	}
}

func TestASidecarThatDies(t *testing.T) {
	a := startAgent(t, node.Options{})
	first := a.ensure("r1")
	c := a.Control("r1")
	if _, err := c.Open(t.Context(), "die/now", control.RunStage{}); !errors.Is(err, control.ErrAway) {
		t.Fatalf("got %v, want ErrAway", err)
	}
	if again := a.ensure("r1"); again.Started.Equal(first.Started) || again.New != 7 {
		t.Errorf("%+v", again)
	}
	events, err := a.folder("r1").ReadEvents()
	if err != nil || len(events) != 1 || events[0].Kind != "sidecar-lost" || !strings.Contains(events[0].Text, "as I was told") {
		t.Errorf("%+v, %v", events, err)
	}
	if err := syscall.Kill(a.pid("r1"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.ensure("r1")
	if err := a.Remove(t.Context(), "r1"); err != nil {
		t.Error(err)
	}
}

func TestASidecarThatDoesNotComeUp(t *testing.T) {
	a := startAgent(t, node.Options{})
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	_, err := a.Ensure(ctx, "r1", node.Ask{Seed: 666})
	var refused *control.Error
	if !errors.As(err, &refused) || refused.Status != 503 || !strings.Contains(err.Error(), "this seed is a bad one") {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	if err := a.Remove(t.Context(), "r1"); err != nil {
		t.Error(err)
	}
}

// TestTheNextAgent has one end, by SIGTERM and by SIGKILL: its sidecars end, and the next one's go on.
func TestTheNextAgent(t *testing.T) {
	a := startAgent(t, node.Options{})
	first := a.ensure("r1")
	pid := a.pid("r1")
	a.end()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the sidecar outlives its agent: %v", err)
	}
	a.start()
	for a.pid("r1") == 0 {
		time.Sleep(time.Millisecond)
	}
	if again := a.ensure("r1"); again.Started.Equal(first.Started) || again.New != 7 {
		t.Errorf("%+v", again)
	}
}

func TestARunThatNobodyCallsAbout(t *testing.T) {
	a := startAgent(t, node.Options{IdleLimit: 300 * time.Millisecond})
	a.ensure("r1")
	for a.pid("r1") != 0 {
		time.Sleep(10 * time.Millisecond)
	}
	read, err := a.Archive(t.Context(), "r1", node.ArchiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	a.end()
	a.start()
	if info, err := a.Node(t.Context()); err != nil || len(info.Runs) != 0 {
		t.Errorf("a released run was taken up again: %+v, %v", info, err)
	}
	a.ensure("r1")
}

// TestARemovalThatWasInterrupted starts an agent where the one before was killed while it removed a run.
func TestARemovalThatWasInterrupted(t *testing.T) {
	a := startAgent(t, node.Options{})
	a.ensure("r1")
	a.end()
	text := `{"seed":7,"removing":true}`
	if err := os.WriteFile(filepath.Join(string(a.folder("r1")), "agent.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	a.start()
	for {
		if _, err := os.Stat(string(a.folder("r1"))); errors.Is(err, os.ErrNotExist) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestInstancesOfAPlacement(t *testing.T) {
	folder := runs.Home(t.TempDir()).Run("r")
	all := []control.Group{{Group: pipelines.Group{Name: "a", Instances: 2}}, {Group: pipelines.Group{Name: "b", Instances: 1}}}
	for _, pods := range [][]control.Pod{{{Slot: 3}}, {{Slot: -1}}} {
		if err := node.WriteInstances(folder, control.Placement{All: all, Node: &control.Node{Pods: pods}}); err == nil {
			t.Errorf("%+v was taken", pods)
		}
	}
	if err := node.WriteInstances(folder, control.Placement{All: all}); err == nil {
		t.Error("a placement without a node was taken")
	}
	if here, err := node.ReadInstances(folder); here != nil || err != nil {
		t.Errorf("%+v, %v", here, err)
	}
	if err := node.WriteInstances(folder, control.Placement{All: all, Node: &control.Node{Pods: []control.Pod{{Slot: 2, UID: "u"}, {Slot: 0}}}}); err != nil {
		t.Fatal(err)
	}
	here, err := node.ReadInstances(folder)
	if err != nil || len(here) != 2 || here[0].Group != "b" || here[0].Index != 0 || here[0].Pod.UID != "u" || here[1].Group != "a" {
		t.Errorf("%+v, %v", here, err)
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	good := node.Options{Name: "n", Address: netip.MustParseAddr("192.0.2.1"), State: "/s", Kubelet: "/k", Redis: "redis://r", Token: token, Command: []string{"x"}}
	if _, err := node.New(good); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*node.Options){
		"name":     func(o *node.Options) { o.Name = "" },
		"address":  func(o *node.Options) { o.Address = netip.Addr{} },
		"absolute": func(o *node.Options) { o.State = "s" },
		"kubelet":  func(o *node.Options) { o.Kubelet = "k" },
		"Redis":    func(o *node.Options) { o.Redis = "" },
		"token":    func(o *node.Options) { o.Token = "short" },
		"command":  func(o *node.Options) { o.Command = nil },
	} {
		o := good
		spoil(&o)
		if _, err := node.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
