package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/gateway"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
	"github.com/groundplan/groundplan/sidecar/network"
)

// build puts the parts together where all of the run is on this machine: instances are children of this process.
func (w *works) build(outside *hostNetwork) (err error) {
	c := w.config
	if w.fabric, err = fabric.New(fabric.Options{Subnet: c.Subnet}); err != nil {
		return fmt.Errorf("building the run's network: %w", err)
	}
	w.ends = append(w.ends, w.fabric.Close)
	w.network, err = network.New(w.fabric, network.Options{Shaper: c.Shaper, Seed: c.Seed, Log: c.Log})
	if err != nil {
		return fmt.Errorf("taking over the run's data network: %w", err)
	}
	w.ends = append(w.ends, w.network.Close)
	if err := w.openGateway(outside); err != nil {
		return err
	}
	w.forget = w.forgetAll
	if err := w.openPort(); err != nil {
		return err
	}
	r := reaper.New()
	w.ends = append(w.ends, func() error { r.Close(); return nil })
	programs, err := keeper.NewChildren(c.Folder, seats{w.fabric}, r, c.Log)
	if err != nil {
		return err
	}
	w.keeper, err = keeper.New(keeper.Options{
		Run: c.run(), Folder: c.Folder, Network: seats{w.fabric}, Shaping: shaping{w.network}, Sync: signals{w.gateway},
		Programs: programs, Log: c.Log, Port: syncPort,
	})
	w.backend = w.keeper
	return err
}

// forgetAll deletes the run's data from a Redis that others use too. The gateway was its only one.
func (w *works) forgetAll(ctx context.Context) error {
	if w.config.Redis == "" {
		return nil
	}
	return w.gateway.Forget(ctx)
}

// port is the one at which instances come to the gateway, over their control network.
type port struct {
	server *http.Server
	net.Listener
}

func (w *works) openPort() error {
	l, err := net.Listen("tcp", net.JoinHostPort(w.fabric.Gateway().String(), strconv.Itoa(syncPort)))
	if err != nil {
		return fmt.Errorf("listening for instances: %w", err)
	}
	w.entrance = &port{Listener: l, server: &http.Server{
		Handler: w.gateway.Handler(w.who), ReadHeaderTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(w.config.Log.Handler(), slog.LevelWarn),
	}}
	return nil
}

// who says which instance speaks from an address.
func (w *works) who(remote netip.AddrPort) (gateway.Client, bool) {
	slot, ok := w.fabric.Slot(remote.Addr())
	if !ok {
		return gateway.Client{}, false
	}
	return w.client(slot)
}

func (p *port) serve() error {
	if err := p.server.Serve(p.Listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the instances: %w", err)
	}
	return nil
}

// Close stops listening. Conversations are the gateway's, which ends them.
func (p *port) Close() error { return p.server.Close() }

// seats is the fabric as the keeper sees it.
type seats struct{ *fabric.Fabric }

func (s seats) Add(ctx context.Context, wanted []keeper.Seat) []error {
	specs := make([]fabric.Spec, len(wanted))
	for i, seat := range wanted {
		specs[i] = fabric.Spec{Slot: seat.Slot, Hostname: seat.Hostname}
	}
	return s.Fabric.Add(ctx, specs)
}

func (s seats) Inode(slot int) uint64 { return s.NetworkInode(slot) }
