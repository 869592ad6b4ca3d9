// Command barrier is a plan that measures how instances work together: barriers of all of them, and everyone publishing
// to everyone.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

func main() { sdk.Main(map[string]sdk.Case{"barrier": barrier}) }

// item is what an instance publishes.
type item struct {
	From    int64 // the publisher's GlobalSeq
	Number  int   // from 0
	Padding string
}

const everyone sdk.Topic[item] = "everyone"

// plan says what is measured.
type plan struct {
	// rounds of barriers of all instances.
	rounds int
	// items that each instance publishes, with so many bytes of padding.
	items, size int
}

// barrier measures barriers and then the exchange of all with all.
func barrier(ctx context.Context, run *sdk.Run) error {
	p, err := readPlan(run)
	if err != nil {
		return err
	}
	// The first one is for all to have come: it isn't measured.
	if _, err := run.SignalAndWait(ctx, "here", run.Instances); err != nil {
		return err
	}
	for i := range p.rounds {
		started := time.Now()
		if _, err := run.SignalAndWait(ctx, fmt.Sprint("round-", i), run.Instances); err != nil {
			return err
		}
		if err := run.Results.Histogram("barrier_seconds", time.Since(started).Seconds()); err != nil {
			return err
		}
	}
	return p.exchange(ctx, run)
}

// exchange publishes to everyone and reads what everyone published: each item once, and those of one publisher in order.
func (p plan) exchange(ctx context.Context, run *sdk.Run) error {
	if _, err := run.SignalAndWait(ctx, "exchange", run.Instances); err != nil {
		return err
	}
	published := make(chan error, 1)
	started := time.Now()
	run.Go(func() { published <- p.publish(ctx, run) })
	counts := tally{from: make(map[int64]int, run.Instances), instances: run.Instances, items: p.items}
	for i, err := range everyone.Subscribe(ctx, run) {
		if err == nil {
			err = counts.add(i)
		}
		if err != nil {
			return err
		}
		if counts.complete() {
			break
		}
	}
	took := time.Since(started)
	return errors.Join(
		<-published,
		run.Results.Histogram("all_to_all_seconds", took.Seconds()),
		run.Results.Point("items_received", float64(counts.total)),
	)
}

func (p plan) publish(ctx context.Context, run *sdk.Run) error {
	padding := strings.Repeat("x", p.size)
	for i := range p.items {
		started := time.Now()
		if _, err := everyone.Publish(ctx, run, item{run.GlobalSeq, i, padding}); err != nil {
			return err
		}
		if err := run.Results.Histogram("publish_seconds", time.Since(started).Seconds()); err != nil {
			return err
		}
	}
	return nil
}

// tally counts items as they come.
type tally struct {
	from             map[int64]int // publisher → how many have come
	instances, items int
	total            int
}

// add refuses an item that comes twice, too early, or from nobody who takes part.
func (t *tally) add(i item) error {
	switch want := t.from[i.From]; {
	case i.From < 1 || i.From > int64(t.instances):
		return fmt.Errorf("an item came from instance %d of %d", i.From, t.instances)
	case i.Number >= t.items:
		return fmt.Errorf("item %d came from instance %d, which publishes %d", i.Number, i.From, t.items)
	case i.Number != want:
		return fmt.Errorf("item %d came from instance %d, when it was the turn of item %d", i.Number, i.From, want)
	}
	t.from[i.From]++
	t.total++
	return nil
}

func (t *tally) complete() bool { return t.total == t.instances*t.items }

// readPlan reads the parameters.
func readPlan(run *sdk.Run) (plan, error) {
	var p plan
	var size sdk.Size
	var faults [3]error
	p.rounds, faults[0] = sdk.ParamOr(run, "rounds", 10)
	p.items, faults[1] = sdk.ParamOr(run, "items", 1)
	size, faults[2] = sdk.ParamOr(run, "size", sdk.Size(0))
	p.size = int(size)
	if err := errors.Join(faults[:]...); err != nil {
		return plan{}, err
	}
	switch {
	case p.rounds < 0:
		return plan{}, fmt.Errorf("parameter rounds is %d; it has to be 0 or more", p.rounds)
	case p.items < 1:
		return plan{}, fmt.Errorf("parameter items is %d; it has to be 1 or more", p.items)
	}
	return p, nil
}
