package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/prober"
	"github.com/groundplan/groundplan/sidecar/shaper/netem"
)

// tryVariable turns a copy of this program into the one that tries.
const tryVariable = "GROUNDPLAN_NETWORK_TRY"

// What can be done is only known once it was done, and in namespaces like those of a run. So Try starts a copy of this
// very program, which must not get as far as main.
func init() {
	if os.Getenv(tryVariable) == "" {
		return
	}
	trial, err := try()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(trial)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Try shapes a small network and measures it, in namespaces that are gone afterwards. The error says that there can't
// be any network, shaped or not.
func Try(ctx context.Context) (Trial, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return Trial{}, fmt.Errorf("trying a data network: %w", err)
	}
	defer read.Close()
	p, err := launch.Start(launch.Options{Executable: "/proc/self/exe", Env: append(os.Environ(), tryVariable+"=1"), Log: write})
	write.Close()
	if err != nil {
		return Trial{}, fmt.Errorf("trying a data network: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = p.Kill() })()
	said, err := io.ReadAll(io.LimitReader(read, 64<<10))
	state, failed := p.Wait()
	if err := errors.Join(err, failed, ctx.Err()); err != nil {
		return Trial{}, fmt.Errorf("trying a data network: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	last := lines[len(lines)-1]
	var trial Trial
	if !state.Success() || json.Unmarshal([]byte(last), &trial) != nil {
		return Trial{}, fmt.Errorf("trying a data network: %s", last)
	}
	return trial, nil
}

// try is what the copy does.
func try() (Trial, error) {
	if err := launch.Prepare(); err != nil {
		return Trial{}, err
	}
	f, err := fabric.New(fabric.Options{})
	if err != nil {
		return Trial{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := errors.Join(f.Add(ctx, []fabric.Spec{{Slot: 0, Hostname: "a"}, {Slot: 1, Hostname: "b"}})...); err != nil {
		return Trial{}, err
	}
	trial := Trial{Netem: because(netem.Supported()), Asked: 20 * time.Millisecond}
	trial.Achieved, err = shape(ctx, f, trial.Asked)
	trial.UserSpace = because(err)
	return trial, nil
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// shape gives the link from slot 0 to slot 1 a latency, has what comes back rejected, and returns the latency found.
func shape(ctx context.Context, f *fabric.Fabric, asked time.Duration) (time.Duration, error) {
	n, err := New(f, Options{Shaper: UserSpace})
	if err != nil {
		return 0, err
	}
	defer n.Close()
	latency := pipelines.Duration(asked)
	state := pipelines.Network{
		Links:   []pipelines.Link{{From: "a", To: "b", Shape: pipelines.Shape{Latency: &latency}}, {From: "b", To: "a", Shape: pipelines.Shape{Policy: "reject"}}},
		Inbound: []pipelines.Block{{Groups: []string{"a"}, Policy: "drop"}},
	}
	if err := n.Seat(ctx, []pipelines.Group{{Name: "a", Instances: 1}, {Name: "b", Instances: 1}}); err != nil {
		return 0, err
	}
	if err := n.SetStage(ctx, state); err != nil {
		return 0, err
	}
	var ends [2]*prober.Endpoint
	for slot := range ends {
		_, data := f.Addresses(slot)
		if ends[slot], err = prober.Open(func(work func() error) error { return f.Inside(slot, work) }, data); err != nil {
			return 0, err
		}
		defer ends[slot].Close()
	}
	series, err := prober.Measure(ctx, ends[0], ends[1], prober.SeriesOptions{Packets: 20, Interval: 5 * time.Millisecond, Patience: time.Second})
	if err != nil {
		return 0, err
	}
	if series.Received == 0 {
		return 0, fmt.Errorf("of %d packets that were to be delayed none came through", series.Sent)
	}
	back, err := prober.Knock(ctx, ends[1], ends[0], time.Second)
	if err == nil && back.UDP != links.Reject {
		err = errors.New("packets that were to be rejected were not")
	}
	return series.Quantile(0.5), err
}
