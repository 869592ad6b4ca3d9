//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/links"
)

// Shaping is what the packets of the data network are done to. An error that is a *Refusal says what can never be done;
// every other one is the ground's fault. The methods are called from many goroutines at once, and return when what they
// ask for is in force.
type Shaping interface {
	// Seat says who sits where: all groups of the pipeline in order, whose instances follow each other from slot 0 on.
	// It is called after each placement; which slots are there is the fabric's to know.
	Seat(ctx context.Context, groups []pipelines.Group) error
	// SetStage replaces the state that the network stages ask for.
	SetStage(ctx context.Context, state pipelines.Network) error
	// Begin lays an event's change over everything before it, and End takes it away. One that isn't there has been taken
	// away already: that is no error.
	Begin(ctx context.Context, event links.Event) error
	End(ctx context.Context, name string) error
	// Configure replaces what an instance's plan asks for, and Restore takes away all that those of slots have asked for.
	Configure(ctx context.Context, slot int, config Config) error
	Restore(ctx context.Context, slots []int) error
	// Prove probes pairs, drawn by the seed, and compares with what is asked of them. It calls report as it goes on.
	Prove(ctx context.Context, verify pipelines.Verify, seed uint64, report func(done, total int)) (control.Proof, error)
	// Overload is one sentence about what the shaping could not keep up with since the last ResetOverload; "" when it
	// could.
	Overload() string
	ResetOverload()
}

// Mover is what a Shaping can do besides where a run is spread over several nodes.
type Mover interface {
	// Move says that an instance on another node has another address now, and returns once packets for it find their way
	// there. The zero value takes that back. It converges.
	Move(ctx context.Context, slot int, address netip.Prefix) error
}

// Holder is what a Shaping can do besides that finds in force what another sidecar has left there.
type Holder interface {
	// Hold leaves all as it is until Resume, whatever is asked for meanwhile; Resume puts that in force.
	Hold()
	Resume(ctx context.Context) error
}

// Config is what an instance's plan asks for its own data network.
type Config struct {
	Plan links.Plan
	// Address is the one that it is to have from now on.
	Address netip.Prefix
	// Enabled says whether it is on the data network.
	Enabled bool
}

// Refusal is an error that says in one sentence what can never be done.
type Refusal struct{ Sentence string }

func (r *Refusal) Error() string { return r.Sentence }

// setting is one call that sets the data network.
type setting struct {
	key  string
	done chan struct{}
	// Set before done is closed.
	reply control.NetworkReply
	err   error
}

// answers says whether the call answers for another one with that key: it was asked the same, and has not failed.
func (s *setting) answers(key string) bool {
	if s == nil || key == "" || s.key != key {
		return false
	}
	select {
	case <-s.done:
		return s.err == nil
	default:
		return true
	}
}

// Network sets a state of the data network and proves it. Asked with the same key once more, by a worker that took over
// from another, it gives the answer of the first call, which went on without its caller.
func (k *Keeper) Network(ctx context.Context, ask control.Network) (control.NetworkReply, error) {
	k.mu.Lock()
	if k.closing {
		k.mu.Unlock()
		return control.NetworkReply{}, control.Refuse(http.StatusConflict, "the run has been released")
	}
	s := k.setting
	if !s.answers(ask.Key) {
		before := s
		s = &setting{key: ask.Key, done: make(chan struct{})}
		k.setting = s
		k.work.Go(func() {
			if before != nil {
				<-before.done
			}
			s.reply, s.err = k.setNetwork(k.ctx, ask)
			close(s.done)
		})
	}
	k.mu.Unlock()
	select {
	case <-s.done:
		return s.reply, s.err
	case <-ctx.Done():
		return control.NetworkReply{}, ctx.Err()
	}
}

func (k *Keeper) setNetwork(ctx context.Context, ask control.Network) (control.NetworkReply, error) {
	err := k.shaping.SetStage(ctx, ask.State)
	if refused := new(Refusal); errors.As(err, &refused) {
		return control.NetworkReply{Refused: refused.Sentence}, nil
	}
	if err != nil {
		return control.NetworkReply{}, fmt.Errorf("setting the data network: %w", err)
	}
	if err := k.keepNetwork(ask, nil); err != nil {
		return control.NetworkReply{}, err
	}
	if k.leads() {
		k.tell("network-set", ask.Stage, "the data network is as stage "+ask.Stage+" asks for it")
	}
	reply, err := k.prove(ctx, ask)
	if err != nil {
		return control.NetworkReply{}, err
	}
	return reply, k.keepNetwork(ask, &reply)
}

// prove proves the data network, where that is asked for.
func (k *Keeper) prove(ctx context.Context, ask control.Network) (control.NetworkReply, error) {
	if ask.State.Verify.Off || ask.State.Verify.Pairs == 0 {
		return control.NetworkReply{}, nil
	}
	proof, err := k.shaping.Prove(ctx, ask.State.Verify, ask.Seed, k.probing.set)
	k.probing.set(0, 0)
	if err != nil {
		return control.NetworkReply{}, fmt.Errorf("proving the data network: %w", err)
	}
	if err := runs.WriteJSON(k.folder.Proof(ask.Stage), proof); err != nil {
		return control.NetworkReply{}, fmt.Errorf("keeping the proof of the data network: %w", err)
	}
	reply := inBrief(proof)
	if k.leads() {
		k.tell("network-proved", ask.Stage, fmt.Sprintf("%d pairs of the data network probed, %d outside the tolerance", reply.Pairs, reply.Faults))
	}
	return reply, nil
}
