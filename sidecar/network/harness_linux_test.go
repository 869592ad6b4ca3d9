package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch"
)

// The tests that need a fabric run once outside, where they do nothing but start this program again as a sidecar, as
// root and as an unprivileged user, and once in there, where they do their work.
const (
	roleVariable = "GROUNDPLAN_NETWORK_TEST"
	roleStarter  = "starter"
	roleSidecar  = "sidecar"
	nobody       = 65534
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case roleStarter:
		p, err := launch.Start(launch.Options{Executable: "/proc/self/exe", Args: os.Args[1:], Env: environment(roleSidecar), Log: os.Stdout})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		state, err := p.Wait()
		if err != nil || !state.Success() {
			fmt.Println(err, state)
			os.Exit(1)
		}
		return
	case roleOne:
		if err := beOne(os.Args[1]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	case roleSidecar:
		if err := launch.Prepare(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// environment is this process's with that role.
func environment(role string) []string {
	others := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, roleVariable+"=") })
	return append(others, roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
}

// inSidecar has work done in a sidecar, with a fabric that has n instances: once per kind of user that can start one.
func inSidecar(t *testing.T, n int, work func(t *testing.T, f *fabric.Fabric, n *Network)) {
	t.Helper()
	if os.Getenv(roleVariable) != roleSidecar {
		if err := launch.Supported(); err != nil {
			t.Skip(err)
		}
		if os.Geteuid() != 0 {
			relaunch(t, nil)
			return
		}
		t.Run("as root", func(t *testing.T) { relaunch(t, nil) })
		t.Run("without root", func(t *testing.T) { relaunch(t, &syscall.Credential{Uid: nobody, Gid: nobody}) })
		return
	}
	f, err := fabric.New(fabric.Options{})
	if err != nil {
		t.Fatal(err)
	}
	specs := make([]fabric.Spec, n)
	for i := range specs {
		specs[i] = fabric.Spec{Slot: i, Hostname: fmt.Sprint("i", i)}
	}
	for _, err := range f.Add(t.Context(), specs) {
		if err != nil {
			t.Fatal(err)
		}
	}
	network, err := New(f, Options{Shaper: os.Getenv("GROUNDPLAN_SHAPER")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	work(t, f, network)
}

func relaunch(t *testing.T, who *syscall.Credential) {
	root, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+regexp.QuoteMeta(root)+"$", "-test.v", fmt.Sprintf("-test.short=%v", testing.Short()))
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

// udp is a socket of an instance's.
type udp struct {
	*net.UDPConn
	slot int
	at   netip.AddrPort
}

func socket(t *testing.T, f *fabric.Fabric, slot int) *udp {
	t.Helper()
	_, data := f.Addresses(slot)
	u := &udp{slot: slot}
	err := f.Inside(slot, func() (err error) {
		u.UDPConn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(data, 0)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	u.at = u.LocalAddr().(*net.UDPAddr).AddrPort()
	return u
}
