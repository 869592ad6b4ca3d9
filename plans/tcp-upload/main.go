// Command tcp-upload is a plan in which clients send bytes to servers over TCP, and measure how long that takes. The
// shape of the network between them is the pipeline's business.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

func main() { sdk.Main(map[string]sdk.Case{"upload": play}) }

// servers is the group that takes uploads; all other instances are clients.
const servers = "servers"

// member is an instance; clients are nowhere.
type member struct {
	Seq int64
	At  netip.AddrPort
}

const members sdk.Topic[member] = "members"

// settings are the parameters.
type settings struct {
	size   sdk.Size
	sample time.Duration
	// label stands before the names of the metrics, so that those of several stages can be told apart.
	label string
}

func readSettings(run *sdk.Run) (settings, error) {
	var s settings
	var faults [4]error
	s.size, faults[0] = sdk.ParamOr(run, "size", sdk.Size(1<<20))
	s.sample, faults[1] = sdk.ParamOr(run, "sample", 200*time.Millisecond)
	s.label, faults[2] = sdk.ParamOr(run, "label", "upload")
	if s.size < 1 || s.sample <= 0 {
		faults[3] = fmt.Errorf("size is %d and sample %v: both have to be above 0", s.size, s.sample)
	}
	return s, errors.Join(faults[:]...)
}

// play uploads, or takes uploads until all are done.
func play(ctx context.Context, run *sdk.Run) error {
	s, err := readSettings(run)
	if err != nil {
		return err
	}
	if run.Group == servers {
		return s.serve(ctx, run)
	}
	err = s.upload(ctx, run)
	_, signalled := run.Signal(ctx, "uploaded") // servers wait, whatever came of it
	return errors.Join(err, signalled)
}

func (s settings) serve(ctx context.Context, run *sdk.Run) error {
	own, err := run.DataAddress()
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(own, 0).String())
	if err != nil {
		return err
	}
	defer l.Close()
	i := &intake{
		listener: l, sample: s.sample,
		record: func(rate float64) error { return run.Results.Histogram(s.label+"_rate_bits", rate) },
		failed: func(err error) { run.Message("%v", err) }, // the client fails for it
	}
	run.Go(func() { i.serve(run.Go) })
	all, err := meet(ctx, run, member{run.GlobalSeq, l.Addr().(*net.TCPAddr).AddrPort()})
	if err != nil {
		return err
	}
	clients := 0
	for _, m := range all {
		if !m.At.IsValid() {
			clients++
		}
	}
	return run.Barrier(ctx, "uploaded", clients)
}

// upload uploads to one of the servers.
func (s settings) upload(ctx context.Context, run *sdk.Run) error {
	all, err := meet(ctx, run, member{Seq: run.GlobalSeq})
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(m member) bool { return !m.At.IsValid() })
	if len(all) == 0 {
		return fmt.Errorf("there is no instance in a group `%s`", servers)
	}
	slices.SortFunc(all, func(a, b member) int { return a.At.Compare(b.At) })
	to := all[int(run.GroupSeq)%len(all)].At
	done, err := upload(ctx, to, run.Seed, int64(s.size))
	if err != nil {
		return fmt.Errorf("uploading %d bytes to %s: %w", s.size, to, err)
	}
	run.Message("%d bytes in %v, at %.2f Mbit/s in the end", s.size, done.took.Round(time.Millisecond), done.Steady/1e6)
	return errors.Join(
		run.Results.Histogram(s.label+"_connect_seconds", done.connect.Seconds()),
		run.Results.Histogram(s.label+"_completion_seconds", done.took.Seconds()),
		run.Results.Histogram(s.label+"_throughput_bits", 8*float64(s.size)/done.took.Seconds()),
		run.Results.Histogram(s.label+"_steady_bits", done.Steady))
}

// meet waits until all are there, and tells who they are.
func meet(ctx context.Context, run *sdk.Run, self member) ([]member, error) {
	if _, err := members.Publish(ctx, run, self); err != nil {
		return nil, err
	}
	all, err := members.Collect(ctx, run, run.Instances)
	if err != nil {
		return nil, err
	}
	_, err = run.SignalAndWait(ctx, "ready", run.Instances)
	return all, err
}
