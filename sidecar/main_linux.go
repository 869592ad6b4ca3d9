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
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/gateway"
	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/network"
)

// Main is the sidecar of a run. Where all of the run is on this machine, it is called in a process that launch.Start has
// started, and returns once the run has been released: by a call, by SIGTERM, by the end of ctx, or because nobody has
// called for too long. On a node of a cluster only a call and the idle limit release; at SIGTERM and the end of ctx it
// returns ErrLeft, and the next one goes on from there. It returns control.ErrServed when the run has a sidecar already.
func Main(ctx context.Context, c Config) error {
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c.IdleLimit = cmp.Or(c.IdleLimit, DefaultIdleLimit)
	c.Shaper = cmp.Or(c.Shaper, os.Getenv(ShaperVariable))
	redis.SetLogger(redisLog{c.Log})
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var outside *hostNetwork
	if c.Node == nil {
		outside = outsideOf(c.Redis) // before Prepare hides the way to it
		if err := launch.Prepare(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(string(c.Folder), 0o755); err != nil {
		return fmt.Errorf("making the run's folder: %w", err)
	}
	calls, err := control.Listen(c.Folder)
	if err != nil {
		return err
	}
	defer calls.Close()
	w := &works{config: c}
	if c.Node != nil {
		err = w.buildOnNode()
	} else {
		err = w.build(outside)
	}
	if err != nil {
		return err
	}
	err = w.serve(ctx, calls)
	if errors.Is(err, ErrLeft) {
		return err
	}
	return errors.Join(err, w.close())
}

// works are the parts of a sidecar. What has been built when a later part fails goes with the process.
type works struct {
	config  Config
	fabric  *fabric.Fabric
	network *network.Network
	gateway *gateway.Gateway
	keeper  *keeper.Keeper
	backend control.Backend
	// entrance is where instances come to the gateway.
	entrance interface {
		serve() error
		Close() error
	}
	// forget deletes the run's data from Redis.
	forget func(context.Context) error
	// ends give back what was opened, the last first.
	ends []func() error
}

// run is the run's id.
func (c *Config) run() string { return filepath.Base(string(c.Folder)) }

// openGateway opens the sync service over the Redis that is configured, which may be on another network than this.
func (w *works) openGateway(outside *hostNetwork) error {
	client, end, err := openRedis(w.config.Redis, outside)
	if err != nil {
		return err
	}
	options := gateway.Options{Redis: client, Run: w.config.run(), Log: w.config.Log, Observe: w.observe}
	if w.config.Node != nil { // what a killed one of this node had on its way to Redis is not applied any more
		options.Name = w.config.Node.Name
	}
	w.gateway, err = gateway.New(options)
	if err != nil {
		return errors.Join(fmt.Errorf("starting the sync gateway: %w", err), end())
	}
	w.ends = append(w.ends, end)
	return nil
}

// observe passes on what instances do at the gateway. No instance runs before there is a keeper.
func (w *works) observe(o gateway.Observation) {
	if o.Topic != "" {
		w.keeper.Observe(keeper.Observation{Client: o.Client, Space: o.Space, Topic: o.Topic, Payload: o.Payload, Seq: o.Seq})
	}
}

// client says which instance speaks from a slot.
func (w *works) client(slot int) (gateway.Client, bool) {
	name, space, ok := w.keeper.Client(slot)
	if !ok {
		return gateway.Client{}, false
	}
	return gateway.Client{Name: name, Space: w.gateway.Space(space)}, true
}

// serve serves the worker and the instances until the run is released or, on a node, left as it is.
func (w *works) serve(ctx context.Context, calls net.Listener) error {
	work, ctx := errgroup.WithContext(ctx)
	ctx, over := context.WithCancelCause(ctx)
	defer over(nil)
	server := &control.Server{
		Backend: w.backend, Log: w.config.Log, IdleLimit: w.config.IdleLimit,
		Idle: func() {
			w.config.Log.Warn("nobody has called for too long: the run is released", "limit", w.config.IdleLimit)
			over(errReleased)
		},
		Released: func() { over(errReleased) },
	}
	// The calls go on until everything is gone, so that whoever waits for a stage hears of its end.
	answering, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	work.Go(func() error { return server.Serve(answering, calls) })
	work.Go(w.entrance.serve)
	work.Go(func() error {
		<-ctx.Done()
		defer hangUp() // not before the data is gone: the run's next sidecar comes then, and has the same keys
		if w.config.Node != nil && !errors.Is(context.Cause(ctx), errReleased) {
			return errors.Join(ErrLeft, w.entrance.Close())
		}
		return w.release(context.WithoutCancel(ctx))
	})
	return work.Wait()
}

// errReleased is why a sidecar ends whose run was released.
var errReleased = errors.New("the run was released")

// release ends every process of the run, and what they spoke with. What can't be deleted from Redis goes by itself some
// days later: that is worth a warning, not a failure.
func (w *works) release(ctx context.Context) error {
	_, err := w.keeper.Release(ctx)
	err = errors.Join(err, w.entrance.Close(), w.gateway.Close())
	ctx, cancel := context.WithTimeout(ctx, forgetsWithin)
	defer cancel()
	if gone := w.forget(ctx); gone != nil {
		w.config.Log.Warn("the run's data stays in Redis until it expires", "error", gone)
	}
	return err
}

// close gives everything back. What it doesn't manage to, the kernel does when the process ends.
func (w *works) close() error {
	var failed []error
	for _, end := range slices.Backward(w.ends) {
		failed = append(failed, end())
	}
	return errors.Join(failed...)
}

// signals is the gateway as the keeper sees it.
type signals struct{ gateway *gateway.Gateway }

func (s signals) Signal(ctx context.Context, space, state string, n int64) error {
	_, err := s.gateway.Space(space).Signal(ctx, state, n)
	return err
}

func (s signals) SignalOnce(ctx context.Context, space, state, name string) (func(), error) {
	return s.gateway.Space(space).SignalOnce(ctx, state, name)
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
