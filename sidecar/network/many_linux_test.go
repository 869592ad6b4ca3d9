package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
)

const (
	// roleOne is one of many runs at once, called by its first argument.
	roleOne = "one"
	// exchanges is how often the two instances of such a run speak, and sharedPort where the one that answers listens: the
	// same in every run, as all addresses are.
	exchanges  = 50
	sharedPort = 4000
)

// A hundred runs of two instances each use the same addresses, at the same time, on shaped links. Everybody hears only
// those of their own run.
func TestHundredRunsDontSeeEachOther(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: not with -short")
	}
	if launchtest.Inside() {
		return // inside a sidecar
	}
	if err := launch.Supported(); err != nil {
		t.Skip(err)
	}
	before, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for run := range 100 {
		work.Go(func() {
			log, err := os.CreateTemp(t.TempDir(), "log")
			if err != nil {
				t.Error(err)
				return
			}
			defer log.Close()
			p, err := launch.Start(launch.Options{Executable: "/proc/self/exe", Args: []string{fmt.Sprint("run-", run)}, Env: launchtest.Environment(roleOne), Log: log})
			if err != nil {
				t.Error(err)
				return
			}
			state, err := p.Wait()
			if said, _ := os.ReadFile(log.Name()); err != nil || !state.Success() {
				t.Errorf("run %d: %v %v\n%s", run, state, err, said)
			}
		})
	}
	work.Wait()
	after, err := net.Interfaces()
	if err != nil || len(after) != len(before) {
		t.Errorf("the host had %d interfaces and has %d: %v", len(before), len(after), err)
	}
}

// beOne is one of the runs.
func beOne(name string) error {
	if err := launch.Prepare(); err != nil {
		return err
	}
	f, err := fabric.New(fabric.Options{})
	if err != nil {
		return err
	}
	ctx, latency := context.Background(), pipelines.Duration(2*time.Millisecond)
	if err := errors.Join(f.Add(ctx, []fabric.Spec{{Slot: 0, Hostname: "a"}, {Slot: 1, Hostname: "b"}})...); err != nil {
		return err
	}
	n, err := New(f, Options{})
	if err != nil {
		return err
	}
	if err := n.Seat(ctx, groups(1)); err != nil {
		return err
	}
	if err := n.SetStage(ctx, pipelines.Network{Default: pipelines.Shape{Latency: &latency}}); err != nil {
		return err
	}
	server, err := listen(f, 1, sharedPort)
	if err != nil {
		return err
	}
	client, err := listen(f, 0, sharedPort)
	if err != nil {
		return err
	}
	go answer(server, name)
	return converse(client, server.LocalAddr().(*net.UDPAddr).AddrPort(), name)
}

func listen(f *fabric.Fabric, slot int, port uint16) (conn *net.UDPConn, err error) {
	_, data := f.Addresses(slot)
	err = f.Inside(slot, func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(data, port)))
		return err
	})
	return conn, err
}

// answer says by which run it is, to whoever asks as that run.
func answer(server *net.UDPConn, name string) {
	buffer := make([]byte, 100)
	for {
		n, from, err := server.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		said := name + " was asked by " + string(buffer[:n])
		_, _ = server.WriteToUDPAddrPort([]byte(said), from)
	}
}

// converse asks again and again, and fails when anybody but its own run was asked or answers, or nobody ever.
func converse(client *net.UDPConn, to netip.AddrPort, name string) error {
	want, heard := []byte(name+" was asked by "+name), 0
	buffer := make([]byte, 100)
	for range exchanges {
		if _, err := client.WriteToUDPAddrPort([]byte(name), to); err != nil {
			return err
		}
		_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := client.ReadFromUDPAddrPort(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return err
		case !bytes.Equal(buffer[:n], want):
			return fmt.Errorf("heard %q", buffer[:n])
		default:
			heard++
		}
	}
	if heard < exchanges/2 {
		return fmt.Errorf("of %d questions %d were answered", exchanges, heard)
	}
	return nil
}
