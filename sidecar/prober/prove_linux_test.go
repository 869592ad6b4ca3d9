package prober

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/links"
)

// seated are instances in groups of that size, in the rig's addresses.
func seated(size int, names ...string) links.Seats {
	seats := links.Seats{Subnet: netip.MustParsePrefix("10.0.0.0/16"), Subnet6: netip.MustParsePrefix("fd67:7264:706c::/96")}
	var r rig
	for g, name := range names {
		seats.Groups = append(seats.Groups, pipelines.Group{Name: name, Instances: size})
		for i := range size {
			slot := g*size + i
			seats.Instances = append(seats.Instances, links.Instance{Slot: slot, Group: name, Data: r.address(slot), Data6: r.address6(slot)})
		}
	}
	return seats
}

func state(t testing.TB, seats links.Seats, network pipelines.Network) *links.State {
	t.Helper()
	network.Access = pipelines.AccessNone
	s, err := links.New(seats, links.Layers{Stage: network})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ptr[T any](v T) *T { return &v }

func latency(d time.Duration) pipelines.Shape {
	return pipelines.Shape{Latency: ptr(pipelines.Duration(d))}
}

// shaping is a wire that does what a state asks for: what the prober is held against.
func shaping(state *links.State) wire {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 2))
	free := make(map[bucket]time.Time)
	return func(from, to int, packet []byte) []fate {
		mu.Lock()
		defer mu.Unlock()
		p := state.Path(from, destination(packet))
		if p.Policy != links.Accept || random.Float64() < p.Loss {
			return nil
		}
		f := fate{after: p.Latency + time.Duration((2*random.Float64()-1)*float64(p.Jitter)), packet: packet}
		if p.Bandwidth > 0 {
			b, now := bucket{from, p.Bucket}, time.Now()
			if free[b].Before(now) {
				free[b] = now
			}
			free[b] = free[b].Add(serialization(p, len(packet)))
			f.after += free[b].Sub(now)
		}
		if random.Float64() < p.Corrupt {
			f.packet = slices.Clone(packet)
			f.packet[20+random.IntN(len(packet)-20)] ^= 1
		}
		if random.Float64() < p.Reorder {
			f.after = 0
		}
		if random.Float64() < p.Duplicate {
			return []fate{f, f}
		}
		return []fate{f}
	}
}

func destination(packet []byte) netip.Addr {
	if packet[0]>>4 == 6 {
		return netip.AddrFrom16([16]byte(packet[24:40]))
	}
	return netip.AddrFrom4([4]byte(packet[16:20]))
}

func proved(t *testing.T, r *rig, asked *links.State, pairs int) control.Proof {
	t.Helper()
	var reports []int
	proof, err := Prove(t.Context(), Options{
		State: asked, Inside: r.inside, Verify: pipelines.Verify{Pairs: pairs, Tolerance: 0.1}, Seed: 11,
		Report: func(done, total int) { reports = append(reports, done, total) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(proof.Pairs); n > 0 && (len(reports) < 2 || reports[len(reports)-1] != n || reports[len(reports)-2] != n) {
		t.Errorf("reported %v of %d pairs", reports, n)
	}
	t.Logf("%d pairs in %v", len(proof.Pairs), proof.Ended.Sub(proof.Started).Round(time.Millisecond))
	return proof
}

// everything is a network with all kinds of shapes.
func everything() pipelines.Network {
	share := func(v pipelines.Share) *pipelines.Share { return &v }
	return pipelines.Network{
		Default: latency(5 * time.Millisecond),
		Links: []pipelines.Link{
			{From: "eu", To: "us", Shape: latency(40 * time.Millisecond)},
			{From: "us", To: "eu", Shape: pipelines.Shape{Latency: ptr(pipelines.Duration(30 * time.Millisecond)), Jitter: ptr(pipelines.Duration(8 * time.Millisecond)), Distribution: "uniform"}},
			{From: "eu", To: "ap", Shape: pipelines.Shape{Loss: share(0.05), Duplicate: share(0.1)}},
			{From: "ap", To: "eu", Shape: pipelines.Shape{Corrupt: share(0.1), Latency: ptr(pipelines.Duration(20 * time.Millisecond)), Reorder: share(0.2)}},
			{From: "us", To: "ap", Shape: pipelines.Shape{Bandwidth: ptr(pipelines.Bandwidth(5e6))}},
			{From: "ap", To: "us", Shape: pipelines.Shape{Policy: "drop"}},
		},
	}
}

func TestWhatIsRightIsProved(t *testing.T) {
	leakless(t)
	r := newRig(t, 6)
	asked := state(t, seated(2, "eu", "us", "ap"), everything())
	r.set(shaping(asked))
	proof := proved(t, r, asked, 50)
	if len(proof.Pairs) != 30 {
		t.Errorf("%d pairs of 6 instances were probed, want all 30", len(proof.Pairs))
	}
	six := 0
	for _, p := range proof.Pairs {
		if !p.OK || p.Fault != "" {
			t.Errorf("%s → %s: %s", p.From, p.To, p.Fault)
		}
		if strings.Contains(p.Note, "IPv6") {
			six++
		}
	}
	if six == 0 {
		t.Error("nothing was probed over IPv6")
	}
}

// Each row asks for something and gets something else: the pair is named, with both figures.
func TestWhatIsWrongIsFound(t *testing.T) {
	share := func(v pipelines.Share) *pipelines.Share { return &v }
	one := func(s pipelines.Shape) pipelines.Network {
		return pipelines.Network{Links: []pipelines.Link{{From: "eu", To: "us", Shape: s}}}
	}
	for _, c := range []struct {
		name     string
		asked    pipelines.Network
		got      pipelines.Network
		says     string
		achieved func(control.Figures) bool
	}{
		{"longer", one(latency(50 * time.Millisecond)), one(latency(62 * time.Millisecond)), "latency 6", func(f control.Figures) bool { return f.Latency > pipelines.Duration(60*time.Millisecond) }},
		{"shorter", one(latency(50 * time.Millisecond)), one(latency(40 * time.Millisecond)), "instead of 50ms (tolerance 10%)", nil},
		{"delayed unasked", pipelines.Network{}, one(latency(10 * time.Millisecond)), "instead of 0s", nil},
		{"lossy unasked", pipelines.Network{}, one(pipelines.Shape{Loss: share(0.05)}), "loss ", nil},
		{"too lossy", one(pipelines.Shape{Loss: share(0.05)}), one(pipelines.Shape{Loss: share(0.2)}), "instead of 5% (", nil},
		{"not lossy", one(pipelines.Shape{Loss: share(0.05)}), pipelines.Network{}, "loss 0% instead of 5%", nil},
		{"cut", one(latency(time.Millisecond)), one(pipelines.Shape{Policy: "drop"}), "not one of", nil},
		{"not cut", one(pipelines.Shape{Policy: "drop"}), pipelines.Network{}, "policy for UDP is accept instead of drop", func(f control.Figures) bool { return f.Policy == "accept" }},
		{"dropped, not refused", one(pipelines.Shape{Policy: "reject"}), one(pipelines.Shape{Policy: "drop"}), "policy for TCP is drop instead of reject", nil},
		{"duplicates", pipelines.Network{}, one(pipelines.Shape{Duplicate: share(0.1)}), "duplicate ", nil},
		{"corrupt", pipelines.Network{}, one(pipelines.Shape{Corrupt: share(0.2)}), "corrupt ", nil},
		{"not corrupt", one(pipelines.Shape{Corrupt: share(0.1)}), pipelines.Network{}, "corrupt 0% instead of 10%", nil},
		{"in order", one(pipelines.Shape{Latency: ptr(pipelines.Duration(20 * time.Millisecond)), Reorder: share(0.25)}), one(latency(20 * time.Millisecond)), "reorder 0% instead of 25%", nil},
		{"unlimited", one(pipelines.Shape{Bandwidth: ptr(pipelines.Bandwidth(2e6))}), pipelines.Network{}, "bandwidth 2.", nil},
		{"too slow", one(pipelines.Shape{Bandwidth: ptr(pipelines.Bandwidth(2e6))}), one(pipelines.Shape{Bandwidth: ptr(pipelines.Bandwidth(1e6))}), "instead of 2Mbit", nil},
		{"steady", one(pipelines.Shape{Latency: ptr(pipelines.Duration(30 * time.Millisecond)), Jitter: ptr(pipelines.Duration(10 * time.Millisecond))}), one(latency(30 * time.Millisecond)), "jitter ", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			seats := seated(1, "eu", "us")
			r := newRig(t, 2)
			asked := state(t, seats, c.asked)
			r.set(shaping(state(t, seats, c.got)))
			for _, p := range proved(t, r, asked, 2).Pairs {
				switch {
				case p.From == "us/0" && !p.OK:
					t.Errorf("the way back is wrong: %s", p.Fault)
				case p.From == "eu/0" && p.OK:
					t.Errorf("not found: asked for %+v, achieved %+v", p.Asked, p.Achieved)
				case p.From == "eu/0" && !strings.Contains(p.Fault, c.says):
					t.Errorf("found %q, want something with %q", p.Fault, c.says)
				case p.From == "eu/0" && c.achieved != nil && !c.achieved(p.Achieved):
					t.Errorf("achieved %+v", p.Achieved)
				}
			}
		})
	}
}

func TestAPairThatCannotBeProbedIsNamed(t *testing.T) {
	r := newRig(t, 2)
	seats := seated(1, "eu", "us")
	seats.Instances[1].Data = netip.MustParseAddr("10.0.9.9") // nobody has it
	proof := proved(t, r, state(t, seats, pipelines.Network{}), 2)
	for _, p := range proof.Pairs {
		if p.OK || !strings.Contains(p.Fault, "can't be probed") || !strings.Contains(p.Fault, "10.0.9.9") {
			t.Errorf("%s → %s: %v, %q", p.From, p.To, p.OK, p.Fault)
		}
	}
}

func TestAProofEndsWithItsContext(t *testing.T) {
	leakless(t)
	r := newRig(t, 4)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Prove(ctx, Options{State: state(t, seated(2, "eu", "us"), everythingBetweenTwo()), Inside: r.inside, Verify: pipelines.Verify{Pairs: 12, Tolerance: 0.1}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func everythingBetweenTwo() pipelines.Network {
	n := everything()
	n.Links = n.Links[:2]
	return n
}

func TestNothingToProve(t *testing.T) {
	r := newRig(t, 1)
	if proof := proved(t, r, state(t, seated(1, "eu"), pipelines.Network{}), 50); len(proof.Pairs) != 0 {
		t.Errorf("%+v", proof.Pairs)
	}
}

func TestSamplesCoverEveryDirectionFirst(t *testing.T) {
	seats := seated(10, "a", "b", "c", "d")
	asked := state(t, seats, pipelines.Network{Links: []pipelines.Link{{From: "a", To: "b", Shape: latency(time.Millisecond)}}})
	direction := func(p pair) string { return p.from.Group + p.to.Group }
	pairs := sample(asked, 50, 3)
	seen := make(map[string]bool)
	for _, p := range pairs[:16] {
		if seen[direction(p)] || !p.first {
			t.Errorf("%s comes again, or isn't first, before all others were there", direction(p))
		}
		seen[direction(p)] = true
	}
	if direction(pairs[0]) != "ab" {
		t.Errorf("the one direction with a shape doesn't come first, but %s", direction(pairs[0]))
	}
	if len(pairs) != 50 || pairs[20].first {
		t.Errorf("%d pairs", len(pairs))
	}
	distinct := make(map[[2]int]bool)
	for _, p := range pairs {
		distinct[[2]int{p.from.Slot, p.to.Slot}] = true
		if p.from.Slot == p.to.Slot {
			t.Errorf("%s is probed with itself", p.fromName)
		}
	}
	if len(distinct) != 50 {
		t.Errorf("%d distinct pairs of 50", len(distinct))
	}
	names := func(pairs []pair) (all []string) {
		for _, p := range pairs {
			all = append(all, p.fromName+"→"+p.toName)
		}
		return all
	}
	if !slices.Equal(names(pairs), names(sample(asked, 50, 3))) {
		t.Error("the same seed draws others")
	}
	if slices.Equal(names(pairs), names(sample(asked, 50, 4))) {
		t.Error("another seed draws the same")
	}
	if all := sample(asked, 10_000, 3); len(all) != 40*39 {
		t.Errorf("%d of all %d pairs", len(all), 40*39)
	}
}

func TestTailsOfTheBinomialDistribution(t *testing.T) {
	for _, c := range []struct {
		k, n int
		p    float64
		want float64
	}{{0, 10, .3, 1}, {1, 10, .1, 0.6513216}, {3, 10, .5, 0.9453125}, {10, 10, .5, 1.0 / 1024}, {11, 10, .5, 0}, {5, 10, 0, 0}, {5, 10, 1, 1}} {
		if got := atLeast(c.k, c.n, c.p); math.Abs(got-c.want) > 1e-7 {
			t.Errorf("at least %d of %d with %v: %v, want %v", c.k, c.n, c.p, got, c.want)
		}
	}
	for _, c := range []struct {
		k, n      int
		p         float64
		many, few bool
	}{
		{0, 500, 0, false, false}, {1, 500, 0, true, false}, {500, 500, 1, false, false}, {499, 500, 1, false, true},
		{25, 500, .05, false, false}, {50, 500, .05, true, false}, {5, 500, .05, false, true}, {4, 500, .001, false, false}, {0, 500, .001, false, false},
	} {
		if many, few := tooMany(c.k, c.n, c.p), tooFew(c.k, c.n, c.p); many != c.many || few != c.few {
			t.Errorf("%d of %d with %v: too many %v, too few %v", c.k, c.n, c.p, many, few)
		}
	}
}

// Inbound blocking: new connections are lost, and answers get through; so it is answers that are measured.
func TestInboundIsProvedByAnswers(t *testing.T) {
	r := newRig(t, 2)
	asked := state(t, seated(1, "eu", "us"), pipelines.Network{Default: latency(20 * time.Millisecond), Inbound: []pipelines.Block{{Groups: []string{"us"}, Policy: "drop"}}})
	shaped := shaping(asked)
	var mu sync.Mutex
	known := make(map[[2]uint16]bool)
	r.set(func(from, to int, packet []byte) []fate {
		mu.Lock()
		defer mu.Unlock()
		if packet[0]>>4 != 4 {
			return nil
		}
		source, target := uint16(packet[20])<<8|uint16(packet[21]), uint16(packet[22])<<8|uint16(packet[23])
		if from == 1 {
			known[[2]uint16{target, source}] = true
		} else if !known[[2]uint16{source, target}] {
			return nil
		}
		return shaped(from, to, packet)
	})
	for _, p := range proved(t, r, asked, 2).Pairs {
		if !p.OK || p.Achieved.Latency == 0 {
			t.Errorf("%s → %s: %s (%+v)", p.From, p.To, p.Fault, p.Achieved)
		}
	}
}
