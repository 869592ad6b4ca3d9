package sidecar

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/gateway"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/network"
)

// Main is the sidecar of a run, in a process that launch.Start has started. It returns once the run has been released:
// by a call, by SIGTERM, by the end of ctx, or because nobody has called for too long. It returns control.ErrServed
// when the run has a sidecar already.
func Main(ctx context.Context, c Config) error {
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if c.IdleLimit == 0 {
		c.IdleLimit = DefaultIdleLimit
	}
	c.Shaper = cmp.Or(c.Shaper, os.Getenv(ShaperVariable))
	redis.SetLogger(redisLog{c.Log})
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	outside := outsideOf(c.Redis) // before Prepare hides the way to it
	if err := launch.Prepare(); err != nil {
		return err
	}
	if err := os.MkdirAll(string(c.Folder), 0o755); err != nil {
		return fmt.Errorf("making the run's folder: %w", err)
	}
	calls, err := control.Listen(c.Folder)
	if err != nil {
		return err
	}
	defer calls.Close()
	w, err := build(c, outside)
	if err != nil {
		return err
	}
	err = w.serve(ctx, calls)
	return errors.Join(err, w.close())
}

// works are the parts of a sidecar.
type works struct {
	config  Config
	fabric  *fabric.Fabric
	network *network.Network
	gateway *gateway.Gateway
	redis   func() error // ends it
	reaper  *reaper.Reaper
	keeper  *keeper.Keeper
	sync    net.Listener
}

// build puts the parts together. What it has built when a later part fails goes with the process.
func build(c Config, outside *hostNetwork) (*works, error) {
	w := &works{config: c}
	var err error
	if w.fabric, err = fabric.New(fabric.Options{Subnet: c.Subnet}); err != nil {
		return nil, fmt.Errorf("building the run's network: %w", err)
	}
	run := filepath.Base(string(c.Folder))
	w.network, err = network.New(w.fabric, network.Options{Shaper: c.Shaper, Seed: c.Seed, Log: c.Log})
	if err != nil {
		return nil, fmt.Errorf("taking over the run's data network: %w", err)
	}
	client, end, err := openRedis(c.Redis, outside)
	if err != nil {
		return nil, err
	}
	w.redis = end
	w.gateway, err = gateway.New(gateway.Options{Redis: client, Run: run, Log: c.Log, Observe: w.observe})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the sync gateway: %w", err), end())
	}
	address := net.JoinHostPort(w.fabric.Gateway().String(), strconv.Itoa(syncPort))
	if w.sync, err = net.Listen("tcp", address); err != nil {
		return nil, fmt.Errorf("listening for instances: %w", err)
	}
	w.reaper = reaper.New()
	programs, err := keeper.NewChildren(c.Folder, seats{w.fabric}, w.reaper, c.Log)
	if err != nil {
		return nil, err
	}
	w.keeper, err = keeper.New(keeper.Options{
		Run: run, Folder: c.Folder, Network: seats{w.fabric}, Shaping: shaping{w.network}, Sync: signals{w.gateway},
		Programs: programs, Log: c.Log, Port: syncPort,
	})
	return w, err
}

// observe passes on what instances do at the gateway. No instance runs before there is a keeper.
func (w *works) observe(o gateway.Observation) {
	if o.Topic != "" {
		w.keeper.Observe(keeper.Observation{Client: o.Client, Space: o.Space, Topic: o.Topic, Payload: o.Payload})
	}
}

// who says which instance speaks from an address.
func (w *works) who(remote netip.AddrPort) (gateway.Client, bool) {
	slot, ok := w.fabric.Slot(remote.Addr())
	if !ok {
		return gateway.Client{}, false
	}
	name, space, ok := w.keeper.Client(slot)
	if !ok {
		return gateway.Client{}, false
	}
	return gateway.Client{Name: name, Space: w.gateway.Space(space)}, true
}

// serve serves the worker and the instances until the run is released, however that comes about.
func (w *works) serve(ctx context.Context, calls net.Listener) error {
	work, ctx := errgroup.WithContext(ctx)
	ctx, over := context.WithCancel(ctx)
	defer over()
	server := &control.Server{
		Backend: w.keeper, Log: w.config.Log, IdleLimit: w.config.IdleLimit,
		Idle: func() {
			w.config.Log.Warn("nobody has called for too long: the run is released", "limit", w.config.IdleLimit)
			over()
		},
		Released: over,
	}
	instances := &http.Server{
		Handler: w.gateway.Handler(w.who), ReadHeaderTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(w.config.Log.Handler(), slog.LevelWarn),
	}
	// The calls go on until everything is gone, so that whoever waits for a stage hears of its end.
	answering, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	work.Go(func() error { return server.Serve(answering, calls) })
	work.Go(func() error {
		if err := instances.Serve(w.sync); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the instances: %w", err)
		}
		return nil
	})
	work.Go(func() error {
		<-ctx.Done()
		defer hangUp() // not before the data is gone: the run's next sidecar comes then, and has the same keys
		_, err := w.keeper.Release(context.WithoutCancel(ctx))
		err = errors.Join(err, instances.Close(), w.gateway.Close())
		w.forget(context.WithoutCancel(ctx))
		return err
	})
	return work.Wait()
}

// forget deletes the run's data from a Redis that others use too. The gateway was its only one. What can't be deleted
// goes by itself some days later: that is worth a warning, not a failure.
func (w *works) forget(ctx context.Context) {
	if w.config.Redis == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, forgetsWithin)
	defer cancel()
	if err := w.gateway.Forget(ctx); err != nil {
		w.config.Log.Warn("the run's data stays in Redis until it expires", "error", err)
	}
}

// close gives everything back. What it doesn't manage to, the kernel does when the process ends.
func (w *works) close() error {
	err := w.redis()
	w.reaper.Close()
	return errors.Join(err, w.network.Close(), w.fabric.Close())
}

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

// signals is the gateway as the keeper sees it.
type signals struct{ gateway *gateway.Gateway }

func (s signals) Signal(ctx context.Context, space, state string, n int64) error {
	_, err := s.gateway.Space(space).Signal(ctx, state, n)
	return err
}

func (s signals) Barrier(ctx context.Context, space, state string, target int64) error {
	return s.gateway.Space(space).Barrier(ctx, state, target)
}

func (s signals) Publish(ctx context.Context, space, topic string, document json.RawMessage) (int64, error) {
	return s.gateway.Space(space).Publish(ctx, topic, document)
}

func (s signals) Subscribe(ctx context.Context, space, topic string) iter.Seq2[json.RawMessage, error] {
	return s.gateway.Space(space).Subscribe(ctx, topic)
}
