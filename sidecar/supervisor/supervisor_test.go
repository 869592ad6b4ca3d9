//go:build linux

package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "install" {
		if err := Install(os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(FolderVariable) != "" {
		if err := Run(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestEnvironment(t *testing.T) {
	image := []string{"PATH=/image", "A=image", "ONLY=image", "KUBERNETES_PORT=1", "HOSTNAME=pod"}
	for name, test := range map[string]struct{ under, over, want []string }{
		"the image's PATH stays": {image, []string{"PATH=/asked", "A=asked", "HOSTNAME=asked"},
			[]string{"A=asked", "HOSTNAME=asked", "PATH=/image", "ONLY=image"}},
		"an image without one": {nil, []string{"PATH=/asked"}, []string{"PATH=/asked"}},
		"nothing asked":        {[]string{"A=1"}, nil, []string{"A=1"}},
	} {
		if got := overlay(test.under, test.over); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestLookUp(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"runs": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	path := "relative::/no/such:" + dir
	for name, want := range map[string]string{
		"runs": filepath.Join(dir, "runs"), "./text": "./text", "/abs": "/abs", "text": "", "none": "", "": "",
	} {
		got, err := lookUp(name, path)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	before := unix.Umask(0o077)
	defer unix.Umask(before)
	for range 2 { // an init container that is run again
		if out, err := exec.Command("/proc/self/exe", "install", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for name, want := range map[string]os.FileMode{"outputs": 0o777 | os.ModeDir, "temp": 0o777 | os.ModeDir, Name: 0o755} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s is %v, %v", name, info, err)
		}
	}
	if names, err := os.ReadDir(dir); len(names) != 3 || err != nil {
		t.Errorf("there are %v, %v", names, err)
	}
	if err := Install(filepath.Join(dir, "absent")); err == nil {
		t.Error("a folder that isn't there is installed to")
	}
}

// supervised is a supervisor of its own process.
type supervised struct {
	t   *testing.T
	cmd *exec.Cmd
	dir string
	out *strings.Builder
}

func supervise(t *testing.T) *supervised {
	t.Helper()
	dir, err := os.MkdirTemp("", "pod")
	if err != nil {
		t.Fatal(err)
	}
	if err := Install(dir); err != nil {
		t.Fatal(err)
	}
	s := &supervised{t: t, dir: dir, out: new(strings.Builder)}
	s.cmd = exec.Command("/proc/self/exe")
	s.cmd.Env = append(os.Environ(), FolderVariable+"="+dir, SyncVariable+"=127.0.0.1:0", "GORACE=atexit_sleep_ms=0", "GOCOVERDIR="+dir)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	return s
}

// talk is a connection with it, after its hello.
type talk struct {
	t     *testing.T
	conn  net.Conn
	in    *wire.Reader
	hello wire.Hello
}

func (s *supervised) connect() *talk {
	s.t.Helper()
	for range 1000 {
		c, err := net.Dial("unix", filepath.Join(s.dir, wire.Socket))
		if err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		s.t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		k := &talk{t: s.t, conn: c, in: wire.NewReader(c)}
		a := k.hear()
		if a.Hello == nil {
			s.t.Fatalf("it doesn't say hello but %+v", a)
		}
		k.hello = *a.Hello
		return k
	}
	s.t.Fatalf("no supervisor listens: %s", s.out)
	return nil
}

func (k *talk) ask(r wire.Request) {
	k.t.Helper()
	line, err := wire.Line(r)
	if err == nil {
		_, err = k.conn.Write(line)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *talk) hear() wire.Answer {
	k.t.Helper()
	var a wire.Answer
	if err := k.in.Read(&a); err != nil {
		k.t.Fatalf("waiting for what it says: %v", err)
	}
	return a
}

func shell(key string, script string) *wire.Start {
	return &wire.Start{Ident: wire.Ident{Key: key, Starts: 1}, Path: "/bin/sh", Args: []string{"sh", "-c", script}}
}

// TestEverybodyHearsOfAnEnd has two sidecars at once, an old one that is on its way out and its successor.
func TestEverybodyHearsOfAnEnd(t *testing.T) {
	s := supervise(t)
	one, two := s.connect(), s.connect()
	if one.hello.Boot != two.hello.Boot || one.hello.Folder != s.dir {
		t.Errorf("the hellos are %+v and %+v", one.hello, two.hello)
	}
	if slices.ContainsFunc(one.hello.Environ, func(v string) bool { return strings.HasPrefix(v, FolderVariable) }) {
		t.Error("its own variables are the image's")
	}
	one.ask(wire.Request{ID: 7, Start: shell("k", "sleep 0.05; exit 4")})
	if a := one.hear(); a.ID != 7 || a.State == nil || a.State.Exit != nil {
		t.Errorf("the start is answered with %+v", a)
	}
	two.ask(wire.Request{ID: 1, Attach: &wire.Ident{Key: "k", Starts: 1}})
	if a := two.hear(); a.ID != 1 || a.State == nil {
		t.Errorf("asked about it, it says %+v", a)
	}
	for _, k := range []*talk{one, two} {
		if a := k.hear(); a.Ended == nil || a.Ended.Exit == nil || unix.WaitStatus(a.Ended.Exit.Status).ExitStatus() != 4 {
			t.Errorf("at the end it says %+v", a)
		}
	}
	two.ask(wire.Request{ID: 2, Attach: &wire.Ident{Key: "k", Starts: 2}})
	if a := two.hear(); a.Error != errUnknown.Error() {
		t.Errorf("of a start that was never asked for it says %+v", a)
	}
	two.ask(wire.Request{ID: 3})
	if a := two.hear(); a.Error == "" {
		t.Errorf("of nothing it says %+v", a)
	}
}

// TestNonsenseEndsAConnection and nothing else.
func TestNonsenseEndsAConnection(t *testing.T) {
	s := supervise(t)
	for _, nonsense := range []string{"nonsense\n", "[]\n", strings.Repeat("x", wire.LongestLine+9999)} {
		k := s.connect()
		_, _ = k.conn.Write([]byte(nonsense))
		if err := k.in.Read(&wire.Answer{}); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %.10q: %v", nonsense, err)
		}
	}
	s.connect().ask(wire.Request{ID: 1, Signal: &wire.Signal{Number: 0}})
}

func TestAskedToEnd(t *testing.T) {
	s := supervise(t)
	k := s.connect()
	k.ask(wire.Request{ID: 1, Start: shell("k", "trap '' TERM; sleep 1000 & wait")})
	k.hear()
	began := time.Now()
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for bye := false; !bye; {
		a := k.hear()
		bye = a.Bye != nil && a.Bye.Why == "its pod was asked to end"
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("it ends with %v: %s", err, s.out)
	}
	t.Logf("ended within %v", time.Since(began))
}

func TestFolderWithALongName(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if err := os.Mkdir(long, 0o755); err != nil {
		t.Fatal(err)
	}
	short, err := socketsIn(long)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(short)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(filepath.Join(long, wire.Socket))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
}
