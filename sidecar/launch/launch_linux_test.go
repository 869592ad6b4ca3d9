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
	roleExit      = "exit"      // ends with status 7
	roleRead      = "read"      // prints what it reads, and where else that stands
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
		roleExit:      func() error { os.Exit(7); return nil },
		roleRead:      read,
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

// read prints what it can read from stdin, and which of its files in /proc hold that too.
func read() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	fmt.Printf("read %q\n", text)
	for _, file := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile("/proc/self/" + file)
		if err != nil {
			return err
		}
		if len(text) > 0 && strings.Contains(string(data), string(text)) {
			fmt.Println("it stands in", file)
		}
	}
	return nil
}

func TestInput(t *testing.T) {
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	for name, text := range map[string]string{"nothing": "", "a line": "redis://:secret@h\n", "the most": strings.Repeat("x", MaxInput)} {
		log, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		p, err := Start(Options{Executable: "/proc/self/exe", Env: environment(roleRead), Log: log, Input: text})
		if err != nil {
			t.Fatal(err)
		}
		if state, err := p.Wait(); err != nil || !state.Success() {
			t.Errorf("%s: it ended with %v, %v", name, state, err)
		}
		if said, err := os.ReadFile(log.Name()); err != nil || string(said) != fmt.Sprintf("read %q\n", text) {
			t.Errorf("%s: it says %q, %v", name, said, err)
		}
	}
	if _, err := Start(Options{Executable: "/proc/self/exe", Input: strings.Repeat("x", MaxInput+1)}); err == nil || !strings.Contains(err.Error(), "4096") {
		t.Errorf("too much: %v", err)
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
