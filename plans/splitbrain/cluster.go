package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// peer is an instance as others know it.
type peer struct {
	Seq    int64
	Name   string
	Region string
	URL    string // of its value
}

// islands are the regions that stay together in a partition: each region is in one of them.
type islands [][]string

// readIslands reads "eu+us,asia": eu and us stay together, asia is alone.
func readIslands(text string) (islands, error) {
	var all islands
	seen := map[string]bool{}
	for island := range strings.SplitSeq(text, ",") {
		regions := strings.Split(island, "+")
		for _, region := range regions {
			if region == "" || seen[region] {
				return nil, fmt.Errorf("parameter islands is %q; it has to name every region once, as in eu+us,asia", text)
			}
			seen[region] = true
		}
		all = append(all, regions)
	}
	if len(all) < 2 {
		return nil, fmt.Errorf("parameter islands is %q: that is one island, and nothing to be cut apart", text)
	}
	return all, nil
}

// of is the island that a region is in, -1 when it is in none.
func (all islands) of(region string) int {
	return slices.IndexFunc(all, func(island []string) bool { return slices.Contains(island, region) })
}

// cluster is what an instance knows of all of them.
type cluster struct {
	own    peer
	all    []peer // in the order of their numbers, with own
	island islands
	client client
	// record is told how long a peer took to answer.
	record func(of peer, took time.Duration) error
}

// newCluster checks that everyone is on an island.
func newCluster(own peer, all []peer, split islands) (*cluster, error) {
	for _, p := range all {
		if split.of(p.Region) < 0 {
			return nil, fmt.Errorf("%s is in the region %q, which is on none of the islands %v", p.Name, p.Region, split)
		}
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b peer) int { return int(a.Seq - b.Seq) })
	return &cluster{own: own, all: all, island: split}, nil
}

// near says whether a peer stays with the own instance.
func (c *cluster) near(p peer) bool { return c.island.of(p.Region) == c.island.of(c.own.Region) }

// writer is who writes on an island: the first.
func (c *cluster) writer(island int) peer {
	at := slices.IndexFunc(c.all, func(p peer) bool { return c.island.of(p.Region) == island })
	return c.all[max(at, 0)]
}

// text is what is written on an island while it is cut off.
func (c *cluster) text(island int) string {
	return "written in " + strings.Join(c.island[island], " and ")
}

// winner is the text that is newest once all see each other again: all islands have written once since they did, so that
// the one with the greatest writer has it.
func (c *cluster) winner() string {
	var best peer
	var text string
	for island := range c.island {
		if w := c.writer(island); text == "" || w.Seq > best.Seq {
			best, text = w, c.text(island)
		}
	}
	return text
}

// answer is what came of asking a peer.
type answer struct {
	of    peer
	value value
	err   error
}

// ask asks everybody at the same time, the own instance too, in the order of their numbers.
func (c *cluster) ask(ctx context.Context) ([]answer, error) {
	answers := make([]answer, len(c.all))
	faults := make([]error, len(c.all))
	var work sync.WaitGroup
	for i, p := range c.all {
		work.Go(func() {
			began := time.Now()
			v, err := c.client.get(ctx, p.URL)
			answers[i] = answer{p, v, err}
			if err == nil {
				faults[i] = c.record(p, time.Since(began))
			}
		})
	}
	work.Wait()
	return answers, errors.Join(faults...)
}

// agreed says what is missing until everybody answers with a text.
func (c *cluster) agreed(ctx context.Context, text string) error {
	answers, err := c.ask(ctx)
	for _, a := range answers {
		switch {
		case a.err != nil:
			err = errors.Join(err, fmt.Errorf("%s does not answer: %w", a.of.Name, a.err))
		case a.value.Text != text:
			err = errors.Join(err, fmt.Errorf("%s answers %q", a.of.Name, a.value.Text))
		}
	}
	return err
}

// apart says what is missing until the own island is alone: that answers, with a text unless that is empty, and nobody
// else does.
func (c *cluster) apart(ctx context.Context, text string) error {
	answers, err := c.ask(ctx)
	for _, a := range answers {
		near := c.near(a.of)
		switch {
		case near && a.err != nil:
			err = errors.Join(err, fmt.Errorf("%s, on the same island, does not answer: %w", a.of.Name, a.err))
		case near && text != "" && a.value.Text != text:
			err = errors.Join(err, fmt.Errorf("%s, on the same island, answers %q instead of %q", a.of.Name, a.value.Text, text))
		case !near && a.err == nil:
			err = errors.Join(err, fmt.Errorf("%s, on another island, answers %q", a.of.Name, a.value.Text))
		}
	}
	return err
}
