//go:build linux

package pods

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/supervisor/wire"
)

// FuzzSupervisor has whoever sits in a pod say anything at all: the sidecar takes it for what that pod says and goes on.
func FuzzSupervisor(f *testing.F) {
	f.Add([]byte(`{"ended":{"key":"k","starts":1,"exit":{"status":9,"cpu":-1,"peakMemory":-5}}}` + "\n"))
	f.Add([]byte(`{"id":1,"state":{"key":"k","starts":1,"at":1,"stdout":-4,"exit":{"status":65535}}}` + "\n" + `{"bye":{"why":"\n\n"}}` + "\n"))
	f.Add([]byte(`{"id":1,"state":{"key":"other"}}` + "\n{}\n[]\n"))
	f.Add([]byte(`{"id":1,"error":"no"}` + "\n" + `{"hello":{}}`))
	f.Fuzz(func(t *testing.T, said []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		here, there := connOf(t, fds[0]), connOf(t, fds[1])
		defer there.Close()
		p, err := New(Options{KubeletRoot: "/"})
		if err != nil {
			t.Fatal(err)
		}
		pod := p.newPod(0, control.Pod{UID: "u"})
		l := &link{conn: here, in: wire.NewReader(here), waiting: make(map[int64]chan wire.Answer)}
		pod.meet(l)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		context.AfterFunc(ctx, pod.cancel)
		heard := make(chan struct{})
		go func() { defer close(heard); pod.listen(l) }()
		told := 0
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			started, err := pod.start(keeper.Program{Key: "k", Starts: 1}, func(e keeper.Exit) {
				told++
				if e.PeakMemory < 0 || e.CPU < 0 || !e.Status.Exited() && !e.Status.Signaled() {
					t.Errorf("it ended with %+v", e)
				}
			})
			if err == nil && (started.Stdout < 0 || started.Stderr < 0) {
				t.Errorf("started as %+v", started)
			}
		}()
		_, _ = there.Write(said)
		_ = there.CloseWrite()
		<-heard
		pod.cancel()
		<-asked
		if told > 1 {
			t.Errorf("told %d times of an end", told)
		}
		if why := sentence(string(said)); len(why) > 200 {
			t.Error("a last word is long")
		}
	})
}

func connOf(t *testing.T, fd int) *net.UnixConn {
	file := os.NewFile(uintptr(fd), "pair")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

// TestTooManyWords has a supervisor say hello without end.
func TestTooManyWords(t *testing.T) {
	dir, err := os.MkdirTemp("", "pod")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	uid := "u"
	path := folderOf(dir, uid)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := listenIn(path, wire.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(make([]byte, wire.LongestLine+2))
			_ = c.Close()
		}
	}()
	in := make(chan error, 1)
	go func() {
		c, err := connectIn(path, wire.Socket, time.Second)
		if err == nil {
			err = wire.NewReader(c).Read(&wire.Answer{})
			_ = c.Close()
		}
		in <- err
	}()
	if err := <-in; err == nil {
		t.Error("it is read")
	}
	if _, err := os.Stat(filepath.Join(path, wire.Socket)); err != nil {
		t.Error(err)
	}
}
