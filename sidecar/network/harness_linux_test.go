package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
)

func TestMain(m *testing.M) {
	launchtest.Main(m, launchtest.Roles{roleOne: func(arguments []string) error { return beOne(arguments[0]) }})
}

// inSidecar has work done in a sidecar, with a fabric that has n instances: once per kind of user that can start one.
func inSidecar(t *testing.T, n int, work func(t *testing.T, f *fabric.Fabric, n *Network)) {
	t.Helper()
	launchtest.Options{Flat: true}.InSidecar(t, func(t *testing.T) {
		t.Helper()
		f, network := opened(t, n)
		work(t, f, network)
	})
}

// opened is a fabric that has n instances, and its network. They last until the test ends.
func opened(t *testing.T, n int) (*fabric.Fabric, *Network) {
	t.Helper()
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
	return f, network
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
