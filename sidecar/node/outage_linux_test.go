package node_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/fabric/fabrictest"
)

// outage is a Redis that can be away.
type outage struct {
	url string
	mu  sync.Mutex
	off bool
	all map[net.Conn]struct{}
}

// startRedis starts a Redis that is reached at a node's address.
func startRedis(t *testing.T, at *fabrictest.Node) *outage {
	t.Helper()
	server := miniredis.RunT(t)
	server.RequireAuth("secret")
	o := &outage{url: fmt.Sprintf("redis://:secret@%s:6379/0", at.Address), all: map[net.Conn]struct{}{}}
	var l net.Listener
	err := fabrictest.OnThread(func() error {
		if err := unix.Setns(int(at.Host.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		l, err = net.Listen("tcp", net.JoinHostPort(at.Address.String(), "6379"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); o.set(true) })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go o.pass(in, server.Addr())
		}
	}()
	return o
}

func (o *outage) pass(in net.Conn, to string) {
	defer in.Close()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	o.mu.Lock()
	if o.off {
		o.mu.Unlock()
		return
	}
	o.all[in] = struct{}{}
	o.mu.Unlock()
	go func() {
		_, _ = io.Copy(out, in)
		out.Close()
	}()
	_, _ = io.Copy(in, out)
	o.mu.Lock()
	delete(o.all, in)
	o.mu.Unlock()
}

// set has it away or there.
func (o *outage) set(off bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.off = off
	for conn := range o.all {
		if off {
			conn.Close()
		}
	}
}
