package sidecar

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/groundplan/groundplan/sidecar/gateway"
)

// doors are where the instances of a node come to the gateway: each has a socket in its own pod's folder, so that who
// speaks is known by the socket.
type doors struct {
	gateway *gateway.Gateway
	// open makes the socket of a slot's pod, and client says who lives there.
	open   func(slot int) (net.Listener, error)
	client func(slot int) (gateway.Client, bool)
	log    *slog.Logger
	// ready is closed when client knows who runs where. Whoever comes before waits: he was let in by an earlier sidecar.
	ready chan struct{}

	mu     sync.Mutex
	served map[int]door
	closed bool
	work   sync.WaitGroup
}

// door is the socket of one pod.
type door struct {
	uid    string
	server *http.Server
}

// answer serves a slot's pod from now on, in the place of an earlier pod.
func (d *doors) answer(slot int, uid string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, served := d.served[slot]
	if served && before.uid == uid || d.closed {
		return nil
	}
	if served {
		_ = before.server.Close() // nobody is there any more
		delete(d.served, slot)
	}
	l, err := d.open(slot)
	if err != nil {
		return fmt.Errorf("listening for it: %w", err)
	}
	server := &http.Server{
		Handler: d.handler(slot), ReadHeaderTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
	d.served[slot] = door{uid: uid, server: server}
	d.work.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("an instance is no longer listened for", "slot", slot, "error", err)
		}
	})
	return nil
}

// handler serves who comes by a slot's socket.
func (d *doors) handler(slot int) http.Handler {
	serve := d.gateway.Handler(func(netip.AddrPort) (gateway.Client, bool) { return d.client(slot) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-d.ready:
			serve.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// serve has nothing to do: each door is served from when it is opened on.
func (d *doors) serve() error { return nil }

// Close stops listening. Conversations are the gateway's, which ends them.
func (d *doors) Close() error {
	d.mu.Lock()
	d.closed = true
	var failed []error
	for _, one := range d.served {
		failed = append(failed, one.server.Close())
	}
	d.mu.Unlock()
	d.work.Wait()
	return errors.Join(failed...)
}
