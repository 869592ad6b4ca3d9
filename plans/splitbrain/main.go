// Command splitbrain is a plan in which regions are cut apart and healed while an HTTP service runs on every instance:
// one register, replicated to all, in which the newest write wins. While they are apart only the own side answers and
// each side has a value of its own; once healed all have the same.
//
// The pipeline cuts when every instance has signalled the state `ready`. Which regions then stay together is told by the
// parameter islands, as in eu+us,asia.
package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

func main() { sdk.Main(map[string]sdk.Case{"split": split}) }

const peers sdk.Topic[peer] = "peers"

// split takes part in one partition.
func split(ctx context.Context, run *sdk.Run) error {
	c, r, err := join(ctx, run)
	if err != nil {
		return err
	}
	for _, p := range c.all {
		if p.Seq != c.own.Seq {
			run.Go(func() { r.replicate(ctx, c.client, p.URL) })
		}
	}
	steps := []func(context.Context, *sdk.Run, *replica) error{c.before, c.during, c.after}
	for _, step := range steps {
		if err := step(ctx, run, r); err != nil {
			return err
		}
	}
	return nil
}

// join starts the instance's own service and gets to know the others.
func join(ctx context.Context, run *sdk.Run) (*cluster, *replica, error) {
	text, err := sdk.Param[string](run, "islands")
	if err != nil {
		return nil, nil, err
	}
	apart, err := readIslands(text)
	if err != nil {
		return nil, nil, err
	}
	patience, err := sdk.ParamOr(run, "patience", time.Second)
	if err != nil {
		return nil, nil, err
	}
	address, err := run.DataAddress()
	if err != nil {
		return nil, nil, err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", netip.AddrPortFrom(address, 0).String())
	if err != nil {
		return nil, nil, err
	}
	r := newReplica(run.GlobalSeq)
	r.serve(ctx, run.Go, l)
	own := peer{run.GlobalSeq, fmt.Sprintf("%s/%d", run.Group, run.Index), run.Region, fmt.Sprintf("http://%s/value", l.Addr())}
	if _, err := peers.Publish(ctx, run, own); err != nil {
		return nil, nil, err
	}
	all, err := peers.Collect(ctx, run, run.Instances)
	if err != nil {
		return nil, nil, err
	}
	c, err := newCluster(own, all, apart)
	if err != nil {
		return nil, nil, err
	}
	c.client = newClient(patience)
	c.record = func(of peer, took time.Duration) error {
		name := "other_region_seconds"
		if of.Region == own.Region {
			name = "own_region_seconds"
		}
		return run.Results.Histogram(name, took.Seconds())
	}
	return c, r, nil
}

// before has all agree on a first value.
func (c *cluster) before(ctx context.Context, run *sdk.Run, r *replica) error {
	if c.own == c.all[0] {
		r.write("first")
	}
	err := until(ctx, "everybody has the first value", func() error { return c.agreed(ctx, "first") })
	if err != nil {
		return err
	}
	_, err = run.SignalAndWait(ctx, "ready", run.Instances)
	return err
}

// during waits until the regions are cut apart, and has every island agree on a value of its own.
func (c *cluster) during(ctx context.Context, run *sdk.Run, r *replica) error {
	began := time.Now()
	if err := until(ctx, "the regions are cut apart", func() error { return c.apart(ctx, "") }); err != nil {
		return err
	}
	if err := run.Results.Histogram("cut_seconds", time.Since(began).Seconds()); err != nil {
		return err
	}
	if _, err := run.SignalAndWait(ctx, "cut", run.Instances); err != nil {
		return err
	}
	island := c.island.of(c.own.Region)
	if c.own == c.writer(island) {
		r.write(c.text(island))
	}
	if err := until(ctx, "the own island has a value of its own", func() error { return c.apart(ctx, c.text(island)) }); err != nil {
		return err
	}
	run.Message("cut off: %q here", c.text(island))
	if err := run.Results.Point("values_apart", 1); err != nil {
		return err
	}
	_, err := run.SignalAndWait(ctx, "apart", run.Instances)
	return err
}

// after waits until all have the same value again.
func (c *cluster) after(ctx context.Context, run *sdk.Run, _ *replica) error {
	began := time.Now()
	if err := until(ctx, "all are healed", func() error { return c.agreed(ctx, c.winner()) }); err != nil {
		return err
	}
	if err := run.Results.Histogram("heal_seconds", time.Since(began).Seconds()); err != nil {
		return err
	}
	run.Message("healed: %q everywhere", c.winner())
	_, err := run.SignalAndWait(ctx, "healed", run.Instances)
	return err
}
