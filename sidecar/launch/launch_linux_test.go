package launch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This program plays every part of the tests: it starts sidecars, as root and as an unprivileged user, and is the sidecar.
const (
	roleVariable  = "GROUNDPLAN_LAUNCH_TEST"
	roleStarter   = "starter"   // starts a sidecar in the role of its argument and waits for it
	roleDeserter  = "deserter"  // the same, without waiting
	roleSupported = "supported" // asks Supported
	roleDescribe  = "describe"  // a sidecar that prints what it sees
	roleLate      = "late"      // a sidecar that speaks once its starter is gone
	roleOrphans   = "orphans"   // a sidecar with children of its own and of nobody's
	roleExit      = "exit"      // ends with status 7
	nobody        = 65534
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	parts := map[string]func() error{
		roleStarter:   func() error { return start(true) },
		roleDeserter:  func() error { return start(false) },
		roleSupported: Supported,
		roleDescribe:  func() error { return errors.Join(Prepare(), describe()) },
		roleLate:      func() error { return errors.Join(Prepare(), late()) },
		roleOrphans:   func() error { return errors.Join(Prepare(), orphans()) },
		roleExit:      func() error { os.Exit(7); return nil },
	}
	if err := parts[role](); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func environment(role string) []string {
	others := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, roleVariable+"=") })
	// Under the race detector every program would sleep for a second before it ends.
	return append(others, roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
}

func start(wait bool) error {
	p, err := Start(Options{Executable: "/proc/self/exe", Env: environment(os.Args[1]), Dir: "/", Log: os.Stdout})
	if err != nil || !wait {
		return err
	}
	state, err := p.Wait()
	if err != nil {
		return err
	}
	if !state.Success() {
		return errors.New(state.String())
	}
	return nil
}

// asEach runs a subtest for every kind of user that this one can be.
func asEach(t *testing.T, test func(t *testing.T, who *syscall.Credential)) {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	if os.Geteuid() != 0 {
		t.Run("as this user", func(t *testing.T) { test(t, nil) })
		return
	}
	t.Run("as root", func(t *testing.T) { test(t, nil) })
	t.Run("without root", func(t *testing.T) { test(t, &syscall.Credential{Uid: nobody, Gid: nobody}) })
}

// asked runs this program in a role, as that user, and returns what it says.
func asked(t *testing.T, who *syscall.Credential, role string, arguments ...string) []string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", arguments...)
	cmd.Env = environment(role)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return strings.Split(strings.TrimSpace(string(said)), "\n")
}

func TestSupportedTriesAsTheUserWhoAsks(t *testing.T) {
	asEach(t, func(t *testing.T, who *syscall.Credential) { asked(t, who, roleSupported) })
}

func TestSidecarIsAWorldOfItsOwn(t *testing.T) {
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Skip("there is no /etc/hosts here: ", err)
	}
	asEach(t, func(t *testing.T, who *syscall.Credential) {
		said := asked(t, who, roleStarter, roleDescribe)
		want := []string{
			"process 1 of session 1, user 0",
			"interfaces lo up",
			"processes /proc/1",
			`hosts "127.0.0.1\tlocalhost\n100.96.0.1\ttestground-sync-service\n"`,
			"loopback works",
		}
		if !slices.Equal(said, want) {
			t.Errorf("the sidecar sees\n%s\nand should see\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
		}
		if after, err := os.ReadFile("/etc/hosts"); err != nil || string(after) != string(hosts) {
			t.Errorf("the host's /etc/hosts has become %q, %v", after, err)
		}
		left, err := filepath.Glob(filepath.Join(os.TempDir(), "groundplan-hosts-*"))
		if err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}

// describe prints what a sidecar sees of itself, a fact per line.
func describe() error {
	session, err := unix.Getsid(0)
	if err != nil {
		return err
	}
	fmt.Printf("process %d of session %d, user %d\n", os.Getpid(), session, os.Getuid())
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	fmt.Print("interfaces")
	for _, i := range interfaces {
		if i.Flags&net.FlagUp != 0 {
			fmt.Print(" ", i.Name, " up")
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	fmt.Print("\nprocesses ", strings.Join(processes, " "), "\n")
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		return err
	}
	fmt.Printf("hosts %q\n", hosts)
	l, err := net.Listen("tcp4", "localhost:0")
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.DialTimeout("tcp4", l.Addr().String(), time.Second)
	if err != nil {
		return err
	}
	fmt.Println("loopback works")
	return c.Close()
}

func TestSidecarOutlivesItsStarter(t *testing.T) {
	asEach(t, func(t *testing.T, who *syscall.Credential) {
		cmd := exec.Command("/proc/self/exe", roleLate)
		cmd.Env = environment(roleDeserter)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		cmd.Stdout, cmd.Stderr = write, write
		err = cmd.Run()
		write.Close()
		if err != nil {
			said, _ := io.ReadAll(read)
			t.Fatalf("%v\n%s", err, said)
		}
		if err := read.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(read).ReadString('\n')
		if err != nil || line != "still here\n" {
			t.Errorf("after its starter has ended the sidecar says %q, %v", line, err)
		}
	})
}

// late speaks after a while: by then the starter, which doesn't wait, is gone.
func late() error {
	time.Sleep(500 * time.Millisecond)
	fmt.Println("still here")
	return nil
}

func TestReaperCollectsWhatIsNobodys(t *testing.T) {
	asEach(t, func(t *testing.T, who *syscall.Credential) {
		said := asked(t, who, roleStarter, roleOrphans)
		if want := []string{"status 7", "no zombies"}; !slices.Equal(said, want) {
			t.Errorf("the sidecar says %q, want %q", said, want)
		}
	})
}

// orphans starts a child whose status matters and lets it lie, a program whose child survives it, and a child that is
// owed to nobody any longer.
func orphans() error {
	owed := exec.Command("/proc/self/exe")
	owed.Env = environment(roleExit)
	if err := StartChild(owed); err != nil {
		return err
	}
	parent := exec.Command("sh", "-c", "sleep 0.2 & sleep 0.3 & exit 0")
	if err := StartChild(parent); err != nil {
		return err
	}
	if err := parent.Wait(); err != nil {
		return err
	}
	time.Sleep(time.Second) // the reaper stops before the status that lies here
	var status *exec.ExitError
	if err := owed.Wait(); !errors.As(err, &status) {
		return fmt.Errorf("the exit status was lost: %w", err)
	}
	fmt.Println("status", status.ExitCode())
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); errors.Is(err, unix.ECHILD) {
			fmt.Println("no zombies")
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("there are children left")
		}
	}
}

// A child's process id may come back as that of an orphan. Nobody waits for that one.
func TestSweeperGivesUpOnADebtThatNobodyCollects(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	reaper.children.Store(pid, struct{}{})
	defer reaper.children.Delete(pid)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if first, err := firstZombie(); err == nil && first == pid {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the child doesn't end")
		}
	}
	var s sweeper
	if !s.sweep() || s.pid != pid {
		t.Errorf("a fresh debt is not kept: the sweeper stopped at %d", s.pid)
	}
	s.since = s.since.Add(-2 * owedFor)
	if s.sweep() {
		t.Error("an old debt still stops the sweeper")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("an old debt was not collected")
	}
}

func TestPrepareRefusesOtherProcesses(t *testing.T) {
	if err := Prepare(); err == nil || !strings.Contains(err.Error(), "launch.Start") {
		t.Errorf("in a process of the host: %v", err)
	}
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	if _, err := Start(Options{Executable: "/no/such/program"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that isn't there: %v", err)
	}
	p, err := Start(Options{Executable: "/proc/self/exe", Env: environment(roleExit)})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := p.Wait(); err != nil || state.ExitCode() != 7 {
		t.Errorf("without a log: %v, %v", state, err)
	}
}

func TestUserNamespaceOnlyWithoutRoot(t *testing.T) {
	if s := namespaces(0, 0); s.Cloneflags&syscall.CLONE_NEWUSER != 0 || s.UidMappings != nil {
		t.Error("root gets a user namespace")
	}
	s := namespaces(1000, 100)
	if s.Cloneflags&syscall.CLONE_NEWUSER == 0 || s.UidMappings[0].HostID != 1000 || s.GidMappings[0].HostID != 100 {
		t.Errorf("user 1000 gets %+v", s)
	}
	if s.Pdeathsig != 0 || !s.Setsid {
		t.Errorf("it would not outlive its starter: %+v", s)
	}
}

func TestAdviceForEveryError(t *testing.T) {
	if restricted() {
		t.Skip("AppArmor is the answer to everything here")
	}
	for err, says := range map[error]string{
		unix.EPERM:      "run as root",
		unix.EACCES:     "run as root",
		unix.ENOSPC:     "sysctl user.max_user_namespaces",
		unix.EOPNOTSUPP: "modprobe veth",
		unix.EINVAL:     "kernel was built without",
		unix.EIO:        "groundplan doctor",
	} {
		wrapped := withAdvice(fmt.Errorf("trying: %w", err))
		if !errors.Is(wrapped, err) || !strings.Contains(wrapped.Error(), says) {
			t.Errorf("%v: %v, want something with %q", err, wrapped, says)
		}
	}
}
