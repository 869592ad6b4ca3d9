package launchtest

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/groundplan/groundplan/sidecar/launch"
)

const (
	roleVariable = "GROUNDPLAN_LAUNCHTEST"
	roleSidecar  = "sidecar" // PID 1 of its own namespaces; runs tests
	starterOf    = "starter of "
)

// Nobody is a user without any rights.
var Nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// Roles are what processes of a test's program do that neither run tests nor start those that do, by name. They get the
// program's arguments. One that is started as a sidecar calls launch.Prepare.
type Roles map[string]func(arguments []string) error

// Main is what the TestMain of a package calls whose tests use InSidecar. It doesn't return.
func Main(m *testing.M, roles Roles) {
	role := os.Getenv(roleVariable)
	if started, ok := strings.CutPrefix(role, starterOf); ok {
		os.Exit(start(started))
	}
	var err error
	switch does, ok := roles[role]; {
	case ok:
		if err = does(os.Args[1:]); err == nil {
			os.Exit(0)
		}
	case role == roleSidecar:
		if err = launch.Prepare(); err == nil {
			os.Exit(m.Run())
		}
	case role == "":
		os.Exit(m.Run())
	default:
		err = fmt.Errorf("nobody knows the role %q", role)
	}
	fmt.Println(err)
	os.Exit(1)
}

// start starts a sidecar in that role, with this program's arguments, and waits for it.
func start(role string) int {
	p, err := launch.Start(launch.Options{Executable: "/proc/self/exe", Args: os.Args[1:], Env: Environment(role), Log: os.Stdout})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	state, err := p.Wait()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if !state.Exited() {
		fmt.Println(state)
	}
	return state.ExitCode()
}

// Environment is this process's, for one of this program in that role.
func Environment(role string) []string {
	others := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, roleVariable+"=") })
	// Under the race detector every program would sleep for a second before it ends.
	return append(others, roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
}

// StarterEnvironment is for a process that starts this program with its own arguments as a sidecar, which runs tests or
// benchmarks.
func StarterEnvironment() []string { return StarterEnvironmentOf(roleSidecar) }

// StarterEnvironmentOf is for a process that starts this program with its own arguments as a sidecar in that role.
func StarterEnvironmentOf(role string) []string { return Environment(starterOf + role) }

// Inside says whether this process is a sidecar that runs tests.
func Inside() bool { return os.Getenv(roleVariable) == roleSidecar }

// InSidecar has a test do its work in a sidecar: once per kind of user that can start one here. The test skips where
// nobody can.
func InSidecar(t *testing.T, work func(t *testing.T)) {
	t.Helper()
	Options{}.InSidecar(t, work)
}

// Options say how a test is done in a sidecar.
type Options struct {
	// Flags are passed on besides -test.run, -test.v and -test.short; nil: none.
	Flags func(t *testing.T) []string
	// Parallel has the processes run beside those of other tests.
	Parallel bool
	// Flat goes without a subtest where there is but one kind of user.
	Flat bool
	// Root is for what is only ever done by root, like the work on a cluster's nodes: once, and skipped by others.
	Root bool
}

// InSidecar is InSidecar with these options.
func (o Options) InSidecar(t *testing.T, work func(t *testing.T)) {
	t.Helper()
	if Inside() {
		work(t)
		return
	}
	if err := launch.Supported(); err != nil {
		t.Skip(err)
	}
	if o.Parallel {
		t.Parallel()
	}
	if o.Root && os.Geteuid() != 0 {
		t.Skip("who works on a cluster's nodes is root there")
	}
	if o.Root || o.Flat && os.Geteuid() != 0 {
		o.relaunch(t, nil)
		return
	}
	AsEach(t, func(t *testing.T, who *syscall.Credential) {
		if o.Parallel {
			t.Parallel()
		}
		o.relaunch(t, who)
	})
}

// AsEach runs a subtest for every kind of user that this one can be.
func AsEach(t *testing.T, test func(t *testing.T, who *syscall.Credential)) {
	if os.Geteuid() != 0 {
		t.Run("as this user", func(t *testing.T) { test(t, nil) })
		return
	}
	t.Run("as root", func(t *testing.T) { test(t, nil) })
	t.Run("without root", func(t *testing.T) { test(t, Nobody) })
}

// relaunch runs the test, and nothing but it, in a sidecar started by that user.
func (o Options) relaunch(t *testing.T, who *syscall.Credential) {
	t.Helper()
	root, _, _ := strings.Cut(t.Name(), "/")
	arguments := []string{"-test.run=^" + regexp.QuoteMeta(root) + "$", "-test.v", fmt.Sprintf("-test.short=%v", testing.Short())}
	if o.Flags != nil {
		arguments = append(arguments, o.Flags(t)...)
	}
	cmd := exec.Command("/proc/self/exe", arguments...)
	cmd.Env = StarterEnvironment()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	said, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("%v\n%s", err, said)
	case strings.Contains(string(said), "--- SKIP: "+root):
		t.Skip(string(said))
	case !strings.Contains(string(said), "--- PASS: "+root):
		t.Fatalf("the test didn't run in the sidecar:\n%s", said)
	}
	t.Logf("%s", said)
}
