package node_test

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// placed gives a run instances in pods, and returns the pods' folders.
func (a *agent) placed(run string, groups ...pipelines.Group) map[string]string {
	a.t.Helper()
	a.ensure(run)
	ask := control.Placement{Run: run, Node: &control.Node{Name: "n1"}}
	folders := map[string]string{}
	slot := 0
	for _, g := range groups {
		ask.All = append(ask.All, control.Group{Group: g})
		for i := range g.Instances {
			uid := fmt.Sprintf("uid-%d", slot)
			ask.Node.Pods = append(ask.Node.Pods, control.Pod{Slot: slot, UID: uid})
			name := fmt.Sprintf("%s/%d", g.Name, i)
			folders[name] = filepath.Join(a.options.Kubelet, "pods", uid, "volumes", "kubernetes.io~empty-dir", "groundplan", "outputs")
			if err := os.MkdirAll(folders[name], 0o755); err != nil {
				a.t.Fatal(err)
			}
			slot++
		}
	}
	if _, err := a.Control(run).Place(a.t.Context(), ask); err != nil {
		a.t.Fatal(err)
	}
	return folders
}

// unpacked reads an archive to its end.
func (a *agent) unpacked(run string, o node.ArchiveOptions) (map[string]string, node.Manifest) {
	a.t.Helper()
	stream, err := a.Archive(a.t.Context(), run, o)
	if err != nil {
		a.t.Fatal(err)
	}
	defer stream.Close()
	files := map[string]string{}
	for r := tar.NewReader(stream); ; {
		header, err := r.Next()
		if err != nil {
			a.t.Fatalf("%v; no manifest after %d files", err, len(files))
		}
		text, err := io.ReadAll(r)
		if err != nil {
			a.t.Fatal(err)
		}
		if header.Name == node.ManifestName {
			var m node.Manifest
			if err := json.Unmarshal(text, &m); err != nil {
				a.t.Fatal(err)
			}
			return files, m
		}
		files[header.Name] = string(text)
	}
}

func TestArchive(t *testing.T) {
	a := startAgent(t, node.Options{})
	folders := a.placed("r1", pipelines.Group{Name: "a", Instances: 2}, pipelines.Group{Name: "b", Instances: 2})
	other := t.TempDir()
	write(t, filepath.Join(other, "secret"), "secret")
	for name, folder := range folders {
		write(t, filepath.Join(folder, "stdout.log"), "I am "+name)
	}
	hostile := folders["a/1"]
	write(t, filepath.Join(hostile, "deep", "er", "x"), "deep")
	for link, target := range map[string]string{
		"absolute": filepath.Join(other, "secret"), "up": "../../../../../../../etc/passwd", "folder": other,
		"neighbour": "../../../../../uid-0/volumes/kubernetes.io~empty-dir/groundplan/outputs/stdout.log",
	} {
		if err := os.Symlink(target, filepath.Join(hostile, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(hostile, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(hostile, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The folder of outputs itself may be made a link.
	if err := errors.Join(os.RemoveAll(folders["b/0"]), os.Symlink(other, folders["b/0"]), os.RemoveAll(filepath.Join(folders["b/1"], "..", "..", "..", ".."))); err != nil {
		t.Fatal(err)
	}
	write(t, a.folder("r1").Stage("s"), "{}\n")
	write(t, a.folder("r1").Events(), "{}\n")
	files, m := a.unpacked("r1", node.ArchiveOptions{})
	for name, text := range map[string]string{
		"outputs/a/0/stdout.log": "I am a/0", "outputs/a/1/stdout.log": "I am a/1", "outputs/a/1/deep/er/x": "deep",
		"stages/s.jsonl": "{}\n", "events.jsonl": "{}\n", "sidecar.log": "",
	} {
		if got, ok := files[name]; !ok || got != text {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
		delete(files, name)
	}
	if len(files) > 0 {
		t.Errorf("also in it: %q", files)
	}
	for _, name := range []string{"absolute", "up", "folder", "neighbour", "pipe", "sock"} {
		if m.Skipped["outputs/a/1/"+name] == "" {
			t.Errorf("%s isn't named: %+v", name, m)
		}
	}
	if len(m.Gone) != 2 || m.Gone["b/0"] == "" || m.Gone["b/1"] == "" || m.Files != 6 || m.SkippedCount != 6 || strings.Join(m.Instances, " ") != "a/0 a/1" {
		t.Errorf("%+v", m)
	}
	one := 0
	for _, c := range []struct {
		o     node.ArchiveOptions
		files int
	}{{node.ArchiveOptions{Only: node.OnlyOutputs}, 3}, {node.ArchiveOptions{Only: node.OnlyRecords}, 3}, {node.ArchiveOptions{Group: "a"}, 3}, {node.ArchiveOptions{Group: "a", Index: &one}, 1}} {
		if _, m := a.unpacked("r1", c.o); m.Files != c.files {
			t.Errorf("%+v: %+v", c.o, m)
		}
	}
}

// TestAnArchiveOfFilesThatChange reads while files grow and shrink.
func TestAnArchiveOfFilesThatChange(t *testing.T) {
	a := startAgent(t, node.Options{})
	folders := a.placed("r1", pipelines.Group{Name: "a", Instances: 1})
	path := filepath.Join(folders["a/0"], "big")
	write(t, path, strings.Repeat("0123456789abcdef", 1<<16))
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for n := int64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
				_ = os.Truncate(path, (n*7919)%(4<<20))
			}
		}
	}()
	for range 8 {
		if _, m := a.unpacked("r1", node.ArchiveOptions{Group: "a"}); m.Files != 1 {
			t.Errorf("%+v", m)
		}
	}
	close(stop)
	<-stopped
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

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}
