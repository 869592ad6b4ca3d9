package fabric

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
)

// What processes of this program do besides running tests, see launchtest.
const (
	rolePlace    = "place"    // a sidecar that places as many instances as its argument says, and ends
	roleHold     = "hold"     // a sidecar that runs instances until it is killed
	roleInstance = "instance" // does what its first argument says
)

func TestMain(m *testing.M) {
	launchtest.Main(m, launchtest.Roles{
		roleInstance: play,
		rolePlace: func(arguments []string) error {
			if err := launch.Prepare(); err != nil {
				return err
			}
			n, err := strconv.Atoi(arguments[0])
			if err != nil {
				return err
			}
			return place(n)
		},
		roleHold: func([]string) error {
			if err := launch.Prepare(); err != nil {
				return err
			}
			return hold()
		},
	})
}

// inSidecar has work done in a sidecar, with an empty fabric: once per kind of user that can start one here.
func inSidecar(t *testing.T, work func(t *testing.T, f *Fabric)) {
	t.Helper()
	launchtest.InSidecar(t, func(t *testing.T) {
		t.Helper()
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
	})
}

// startRole starts a sidecar in a role, by that user, and returns who started it and what it says.
func startRole(t testing.TB, who *syscall.Credential, role string, arguments ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", arguments...)
	cmd.Env = launchtest.StarterEnvironmentOf(role)
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
	cmd.Env = launchtest.Environment(roleInstance)
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
