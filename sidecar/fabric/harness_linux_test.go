package fabric

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/launch"
)

// The tests of this package run twice: once outside, where a test does nothing but start this program again as a
// sidecar, as root and as an unprivileged user, and once in there, where it does its work. What plays an instance is
// this program a third time.
const (
	roleVariable = "GROUNDPLAN_FABRIC_TEST"
	roleSidecar  = "sidecar"  // PID 1 of its own namespaces; runs the tests
	roleStarter  = "starter"  // an unprivileged user who starts a sidecar
	rolePlace    = "place"    // a sidecar that places as many instances as its argument says, and ends
	roleHold     = "hold"     // a sidecar that runs instances until it is killed
	roleInstance = "instance" // does what its first argument says
	nobody       = 65534
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case roleStarter:
		os.Exit(start())
	case roleInstance:
		err = play(os.Args[1:])
	default:
		err = sidecar(m, role)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// sidecar is what a process started by launch.Start does.
func sidecar(m *testing.M, role string) error {
	if err := launch.Prepare(); err != nil {
		return err
	}
	switch role {
	case rolePlace:
		n, err := strconv.Atoi(os.Args[1])
		if err != nil {
			return err
		}
		return place(n)
	case roleHold:
		return hold()
	}
	os.Exit(m.Run())
	return nil
}

// start starts a sidecar in the role of the first argument, with the others, and waits for it.
func start() int {
	p, err := launch.Start(launch.Options{Executable: "/proc/self/exe", Args: os.Args[2:], Env: environment(os.Args[1]), Log: os.Stdout})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	state, err := p.Wait()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return state.ExitCode()
}

// environment is this process's with that role.
func environment(role string) []string {
	others := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, roleVariable+"=") })
	// Under the race detector every program would sleep for a second before it ends.
	return append(others, roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
}

// inSidecar has work done in a sidecar, with an empty fabric: once per kind of user that can start one here.
func inSidecar(t *testing.T, work func(t *testing.T, f *Fabric)) {
	t.Helper()
	if os.Getenv(roleVariable) == roleSidecar {
		f, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}()
		work(t, f)
		return
	}
	if err := launch.Supported(); err != nil {
		t.Skip(err)
	}
	asEach(t, relaunch)
}

// asEach runs a subtest for every kind of user that this one can be.
func asEach(t *testing.T, test func(t *testing.T, who *syscall.Credential)) {
	if os.Geteuid() != 0 {
		t.Run("as this user", func(t *testing.T) { test(t, nil) })
		return
	}
	t.Run("as root", func(t *testing.T) { test(t, nil) })
	t.Run("without root", func(t *testing.T) { test(t, &syscall.Credential{Uid: nobody, Gid: nobody}) })
}

// startRole starts a sidecar in a role, by that user, and returns who started it and what it says.
func startRole(t testing.TB, who *syscall.Credential, role string, arguments ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{role}, arguments...)...)
	cmd.Env = environment(roleStarter)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// relaunch runs the test, and nothing but it, in a sidecar started by that user.
func relaunch(t *testing.T, who *syscall.Credential) {
	root, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command("/proc/self/exe", roleSidecar, "-test.run=^"+regexp.QuoteMeta(root)+"$", "-test.v", fmt.Sprintf("-test.short=%v", testing.Short()))
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

// added adds slots 0 to n-1, called i0, i1, …
func added(t testing.TB, f *Fabric, n int) {
	t.Helper()
	for i, err := range f.Add(t.Context(), specs(n)) {
		if err != nil {
			t.Fatalf("slot %d: %v", i, err)
		}
	}
}

func specs(n int) []Spec {
	all := make([]Spec, n)
	for i := range all {
		all[i] = Spec{Slot: i, Hostname: fmt.Sprint("i", i)}
	}
	return all
}

// within does work on a thread in the namespaces of a slot: sockets that it opens belong to the instance.
func within[T any](t testing.TB, f *Fabric, slot int, work func() (T, error)) (T, error) {
	t.Helper()
	var result T
	err := onThread(func() error {
		if err := f.instances[slot].namespaces.enter(); err != nil {
			return err
		}
		var err error
		result, err = work()
		return err
	})
	return result, err
}

// echo serves TCP and UDP at an address of a slot until the test ends, and says where.
func echo(t testing.TB, f *Fabric, slot int, at netip.Addr) (tcp, udp netip.AddrPort) {
	t.Helper()
	stream, err := within(t, f, slot, func() (net.Listener, error) { return net.Listen("tcp", netip.AddrPortFrom(at, 0).String()) })
	if err != nil {
		t.Fatal(err)
	}
	packets, err := within(t, f, slot, func() (net.PacketConn, error) {
		return net.ListenPacket("udp", netip.AddrPortFrom(at, 0).String())
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close(); packets.Close() })
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(buffer[:n], from)
		}
	}()
	return stream.Addr().(*net.TCPAddr).AddrPort(), packets.LocalAddr().(*net.UDPAddr).AddrPort()
}

// dial connects from a slot.
func dial(t testing.TB, f *Fabric, slot int, network string, to netip.AddrPort) (net.Conn, error) {
	t.Helper()
	return within(t, f, slot, func() (net.Conn, error) { return net.DialTimeout(network, to.String(), time.Second) })
}

// exchange sends a word and waits until it comes back.
func exchange(c net.Conn, patience time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("groundplan")); err != nil {
		return err
	}
	back := make([]byte, 10)
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if string(back) != "groundplan" {
		return fmt.Errorf("came back as %q", back)
	}
	return nil
}

// reach connects from a slot and exchanges a word.
func reach(t testing.TB, f *Fabric, slot int, network string, to netip.AddrPort) error {
	t.Helper()
	c, err := dial(t, f, slot, network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c, time.Second)
}

// player is a process of this program that plays an instance.
func player(arguments ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", arguments...)
	cmd.Env = environment(roleInstance)
	return cmd
}

// play is what a process in an instance does.
func play(arguments []string) error {
	switch arguments[0] {
	case "describe":
		return describe()
	case "wait":
		fmt.Println("waiting")
		time.Sleep(time.Hour)
		return nil
	case "fork":
		// A child in a session of its own, which outlives this process and has nobody to wait for it.
		child := exec.Command("/proc/self/exe", arguments[1:]...)
		child.Env = os.Environ()
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			return err
		}
		fmt.Println(child.Process.Pid)
		return nil
	}
	return fmt.Errorf("nobody can play %q", arguments)
}

// describe prints what an instance sees of itself, a fact per line.
func describe() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Println("hostname", name)
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		addresses, err := i.Addrs()
		if err != nil {
			return err
		}
		fmt.Println(i.Name, i.HardwareAddr, addresses, i.Flags&net.FlagUp != 0)
	}
	gateway, err := net.LookupHost("testground-sync-service")
	fmt.Println("sync service", gateway, err)
	routes, err := os.ReadFile("/proc/thread-self/net/route")
	fmt.Println("default route", hasDefaultRoute(string(routes)))
	return err
}

// hasDefaultRoute looks for a destination 0.0.0.0 in the text of /proc/net/route.
func hasDefaultRoute(routes string) bool {
	for _, line := range strings.Split(routes, "\n") {
		if fields := strings.Fields(line); len(fields) > 7 && fields[1] == "00000000" && fields[7] == "00000000" {
			return true
		}
	}
	return false
}
