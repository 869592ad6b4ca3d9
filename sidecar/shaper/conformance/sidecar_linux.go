package conformance

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch"
)

// Tests run twice: once outside, where a test does nothing but start its program again as a sidecar, and once in there,
// where it does its work.
const (
	roleVariable = "GROUNDPLAN_CONFORMANCE"
	roleStarter  = "starter" // starts a sidecar, as the user that it is
	roleSidecar  = "sidecar" // PID 1 of its own namespaces; runs a test
	nobody       = 65534
)

// Main is what the TestMain of a package calls whose tests use AsSidecar.
func Main(m *testing.M) {
	var err error
	switch os.Getenv(roleVariable) {
	case roleStarter:
		err = start(os.Args[1:])
	case roleSidecar:
		err = launch.Prepare()
		if err == nil {
			flag.Parse()
			_ = flag.Set("test.parallel", "20") // tests of shaping wait more than they work
			os.Exit(m.Run())
		}
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// start starts a sidecar and waits for it.
func start(arguments []string) error {
	p, err := launch.Start(launch.Options{Executable: "/proc/self/exe", Args: arguments, Env: environment(roleSidecar), Log: os.Stdout})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err != nil {
		return err
	}
	os.Exit(state.ExitCode())
	return nil
}

// environment is this process's with that role.
func environment(role string) []string {
	others := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, roleVariable+"=") })
	// Under the race detector every program would sleep for a second before it ends.
	return append(others, roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
}

// AsSidecar has a test do its work in a sidecar: once per kind of user that can start one here. The test skips where
// nobody can.
func AsSidecar(t *testing.T, work func(t *testing.T)) {
	t.Helper()
	if InSidecar() {
		work(t)
		return
	}
	if err := launch.Supported(); err != nil {
		t.Skip(err)
	}
	if os.Geteuid() != 0 {
		t.Run("as this user", func(t *testing.T) { relaunch(t, nil) })
		return
	}
	t.Run("as root", func(t *testing.T) { relaunch(t, nil) })
	t.Run("without root", func(t *testing.T) { relaunch(t, &syscall.Credential{Uid: nobody, Gid: nobody}) })
}

// Rootless says whether the work of AsSidecar is done for a user who isn't root.
func Rootless() bool {
	m, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(m))
	return err == nil && (len(fields) < 3 || fields[2] == "1")
}

// relaunch runs the test, and nothing but it, in a sidecar started by that user.
func relaunch(t *testing.T, who *syscall.Credential) {
	t.Helper()
	root, _, _ := strings.Cut(t.Name(), "/")
	arguments := []string{"-test.run=^" + regexp.QuoteMeta(root) + "$", "-test.v", fmt.Sprintf("-test.short=%v", testing.Short()), "-slack=" + slack.String()}
	// A test that is too slow says what it was at, before the one who waits for it runs out of time.
	if deadline, ok := t.Deadline(); ok {
		arguments = append(arguments, "-test.timeout="+(time.Until(deadline)*9/10).String())
	}
	cmd := exec.Command("/proc/self/exe", arguments...)
	cmd.Env = environment(roleStarter)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	said, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("%v\n%s", err, said)
	case strings.Contains(string(said), "--- SKIP"):
		t.Skip(string(said))
	case !strings.Contains(string(said), "--- PASS: "+root):
		t.Fatalf("the test didn't run in the sidecar:\n%s", said)
	}
	t.Logf("%s", said)
}

// InSidecar says whether this process is the one that AsSidecar does its work in.
func InSidecar() bool { return os.Getenv(roleVariable) == roleSidecar }

// StarterEnvironment is the environment of a process that starts this program as a sidecar, with its own arguments.
func StarterEnvironment() []string { return environment(roleStarter) }

// Placed is a fabric with instances in slots 0 to n-1.
func Placed(t testing.TB, n int) *fabric.Fabric {
	t.Helper()
	f, err := fabric.New(fabric.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	specs := make([]fabric.Spec, n)
	for i := range specs {
		specs[i] = fabric.Spec{Slot: i, Hostname: fmt.Sprint("i", i)}
	}
	for i, err := range f.Add(t.Context(), specs) {
		if err != nil {
			t.Fatalf("slot %d: %v", i, err)
		}
	}
	return f
}
