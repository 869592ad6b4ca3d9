//go:build linux

package pods

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/pods/podtest"
)

func TestHowProgramsEnd(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		exit   int
		signal unix.Signal
	}{
		"well":        {script: "echo said; echo wrong >&2", exit: 0},
		"with status": {script: "exit 7", exit: 7},
		"by a signal": {script: "kill -SEGV $$", signal: unix.SIGSEGV},
	} {
		t.Run(name, func(t *testing.T) {
			kinds(t, func(t *testing.T, o podtest.Options) {
				n := newNode(t, 1, o)
				e := launch(t, n.sidecar(nil), 0, shell("k", 1, test.script)).wait(t)
				if test.signal != 0 {
					if !e.Status.Signaled() || e.Status.Signal() != test.signal {
						t.Errorf("ended with %#x", e.Status)
					}
				} else if !e.Status.Exited() || e.Status.ExitStatus() != test.exit {
					t.Errorf("ended with %#x", e.Status)
				}
				if e.PeakMemory < 100<<10 || e.PeakMemory > 1<<30 || e.CPU < 0 || e.CPU > 60 || time.Since(e.At) > time.Minute {
					t.Errorf("its figures are %+v", e)
				}
			})
		})
	}
}

func TestOutputsAndEnvironment(t *testing.T) {
	n := newNode(t, 1, podtest.Options{Env: []string{"IMAGE=its", "A=image", "KUBERNETES_SERVICE_HOST=10.0.0.1"}})
	p := n.sidecar(nil)
	first := launch(t, p, 0, shell("k", 1, "echo $IMAGE $A [$KUBERNETES_SERVICE_HOST]; cat; echo no >&2"))
	first.wait(t)
	if first.Stdout != 0 || first.Stderr != 0 {
		t.Errorf("its part begins at %+v", first.Started)
	}
	root, err := p.Outputs(0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Link("stdout.log", "run.out"); err != nil {
		t.Fatal(err)
	}
	second := launch(t, p, 0, shell("k2", 1, "echo more"))
	second.wait(t)
	if want := int64(len("its asked []\n")); second.Stdout != want || second.Stderr != 3 {
		t.Errorf("the second part begins at %+v", second.Started)
	}
	if got := n.output(0, "stdout.log"); got != "its asked []\nmore\n" {
		t.Errorf("stdout is %q", got)
	}
	if _, err := root.Stat("run.out"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy of the log is still linked: %v", err)
	}
	if outputs, temp := p.Folders(0); outputs != filepath.Join(n.pods[0].Path, "outputs") || temp != filepath.Join(n.pods[0].Path, "temp") {
		t.Errorf("folders are %s and %s", outputs, temp)
	}
}

func TestWhatCannotBeStarted(t *testing.T) {
	n := newNode(t, 1, podtest.Options{Plain: true})
	p := n.sidecar(nil)
	for name, test := range map[string]struct {
		slot int
		path string
		want string
	}{
		"not in the PATH": {0, "no-such-program", `no program "no-such-program" in the image's PATH`},
		"no such file":    {0, "/no/such/file", "no such file"},
		"no program":      {0, "/etc/passwd", "permission denied"},
		"no pod":          {5, "sh", "no pod was placed there"},
	} {
		_, err := p.Start(test.slot, keeper.Program{Key: name, Starts: 1, Path: test.path, Args: []string{"x"}},
			func(keeper.Exit) { t.Errorf("%s: it has ended", name) })
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The next is none the worse for it; nor is one while another runs.
	running := launch(t, p, 0, shell("k", 1, "sleep 1000"))
	if _, err := p.Start(0, shell("k", 2, "true"), func(keeper.Exit) {}); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("a second program beside the first: %v", err)
	}
	_ = p.Signal(0, unix.SIGTERM)
	running.wait(t)
}

func TestAStartIsMadeOnce(t *testing.T) {
	n := newNode(t, 1, podtest.Options{})
	p := n.sidecar(nil)
	program := shell("k", 1, "echo once; read x < /dev/null; sleep 0.05")
	first, again := launch(t, p, 0, program), launch(t, p, 0, program)
	if first.At != again.At {
		t.Errorf("the second asking started another: %v and %v", first.At, again.At)
	}
	first.wait(t)
	again.wait(t)
	over := launch(t, p, 0, program)
	over.wait(t)
	launch(t, p, 0, shell("k", 2, "echo twice")).wait(t)
	if got := n.output(0, "stdout.log"); got != "once\ntwice\n" {
		t.Errorf("stdout is %q", got)
	}
}

func TestHeldUntilLetGo(t *testing.T) {
	kinds(t, func(t *testing.T, o podtest.Options) {
		n := newNode(t, 2, o)
		p := n.sidecar(nil)
		var both []*launched
		for slot := range 2 {
			program := shell("k", 1, "sleep 0.01; echo ran")
			program.Held = true
			both = append(both, launch(t, p, slot, program))
		}
		time.Sleep(100 * time.Millisecond)
		for slot := range both {
			if got := n.output(slot, "stdout.log"); got != "" {
				t.Errorf("a held program said %q", got)
			}
		}
		if err := p.SignalAll([]int{0, 1, 9}, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		for _, s := range both {
			if e := s.wait(t); !e.Status.Exited() || e.Status.ExitStatus() != 0 {
				t.Errorf("ended with %#x", e.Status)
			}
		}
	})
}

func TestClear(t *testing.T) {
	kinds(t, func(t *testing.T, o podtest.Options) {
		n := newNode(t, 2, o)
		p := n.sidecar(nil)
		// One that leaves its group behind, and one whose child has left it and lost its parent.
		launch(t, p, 0, shell("k", 1, "sleep 1000 & sleep 1000"))
		orphan := launch(t, p, 1, shell("k", 1, "setsid sh -c 'trap \"\" TERM HUP; echo $$ > ../../there; sleep 1000 & wait' & exit 0"))
		orphan.wait(t)
		time.Sleep(50 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if left, err := p.Clear(ctx, []int{0, 1}); left != 0 || err != nil {
			t.Errorf("%d left, %v", left, err)
		}
		for slot := range 2 {
			launch(t, p, slot, shell("k2", 1, "exit 3")).wait(t)
		}
	})
}

func TestOrphansAreReaped(t *testing.T) {
	n := newNode(t, 1, podtest.Options{})
	p := n.sidecar(nil)
	launch(t, p, 0, shell("k", 1, "(sleep 0.02 & sleep 0.02 &) ; exit 0")).wait(t)
	eventually(t, "the reaping of orphans", func() bool {
		children, err := os.ReadFile("/proc/" + itoa(n.pods[0].Process.Pid) + "/task/" + itoa(n.pods[0].Process.Pid) + "/children")
		return err == nil && len(strings.Fields(string(children))) == 0
	})
}

func TestNamespace(t *testing.T) {
	n := newNode(t, 1, podtest.Options{})
	p := n.sidecar(nil)
	file, err := p.Namespace(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	its, err := os.Stat("/proc/" + itoa(n.pods[0].Process.Pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := file.Stat(); err != nil || !os.SameFile(got, its) {
		t.Errorf("it isn't the pod's: %v", err)
	}
}

// TestNamespaceOfAnImpostor has whoever runs in a pod put something else in the supervisor's place.
func TestNamespaceOfAnImpostor(t *testing.T) {
	for name, test := range map[string]struct {
		plant func(t *testing.T, n *node)
		want  string
	}{
		"a process in the node's network": {func(*testing.T, *node) {}, "the node's own network"},
		"a link to another socket": {func(t *testing.T, n *node) {
			symlink(t, "/run/some.sock", filepath.Join(n.pods[0].Path, "supervisor.sock"))
		}, "no socket"},
		"a link to another pod": {func(t *testing.T, n *node) {
			symlink(t, filepath.Join(n.pods[1].Path, "supervisor.sock"), filepath.Join(n.pods[0].Path, "supervisor.sock"))
		}, "no socket"},
		"another pod's socket": {func(t *testing.T, n *node) {
			at := filepath.Join(n.pods[0].Path, "supervisor.sock")
			_ = os.Remove(at)
			if err := os.Link(filepath.Join(n.pods[1].Path, "supervisor.sock"), at); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"the sidecar's own socket": {func(t *testing.T, n *node) {
			l, err := listenIn(n.pods[0].Path, "supervisor.sock")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}, "own socket"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, 2, podtest.Options{Plain: true})
			eventually(t, "the supervisors' listening", func() bool {
				_, one := os.Lstat(filepath.Join(n.pods[0].Path, "supervisor.sock"))
				_, two := os.Lstat(filepath.Join(n.pods[1].Path, "supervisor.sock"))
				return one == nil && two == nil
			})
			test.plant(t, n)
			p, err := New(Options{KubeletRoot: n.root, Folder: "-"})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			errs := p.Place(ctx, []keeper.Home{{Slot: 0, Pod: n.pods[0].Pod}})
			file, err := p.Namespace(ctx, 0)
			if err == nil {
				_ = file.Close()
				t.Fatal("it is believed")
			}
			if err = errors.Join(append(errs, err)...); !strings.Contains(err.Error(), test.want) {
				t.Errorf("refused with %v", err)
			}
		})
	}
}

func symlink(t *testing.T, to, at string) {
	t.Helper()
	_ = os.Remove(at)
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

func TestServe(t *testing.T) {
	n := newNode(t, 1, podtest.Options{Plain: true})
	p := n.sidecar(nil)
	at := filepath.Join(n.pods[0].Path, "sync.sock")
	if err := os.MkdirAll(filepath.Join(at, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again over what the first has left
		l, err := p.Serve(0)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(at)
		if err != nil || info.Mode().Type() != os.ModeSocket || info.Mode().Perm() != 0o666 {
			t.Fatalf("the socket is %v, %v", info, err)
		}
		go func() {
			c, err := connectIn(n.pods[0].Path, "sync.sock", time.Second)
			if err == nil {
				_, _ = c.Write([]byte("x"))
				_ = c.Close()
			}
		}()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPlaceSaysWhatIsNoPod(t *testing.T) {
	if _, err := New(Options{KubeletRoot: "relative"}); err == nil {
		t.Error("a relative path is taken")
	}
	p, err := New(Options{KubeletRoot: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for uid, want := range map[string]string{
		"": "which is none", "../x": "which is none", "..": "which is none", "a/b": "which is none", "absent": "doesn't answer",
	} {
		errs := p.Place(ctx, []keeper.Home{{Slot: 1, Pod: control.Pod{Slot: 1, UID: uid, Name: "n"}}})
		if errs[0] == nil || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("UID %q: %v", uid, errs[0])
		}
	}
	if err := p.Signal(3, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if _, err := p.Outputs(3); err == nil {
		t.Error("outputs of no pod")
	}
}
