//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/internal/cluster/layout"
)

// patience is how long a server may take until it is ready, on a machine that does much else.
const patience = 3 * time.Minute

// start starts a server, unless it runs, and waits until it is ready.
func (c *cluster) start(ctx context.Context, s layout.Server) error {
	since := time.Now()
	if _, alive := c.servers().Alive(s.Name); alive {
		since = time.Time{}
	}
	if err := c.servers().Start(s); err != nil {
		return err
	}
	return c.waitReady(ctx, s, since)
}

// waitReady waits until a server that was started at a moment is ready.
func (c *cluster) waitReady(ctx context.Context, s layout.Server, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.wait(ctx, s.Name, func() error { return c.ready(ctx, s, since) })
}

// wait asks again and again, until there is no error; the server whose doing it is must stay alive.
func (c *cluster) wait(ctx context.Context, server string, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if dead := c.servers().Dead(server); dead != nil {
			return dead
		}
		select {
		case <-ctx.Done():
			return c.servers().Explain(server, fmt.Errorf("waiting for %s: %w: %w", server, context.Cause(ctx), err))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ready says what is still missing until a server does its work; those that nobody asks are ready when they run.
func (c *cluster) ready(ctx context.Context, s layout.Server, since time.Time) error {
	machine, kind, found := strings.Cut(s.Name, ".")
	if !found {
		kind = s.Name
	}
	switch kind {
	case layout.APIServer:
		a, err := c.api()
		if err != nil {
			return err
		}
		return a.probe(ctx, "/readyz")
	case layout.Registry:
		return probe(ctx, http.DefaultClient, "http://"+c.Registry().String()+"/v2/")
	case layout.Redis:
		return c.dialInside(s.Machine, c.Redis().Addr().As4(), int(c.Redis().Port()))
	case layout.Containerd:
		process, _ := c.servers().Alive(s.Name)
		return dialUnix(fmt.Sprintf("/proc/%d/root/run/containerd/containerd.sock", process))
	case layout.Kubelet:
		return c.kubeletReady(ctx, machine, since)
	}
	return nil
}

// kubeletReady says why a node takes no pods yet: its kubelet must have said so since it was started.
func (c *cluster) kubeletReady(ctx context.Context, machine string, since time.Time) error {
	a, err := c.api()
	if err != nil {
		return err
	}
	renewed, err := a.renewed(ctx, machine)
	if err != nil {
		return err
	}
	if renewed.Before(since) {
		return errors.New("the kubelet has not renewed its lease yet")
	}
	var n node
	if err := a.get(ctx, "/api/v1/nodes/"+machine, &n); err != nil {
		return err
	}
	if ready, why := n.ready(); !ready {
		return fmt.Errorf("the node %s is not ready: %s", machine, why)
	}
	return nil
}

func (a *api) probe(ctx context.Context, path string) error { return probe(ctx, a.client, a.url+path) }

func probe(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, answer.Status)
	}
	return nil
}

func dialUnix(path string) error {
	connection, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	return connection.Close()
}

// dialInside connects to an address from a machine's network, and hangs up.
func (c *cluster) dialInside(machine string, address [4]byte, port int) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ended <- func() error {
			namespace, err := netns.GetFromPath(c.namespaces().File(machine, "net"))
			if err != nil {
				return err
			}
			defer namespace.Close()
			if err := netns.Set(namespace); err != nil {
				return err
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Connect(fd, &unix.SockaddrInet4{Addr: address, Port: port})
		}()
	}()
	return <-ended
}
