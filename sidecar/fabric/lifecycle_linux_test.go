package fabric

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
)

const held = 20

// hold runs instances, some of which have left their parent, and prints the process id of the sidecar on the host, as far as
// it can know it, and the namespaces that it holds.
func hold() error {
	f, err := New(Options{})
	if err != nil {
		return err
	}
	if err := errors.Join(f.Add(context.Background(), specs(held))...); err != nil {
		return err
	}
	for slot := range held {
		arguments := []string{"wait"}
		if slot%2 == 1 {
			arguments = []string{"fork", "wait"}
		}
		cmd := player(arguments...)
		if err := f.Start(slot, cmd); err != nil {
			return err
		}
		if slot%2 == 1 {
			if err := cmd.Wait(); err != nil {
				return err
			}
		}
	}
	for slot := range held {
		fmt.Println(f.NetworkInode(slot))
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return nil
}

func TestNothingOutlivesTheSidecar(t *testing.T) {
	before, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	launchtest.AsEach(t, func(t *testing.T, who *syscall.Credential) {
		marker := fmt.Sprintf("GROUNDPLAN_MARKER=%d-%d", os.Getpid(), time.Now().UnixNano())
		name, value, _ := strings.Cut(marker, "=")
		t.Setenv(name, value)
		starter, out := startRole(t, who, roleHold)
		namespaces := make(map[string]bool)
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() != "ready" {
			namespaces["net:["+lines.Text()+"]"] = true
		}
		if len(namespaces) != held {
			t.Fatalf("the sidecar didn't get ready: it said %v", namespaces)
		}
		alive := marked(t, marker)
		// The starter, the sidecar, and in every slot a process.
		if len(alive) != held+2 {
			t.Errorf("%d processes are alive, want %d", len(alive), held+2)
		}
		if holders := holdersOf(t, namespaces); len(holders) == 0 {
			t.Error("nobody holds the namespaces, says a check that then proves nothing")
		}
		if err := syscall.Kill(child(t, starter.Process.Pid), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := starter.Wait(); err == nil {
			t.Error("the starter didn't notice the kill")
		}
		if alive := marked(t, marker); len(alive) != 0 {
			t.Errorf("still alive: %v", alive)
		}
		if holders := holdersOf(t, namespaces); len(holders) != 0 {
			t.Errorf("still held: %v", holders)
		}
		after, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range after {
			if !slices.ContainsFunc(before, func(b net.Interface) bool { return b.Name == i.Name }) {
				t.Errorf("the host has an interface %s that it didn't have before", i.Name)
			}
		}
	})
}

// child is the one child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (name) state parent …
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			found, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

// marked lists the processes, but this one, with that in their environment.
func marked(t *testing.T, marker string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), marker) && filepath.Dir(path) != fmt.Sprint("/proc/", os.Getpid()) {
			found = append(found, path)
		}
	}
	return found
}

// holdersOf lists what refers to these namespaces: a process that is in one, or a descriptor.
func holdersOf(t *testing.T, namespaces map[string]bool) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/proc/[0-9]*/fd/*"} {
		all, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all {
			if target, err := os.Readlink(path); err == nil && namespaces[target] {
				found = append(found, path)
			}
		}
	}
	return found
}

// Programs that use select(2), or close every descriptor there may be, suffer from a high limit. The sidecar needs it, its
// instances get what their user has.
func TestInstancesGetTheLimitOfWhoStartedTheSidecar(t *testing.T) {
	const limit = "200"
	if !launchtest.Inside() {
		if err := launch.Supported(); err != nil {
			t.Skip(err)
		}
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", "ulimit -S -n "+limit+" && exec \"$0\" \"$@\"", program, "-test.run=^"+t.Name()+"$")
		cmd.Env = launchtest.StarterEnvironment()
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		return
	}
	f, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	added(t, f, 1)
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	if own.Cur+1 < own.Max { // the runtime stays one below it
		t.Errorf("the sidecar may open %d files, want %d", own.Cur, own.Max)
	}
	cmd := exec.Command("sh", "-c", "ulimit -S -n")
	var out strings.Builder
	cmd.Stdout = &out
	if err := errors.Join(f.Start(0, cmd), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(out.String()) != limit {
		t.Errorf("an instance may open %s files, want %s", out.String(), limit)
	}
}

func TestCloseLeavesNothingRunning(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		added(t, f, 20)
		for range 2 {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if f.Present(0) {
			t.Error("an instance is present in a closed fabric")
		}
		if err := f.Add(t.Context(), specs(1))[0]; !errors.Is(err, net.ErrClosed) {
			t.Errorf("adding to a closed fabric: %v", err)
		}
		if err := f.Remove(0); err != nil {
			t.Errorf("removing from a closed fabric: %v", err)
		}
	})
}

func TestAddIsCancelled(t *testing.T) {
	inSidecar(t, func(t *testing.T, f *Fabric) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for i, err := range f.Add(ctx, specs(10)) {
			if !errors.Is(err, context.Canceled) || f.Present(i) {
				t.Errorf("slot %d: %v, present: %v", i, err, f.Present(i))
			}
		}
	})
}
