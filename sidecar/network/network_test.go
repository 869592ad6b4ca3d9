package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/shaper"
)

// rig is a network over a fabric that only keeps books.
type rig struct {
	*Network
	mu     sync.Mutex
	moves  []string
	broken map[int]error // by slot: what the fabric says
	absent map[int]bool
	// gate is waited for by every state that is put in force; fault is what that comes to.
	gate    chan struct{}
	fault   atomic.Pointer[error]
	applied []*links.State
	health  shaper.Health
}

func (r *rig) Subnet() netip.Prefix  { return netip.MustParsePrefix("10.0.0.0/16") }
func (r *rig) Subnet6() netip.Prefix { return netip.MustParsePrefix("fd67:7264:706c::/96") }
func (r *rig) Present(slot int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.absent[slot]
}
func (r *rig) Addresses(slot int) (control, data netip.Addr) {
	return netip.AddrFrom4([4]byte{100, 96, byte(slot / 200), byte(slot%200 + 2)}), netip.AddrFrom4([4]byte{10, 0, byte(slot / 200), byte(slot%200 + 2)})
}
func (r *rig) Address6(slot int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd67:7264:706c::a00:%x", slot/200<<8+slot%200+2))
}
func (r *rig) SetEnabled(slot int, enabled bool) error {
	return r.note(slot, fmt.Sprintf("%d enabled %v", slot, enabled))
}
func (r *rig) SetDataAddress(slot int, address netip.Prefix) error {
	return r.note(slot, fmt.Sprintf("%d has %s", slot, address))
}
func (r *rig) note(slot int, what string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.broken[slot]; err != nil {
		return err
	}
	r.moves = append(r.moves, what)
	return nil
}
func (r *rig) moved() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	moves := r.moves
	r.moves = nil
	return moves
}
func (r *rig) Name() string          { return "a fake" }
func (r *rig) Health() shaper.Health { r.mu.Lock(); defer r.mu.Unlock(); return r.health }
func (r *rig) Close() error          { return nil }
func (r *rig) Apply(ctx context.Context, state *links.State) error {
	if r.gate != nil {
		select {
		case <-r.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fault := r.fault.Load(); fault != nil {
		return *fault
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applied = append(r.applied, state)
	return nil
}
func (r *rig) times() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.applied) }

// newRig has groups a and b, of that many instances each.
func newRig(t testing.TB, each int, set ...func(*rig)) *rig {
	r := &rig{broken: map[int]error{}, absent: map[int]bool{}}
	for _, s := range set {
		s(r)
	}
	r.Network = &Network{fabric: r, shapers: []shaper.Shaper{r}}
	r.steps = []step{r.Apply}
	r.start()
	t.Cleanup(func() {
		if err := r.Network.Close(); err != nil {
			t.Error(err)
		}
	})
	if each > 0 && r.gate == nil {
		if err := r.Seat(context.Background(), groups(each)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func groups(each int) []pipelines.Group {
	return []pipelines.Group{{Name: "a", Instances: each}, {Name: "b", Instances: each}}
}

func latency(d time.Duration) pipelines.Shape {
	value := pipelines.Duration(d)
	return pipelines.Shape{Latency: &value}
}

func between(from, to string, s pipelines.Shape) pipelines.Network {
	return pipelines.Network{Links: []pipelines.Link{{From: from, To: to, Shape: s}}}
}

// latency is what is asked between two slots now.
func (r *rig) latency(from, to int) time.Duration {
	_, address := r.Addresses(to)
	return r.State().Path(from, address).Latency
}

func TestLayersComeAndGo(t *testing.T) {
	r, ctx := newRig(t, 2), t.Context()
	expect := func(what string, want time.Duration) {
		t.Helper()
		if got := r.latency(0, 2); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect("at first", 0)
	do(r.SetStage(ctx, between("a", "b", latency(10*time.Millisecond))))
	expect("stage", 10*time.Millisecond)
	do(r.Configure(ctx, 0, Config{Plan: links.Plan{Default: links.Shape{Shape: latency(20 * time.Millisecond)}}, Enabled: true}))
	expect("plan", 20*time.Millisecond)
	do(r.Begin(ctx, links.Event{Name: "slow", Network: between("a", "b", latency(30*time.Millisecond))}))
	do(r.Begin(ctx, links.Event{Name: "slower", Network: between("a", "b", latency(40*time.Millisecond))}))
	expect("two events", 40*time.Millisecond)
	do(r.Begin(ctx, links.Event{Name: "slow", Network: between("a", "b", latency(50*time.Millisecond))}))
	expect("an event that begins anew", 50*time.Millisecond)
	do(r.End(ctx, "slow"))
	expect("one event less", 40*time.Millisecond)
	do(r.End(ctx, "slower"))
	expect("no event", 20*time.Millisecond)
	do(r.SetStage(ctx, pipelines.Network{}))
	expect("another stage", 20*time.Millisecond)
	do(r.Restore(ctx, []int{0, 1, 2, 3}))
	expect("restored", 0)
	before := r.times()
	do(r.Restore(ctx, []int{0, 1, 2, 3}))
	do(r.End(ctx, "slow"))
	if r.times() != before {
		t.Error("nothing was asked for, and it was put in force")
	}
}

func TestSeats(t *testing.T) {
	r, ctx := newRig(t, 2, func(r *rig) { r.absent[1] = true }), t.Context()
	if got := r.State().Seats().Instances; len(got) != 3 || got[1].Slot != 2 || got[1].Group != "b" {
		t.Errorf("seats: %+v", got)
	}
	r.mu.Lock()
	clear(r.absent)
	r.mu.Unlock()
	if err := r.Seat(ctx, groups(2)); err != nil {
		t.Fatal(err)
	}
	if got := r.State().Seats().Instances; len(got) != 4 {
		t.Errorf("seats: %+v", got)
	}
	for _, step := range []struct {
		config Config
		moves  []string
	}{
		{Config{Address: netip.MustParsePrefix("10.0.7.9/8"), Enabled: true}, []string{"0 has 10.0.7.9/16"}},
		{Config{Address: netip.MustParsePrefix("10.0.7.9/16"), Enabled: false}, []string{"0 enabled false"}},
		{Config{Address: netip.MustParsePrefix("10.0.0.2/16"), Enabled: true}, []string{"0 has 10.0.0.2/16", "0 enabled true"}},
		{Config{Enabled: true}, nil},
	} {
		if err := r.Configure(ctx, 0, step.config); err != nil {
			t.Fatal(err)
		}
		if moves := r.moved(); !slices.Equal(moves, step.moves) {
			t.Errorf("%+v: %q, want %q", step.config, moves, step.moves)
		}
		want := step.config.Address.Addr()
		if !want.IsValid() {
			_, want = r.Addresses(0)
		}
		if got, ok := r.State().Slot(want); !ok || got != 0 {
			t.Errorf("%s belongs to %d, %v", want, got, ok)
		}
	}
}

func TestRefusals(t *testing.T) {
	r, ctx := newRig(t, 2), t.Context()
	bad := pipelines.Shape{Policy: "maybe"}
	for says, err := range map[string]error{
		"outside the data network 10.0.0.0/16": r.Configure(ctx, 0, Config{Address: netip.MustParsePrefix("11.0.0.9/16"), Enabled: true}),
		"10.0.0.0/16 itself":                   r.Configure(ctx, 0, Config{Address: netip.MustParsePrefix("10.0.0.0/16"), Enabled: true}),
		"`maybe` is none of":                   r.Configure(ctx, 0, Config{Plan: links.Plan{Default: links.Shape{Shape: bad}}, Enabled: true}),
		"no such group":                        r.SetStage(ctx, between("a", "c", latency(1))),
		"the event split asks for access":      r.Begin(ctx, links.Event{Name: "split", Network: pipelines.Network{Access: pipelines.AccessInternet}}),
		"cut off from everything else":         r.SetStage(ctx, pipelines.Network{Access: pipelines.AccessInternet}),
	} {
		var refused *Refusal
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want a refusal with %q", err, says)
		}
	}
	// Nothing of it stays.
	if err := r.SetStage(ctx, between("a", "b", latency(time.Second))); err != nil {
		t.Error(err)
	}
}

// A machine that can't shape still carries runs whose network is left as it is.
func TestNothingCanBeShaped(t *testing.T) {
	r, ctx := newRig(t, 0), t.Context()
	r.unable = errors.New("no packet filter")
	if err := r.Seat(ctx, groups(2)); err != nil {
		t.Fatal(err)
	}
	accept := between("a", "b", pipelines.Shape{Policy: "accept"})
	if err := errors.Join(r.SetStage(ctx, accept), r.Configure(ctx, 0, Config{Enabled: false})); err != nil {
		t.Error(err)
	}
	for name, state := range map[string]pipelines.Network{
		"latency": between("a", "b", latency(1)), "policy": between("a", "b", pipelines.Shape{Policy: "drop"}),
		"inbound": {Inbound: []pipelines.Block{{Groups: []string{"a"}, Policy: "drop"}}},
		"NAT":     {NAT: []pipelines.NAT{{Groups: []string{"a"}, Type: "symmetric"}}},
	} {
		var refused *Refusal
		if err := r.SetStage(ctx, state); !errors.As(err, &refused) || !strings.Contains(err.Error(), "no packet filter") {
			t.Errorf("%s: %v, want a refusal with the reason", name, err)
		}
	}
}

func TestRefusalsBeforeAnybodyIsSeated(t *testing.T) {
	r, ctx := newRig(t, 0), t.Context()
	if err := r.SetStage(ctx, pipelines.Network{Access: pipelines.AccessInternet}); err == nil {
		t.Error("access to the internet is not refused")
	}
	if err := r.SetStage(ctx, between("a", "b", latency(time.Second))); err != nil || r.State() != nil {
		t.Errorf("%v, %v", err, r.State())
	}
	if err := r.Seat(ctx, groups(1)); err != nil || r.latency(0, 1) != time.Second {
		t.Errorf("%v", err)
	}
}

// A thousand plans configure their networks in the same moment; some ask for what can't be.
func TestChangesArePutInForceTogether(t *testing.T) {
	const n = 1000
	r, ctx := newRig(t, n/2), t.Context()
	r.fabricBroken(7, errors.New("the fabric is torn"))
	before := r.times()
	var work sync.WaitGroup
	errs := make([]error, n)
	for slot := range n {
		c := Config{Plan: links.Plan{Default: links.Shape{Shape: latency(time.Duration(slot+1) * time.Millisecond)}}, Enabled: slot != 7}
		if slot%400 == 3 {
			c.Plan.Default.Policy = "maybe"
		}
		work.Go(func() { errs[slot] = r.Configure(ctx, slot, c) })
	}
	work.Wait()
	for slot, err := range errs {
		var refused *Refusal
		switch {
		case slot%400 == 3:
			if !errors.As(err, &refused) {
				t.Errorf("slot %d: %v, want a refusal", slot, err)
			}
		case slot == 7:
			if err == nil || !strings.Contains(err.Error(), "torn") {
				t.Errorf("slot %d: %v, want what the fabric said", slot, err)
			}
		case err != nil:
			t.Errorf("slot %d: %v", slot, err)
		case r.latency(slot, (slot+1)%n) != time.Duration(slot+1)*time.Millisecond:
			t.Errorf("slot %d has %v", slot, r.latency(slot, (slot+1)%n))
		}
	}
	if times := r.times() - before; times > 50 {
		t.Errorf("%d times something was put in force for %d changes", times, n)
	} else {
		t.Logf("put in force %d times", times)
	}
}

func (r *rig) fabricBroken(slot int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken[slot] = err
}

// What could not be put in force is tried again with the next change, whatever that is.
func TestFailureIsToldAndTriedAgain(t *testing.T) {
	r, ctx := newRig(t, 1), t.Context()
	fault := errors.New("the kernel is out of rules")
	r.fault.Store(&fault)
	if err := r.SetStage(ctx, between("a", "b", latency(time.Second))); !errors.Is(err, fault) {
		t.Errorf("%v, want %v", err, fault)
	}
	if r.latency(0, 1) != 0 {
		t.Error("what failed is shown as in force")
	}
	r.fault.Store(nil)
	if err := r.Restore(ctx, []int{0}); err != nil || r.latency(0, 1) != time.Second {
		t.Errorf("%v, %v", err, r.latency(0, 1))
	}
}

func TestWaitingEndsWithTheContextAndTheNetwork(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := newRig(t, 1, func(r *rig) { r.gate = make(chan struct{}) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Seat(ctx, groups(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the end of the context", err)
	}
	r.gate <- struct{}{} // it is put in force all the same
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- r.SetStage(t.Context(), between("a", "b", latency(1))) }()
	go func() { second <- r.SetStage(t.Context(), between("a", "b", latency(2))) }()
	time.Sleep(20 * time.Millisecond)
	for range 2 {
		if err := r.Network.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, answer := range []chan error{first, second} {
		if err := <-answer; !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want that it is closed", err)
		}
	}
	if err := r.SetStage(t.Context(), pipelines.Network{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want that it is closed", err)
	}
}

func TestOverload(t *testing.T) {
	r := newRig(t, 1)
	set := func(h shaper.Health) { r.mu.Lock(); defer r.mu.Unlock(); r.health = h }
	for _, c := range []struct {
		health shaper.Health
		says   string
	}{
		{shaper.Health{Packets: 10_000, Late: 100}, ""},
		{shaper.Health{Packets: 10_000, Late: 101}, "of 10000 packets 101 left more than 5ms behind"},
		{shaper.Health{Packets: 100, Late: 25}, ""},
		{shaper.Health{Packets: 999, Lost: 1}, "of 1000 packets 1 were lost"},
		{shaper.Health{}, ""},
	} {
		set(shaper.Health{Packets: 7, Lost: 7, Late: 7})
		r.ResetOverload()
		set(shaper.Health{Packets: 7 + c.health.Packets, Lost: 7 + c.health.Lost, Late: 7 + c.health.Late})
		if said := r.Overload(); (said == "") != (c.says == "") || !strings.Contains(said, c.says) {
			t.Errorf("%+v: %q, want something with %q", c.health, said, c.says)
		}
	}
}

func BenchmarkPlansOfThousand(b *testing.B) {
	r, ctx := newRig(b, 500), b.Context()
	for i := 0; b.Loop(); i++ {
		var work sync.WaitGroup
		for slot := range 1000 {
			c := Config{Plan: links.Plan{Default: links.Shape{Shape: latency(time.Duration(slot+i) * time.Millisecond)}}, Enabled: true}
			work.Go(func() {
				if err := r.Configure(ctx, slot, c); err != nil {
					b.Error(err)
				}
			})
		}
		work.Wait()
	}
}
