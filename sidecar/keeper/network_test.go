//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

func proved(key string) control.Network {
	return control.Network{Key: key, Stage: "wan", Seed: 7, State: pipelines.Network{
		Access: pipelines.AccessNone, Verify: pipelines.Verify{Pairs: 50, Tolerance: 0.1},
	}}
}

func TestNetworkIsSetAndProved(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 2, ""))
	for i := range 30 {
		pair := control.Pair{From: "g/0", To: fmt.Sprintf("g/%d", i), OK: i%10 != 9}
		if !pair.OK {
			pair.Fault = "latency 62ms instead of 50ms"
		}
		b.shaping.pairs = append(b.shaping.pairs, pair)
	}
	reply, err := b.Network(t.Context(), proved("wan-1"))
	if err != nil || reply.Refused != "" || reply.Pairs != 30 || reply.Faults != 3 || len(reply.Proof.Pairs) != control.MostPairs {
		t.Fatalf("%+v, %v", reply, err)
	}
	if reply.Proof.Pairs[0].To != "g/9" || reply.Proof.Pairs[2].To != "g/29" || !reply.Proof.Pairs[3].OK {
		t.Errorf("%+v", reply.Proof.Pairs)
	}
	var kept control.Proof
	if err := runs.ReadJSON(b.folder.Proof("wan"), &kept); err != nil || len(kept.Pairs) != 30 || kept.Seed != 7 || kept.Tolerance != 0.1 || kept.Pairs[9].Fault == "" {
		t.Errorf("%+v, %v", kept, err)
	}
	if b.shaping.stage.Access != pipelines.AccessNone || len(b.shaping.seated) != 1 || b.shaping.seated[0].Instances != 2 {
		t.Errorf("%+v", b.shaping)
	}
	if status, err := b.Status(t.Context()); err != nil || status.ToProbe != 0 {
		t.Errorf("%+v, %v", status, err)
	}
}

func TestNetworkWithoutProof(t *testing.T) {
	b := newBench(t)
	ask := proved("wan-1")
	ask.State.Verify.Off = true
	if reply, err := b.Network(t.Context(), ask); err != nil || reply.Proof != nil || len(b.shaping.called("Prove")) > 0 {
		t.Errorf("%+v, %v", reply, err)
	}
}

func TestNetworkThatCannotBe(t *testing.T) {
	b := newBench(t)
	b.shaping.fail["SetStage"] = fmt.Errorf("laying it: %w", &Refusal{"there is no way to the internet"})
	if reply, err := b.Network(t.Context(), proved("wan-1")); err != nil || reply.Refused != "there is no way to the internet" {
		t.Errorf("%+v, %v", reply, err)
	}
	b.shaping.fail = map[string]error{"SetStage": errors.New("no netlink")}
	if _, err := b.Network(t.Context(), proved("wan-2")); err == nil || err.Error() != "setting the data network: no netlink" {
		t.Error(err)
	}
	b.shaping.fail = map[string]error{"Prove": errors.New("no socket")}
	if _, err := b.Network(t.Context(), proved("wan-2")); err == nil || err.Error() != "proving the data network: no socket" {
		t.Error(err)
	}
	b.shaping.fail = nil
	if reply, err := b.Network(t.Context(), proved("wan-2")); err != nil || reply.Proof == nil { // what failed is asked anew
		t.Errorf("%+v, %v", reply, err)
	}
	b.shaping.fail = map[string]error{"Seat": &Refusal{"too many"}}
	var refused *control.Error
	if _, err := b.Place(t.Context(), placement(shell("g", 2, ""))); !errors.As(err, &refused) || refused.Status != 400 || refused.Message != "too many" {
		t.Error(err)
	}
}

// TestNetworkAskedAgain has a worker go and another ask again: the network is set and proved once.
func TestNetworkAskedAgain(t *testing.T) {
	b := newBench(t)
	b.shaping.hold = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := b.Network(ctx, proved("wan-1"))
		first <- err
	}()
	for len(b.shaping.called("SetStage")) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var work sync.WaitGroup
	for range 3 {
		work.Go(func() {
			if reply, err := b.Network(t.Context(), proved("wan-1")); err != nil || reply.Proof == nil {
				t.Errorf("%+v, %v", reply, err)
			}
		})
	}
	close(b.shaping.hold)
	work.Wait()
	if n := len(b.shaping.called("SetStage")); n != 1 {
		t.Errorf("set %d times", n)
	}
	if _, err := b.Network(t.Context(), proved("wan-2")); err != nil {
		t.Error(err)
	}
	if n := len(b.shaping.called("Prove")); n != 2 {
		t.Errorf("proved %d times", n)
	}
}
