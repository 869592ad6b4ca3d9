//go:build linux

// Package podtest makes pods for tests, without Kubernetes: a folder where a kubelet would keep it, and the real supervisor
// in it, in namespaces of its own where the test is root's.
package podtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/supervisor"
)

// Options say how a pod is to be. The zero value makes one in its own PID and network namespaces.
type Options struct {
	// Plain makes one without namespaces: its supervisor isn't the first process then, and its relay listens anywhere.
	Plain bool
	// Env is the image's environment beside PATH.
	Env []string
}

// Pod is a pod.
type Pod struct {
	control.Pod
	// Path is its folder.
	Path string
	// Process is its supervisor's, started by this test.
	Process *os.Process

	ended chan struct{}
}

// built is the supervisor's binary, one for all tests of a program.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "groundplan-supervisor")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "groundplan-supervisor")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/groundplan/groundplan/cmd/groundplan-supervisor")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

// Binary builds the supervisor.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatalf("building the supervisor: %v", err)
	}
	return path
}

// Cleanup removes what tests of this program have built. TestMain calls it at its end.
func Cleanup() {
	if path, err := built(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
}

// Start makes a pod on the node with that kubelet's folder, for as long as the test takes.
func Start(t testing.TB, kubeletRoot string, slot int, uid string, o Options) *Pod {
	t.Helper()
	path := filepath.Join(kubeletRoot, "pods", uid, "volumes", "kubernetes.io~empty-dir", "groundplan")
	if err := os.MkdirAll(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(Binary(t), "install", path).CombinedOutput(); err != nil {
		t.Fatalf("installing the supervisor: %v: %s", err, out)
	}
	p := &Pod{Pod: control.Pod{Slot: slot, UID: uid, Name: "pod-" + uid}, Path: path, ended: make(chan struct{})}
	cmd := p.command(t, o)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, o.Env...)
	cmd.Stderr = os.Stderr
	if o.Plain {
		cmd.Env = append(cmd.Env, supervisor.SyncVariable+"=127.0.0.1:0")
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting a pod: %v", err)
	}
	p.Process = cmd.Process
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(p.Kill)
	return p
}

func (p *Pod) command(t testing.TB, o Options) *exec.Cmd {
	self := filepath.Join(p.Path, supervisor.Name)
	if o.Plain {
		return exec.Command(self)
	}
	if os.Geteuid() != 0 {
		t.Skip("a pod in namespaces of its own needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("a pod in a network of its own needs the program ip")
	}
	cmd := exec.Command("sh", "-c", `ip link set lo up && exec "$0"`, self)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS}
	return cmd
}

// Kill ends the pod at once, as the kernel does when memory runs out.
func (p *Pod) Kill() {
	_ = p.Process.Kill()
	<-p.ended
}

// Delete ends the pod as the kubelet does: it is asked to end, and its folder goes.
func (p *Pod) Delete() {
	_ = p.Process.Signal(syscall.SIGTERM)
	<-p.ended
	_ = os.RemoveAll(p.Path)
}
