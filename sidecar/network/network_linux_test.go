package network

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/prober"
)

func value[T any](v T) *T { return &v }

// endpoints opens one for each of n slots, at its IPv4 address.
func endpoints(t *testing.T, f *fabric.Fabric, slots ...int) []*prober.Endpoint {
	t.Helper()
	all := make([]*prober.Endpoint, len(slots))
	for i, slot := range slots {
		_, data := f.Addresses(slot)
		all[i] = endpoint(t, f, slot, data)
	}
	return all
}

func endpoint(t *testing.T, f *fabric.Fabric, slot int, at netip.Addr) *prober.Endpoint {
	t.Helper()
	e, err := prober.Open(func(work func() error) error { return f.Inside(slot, work) }, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// delay is the median latency of a few packets; -1 when none arrives.
func delay(t *testing.T, from, to *prober.Endpoint) time.Duration {
	t.Helper()
	s, err := prober.Measure(t.Context(), from, to, prober.SeriesOptions{Packets: 20, Interval: time.Millisecond, Patience: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if s.Received == 0 {
		return -1
	}
	return s.Quantile(0.5)
}

// knocked is what becomes of what is sent.
func knocked(t *testing.T, from, to *prober.Endpoint) links.Policy {
	t.Helper()
	a, err := prober.Knock(t.Context(), from, to, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return a.UDP
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestInForce(t *testing.T) {
	inSidecar(t, 4, func(t *testing.T, f *fabric.Fabric, n *Network) {
		ctx := t.Context()
		ok(t, n.Seat(ctx, groups(2)))
		e := endpoints(t, f, 0, 1, 2, 3)
		six := []*prober.Endpoint{endpoint(t, f, 0, f.Address6(0)), endpoint(t, f, 2, f.Address6(2))}
		about := func(what string, got, want time.Duration) {
			t.Helper()
			if want < 0 && got < 0 {
				return
			}
			// However busy the machine is: not before its time, and not nearly as late as anything else that is asked for.
			if got < want || got > want+35*time.Millisecond {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		about("nothing asked", delay(t, e[0], e[2]), 0)

		ok(t, n.SetStage(ctx, between("a", "b", latency(40*time.Millisecond))))
		about("there", delay(t, e[0], e[2]), 40*time.Millisecond)
		about("there by IPv6", delay(t, six[0], six[1]), 40*time.Millisecond)
		about("back", delay(t, e[2], e[0]), 0)
		about("inside the group", delay(t, e[0], e[1]), 0)

		ok(t, n.Configure(ctx, 0, Config{Enabled: true, Plan: links.Plan{Default: links.Shape{Shape: latency(80 * time.Millisecond)}}}))
		about("by the plan", delay(t, e[0], e[2]), 80*time.Millisecond)
		about("without a plan", delay(t, e[1], e[2]), 40*time.Millisecond)

		ok(t, n.Begin(ctx, links.Event{Name: "split", Network: pipelines.Network{Links: []pipelines.Link{
			{From: "a", To: "b", Shape: pipelines.Shape{Policy: "drop"}}, {From: "b", To: "a", Shape: pipelines.Shape{Policy: "reject"}},
		}}}))
		if got := knocked(t, e[0], e[2]); got != links.Drop {
			t.Errorf("dropped: %v", got)
		}
		if got := knocked(t, e[2], e[0]); got != links.Reject {
			t.Errorf("rejected: %v", got)
		}
		ok(t, n.End(ctx, "split"))
		about("healed", delay(t, e[0], e[2]), 80*time.Millisecond)
		about("healed, back", delay(t, e[2], e[0]), 0)

		ok(t, n.Restore(ctx, []int{0, 1, 2, 3}))
		ok(t, n.SetStage(ctx, pipelines.Network{}))
		about("nothing asked any more", delay(t, e[0], e[2]), 0)
		if said := n.Overload(); said != "" {
			t.Log(said) // it may be true of the machine that tests run on
		}
	})
}

func TestSeatsInForce(t *testing.T) {
	inSidecar(t, 3, func(t *testing.T, f *fabric.Fabric, n *Network) {
		ctx := t.Context()
		ok(t, n.Seat(ctx, []pipelines.Group{{Name: "a", Instances: 3}}))
		e := endpoints(t, f, 0, 1, 2)
		own := netip.MustParsePrefix("10.0.77.5/16")
		to := links.Plan{Rules: []links.Rule{{To: netip.PrefixFrom(own.Addr(), 32), Shape: links.Shape{Shape: latency(60 * time.Millisecond)}}}}
		ok(t, n.Configure(ctx, 0, Config{Enabled: true, Plan: to}))
		ok(t, n.Configure(ctx, 1, Config{Enabled: true, Address: own}))
		if got := delay(t, e[0], endpoint(t, f, 1, own.Addr())); got < 60*time.Millisecond {
			t.Errorf("to a new address, that a rule is about: %v", got)
		}
		ok(t, n.Configure(ctx, 2, Config{}))
		if got := delay(t, e[0], e[2]); got >= 0 {
			t.Errorf("to one that is disconnected: %v", got)
		}
		ok(t, n.Restore(ctx, []int{0, 1, 2}))
		if got := delay(t, e[0], endpoints(t, f, 1)[0]); got < 0 {
			t.Error("to one that got its own address back: nothing")
		}
		if got := delay(t, e[0], e[2]); got < 0 {
			t.Error("to one that was connected again: nothing")
		}
	})
}

func TestNATInForce(t *testing.T) {
	inSidecar(t, 3, func(t *testing.T, f *fabric.Fabric, n *Network) {
		ctx := t.Context()
		ok(t, n.Seat(ctx, []pipelines.Group{{Name: "home", Instances: 2}, {Name: "server", Instances: 1}}))
		state := between("home", "server", latency(30*time.Millisecond))
		state.NAT = []pipelines.NAT{{Groups: []string{"home"}, Type: "port-restricted"}}
		ok(t, n.SetStage(ctx, state))
		e := endpoints(t, f, 0, 1, 2)
		if got := delay(t, e[0], e[1]); got < 0 {
			t.Error("behind the same router nothing gets through")
		}
		if got := delay(t, e[2], e[0]); got >= 0 {
			t.Errorf("a private address was reached from outside, after %v", got)
		}
		asks, answers := dialUDP(t, f, 0, 2)
		began := time.Now()
		from := asks()
		if took := time.Since(began); took < 30*time.Millisecond {
			t.Errorf("out through the router: %v", took)
		}
		external := n.State().Routers()[0].External
		if from.Addr() != external {
			t.Errorf("it comes from %s, want the router's %s", from, external)
		}
		if !answers(from) {
			t.Error("the answer didn't come back through the router")
		}
	})
}

// The proof finds what is asked for in force, and nothing else.
func TestProof(t *testing.T) {
	inSidecar(t, 6, func(t *testing.T, f *fabric.Fabric, n *Network) {
		ctx := t.Context()
		if _, err := n.Prove(ctx, pipelines.Verify{Pairs: 5}, 1, nil); err == nil {
			t.Error("a proof of a network without anybody")
		}
		ok(t, n.Seat(ctx, groups(3)))
		state := between("a", "b", pipelines.Shape{Latency: value(pipelines.Duration(20 * time.Millisecond)), Bandwidth: value(pipelines.Bandwidth(5e6))})
		state.Links = append(state.Links, pipelines.Link{From: "b", To: "a", Shape: pipelines.Shape{Policy: "reject"}})
		ok(t, n.SetStage(ctx, state))
		done := 0
		// Others keep the machine busy while this is tested: only what is clearly wrong counts.
		proof, err := n.Prove(ctx, pipelines.Verify{Pairs: 8, Tolerance: 0.5}, 1, func(d, _ int) { done = max(done, d) })
		ok(t, err)
		if len(proof.Pairs) != 8 || done != 8 || proof.Shaper != n.Shaper() {
			t.Errorf("%d pairs, %d reported, %s", len(proof.Pairs), done, proof.Shaper)
		}
		for _, p := range proof.Pairs {
			if !p.OK {
				t.Errorf("%s → %s: %s", p.From, p.To, p.Fault)
			}
		}
	})
}

// A thousand instances in four regions with a full matrix, cut in two and healed.
func TestThousandInFourRegions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: not with -short")
	}
	inSidecar(t, 1000, func(t *testing.T, f *fabric.Fabric, n *Network) {
		ctx := t.Context()
		timed := func(what string, err error, began time.Time) {
			t.Helper()
			ok(t, err)
			t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond))
		}
		regions := []string{"eu", "us", "ap", "sa"}
		var all []pipelines.Group
		for _, r := range regions {
			all = append(all, pipelines.Group{Name: r, Instances: 250, Region: r})
		}
		began := time.Now()
		timed("seats of 1,000", n.Seat(ctx, all), began)
		began = time.Now()
		timed("matrix of four regions", n.SetStage(ctx, matrix(regions)), began)
		began = time.Now()
		timed("partition", n.Begin(ctx, partition("split", regions[:2], regions[2:])), began)
		e := endpoints(t, f, 0, 300, 999)
		for i, want := range []bool{true, false} {
			if got := delay(t, e[0], e[i+1]) >= 0; got != want {
				t.Errorf("during the partition 0 reaches the %d. one: %v", i+1, got)
			}
		}
		began = time.Now()
		timed("healing", n.End(ctx, "split"), began)
		for i := range e {
			if got := delay(t, e[i], e[(i+1)%len(e)]); got < 0 {
				t.Errorf("after the healing %d doesn't reach the next", i)
			}
		}
		began = time.Now()
		errs := make(chan error, 1000)
		for slot := range 1000 {
			go func() {
				errs <- n.Configure(ctx, slot, Config{Enabled: true, Plan: links.Plan{
					Default: links.Shape{Shape: latency(time.Duration(slot) * time.Microsecond)},
					Rules:   []links.Rule{{To: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(slot % 4), 0}), 24), Shape: links.Shape{Shape: latency(time.Millisecond)}}},
				}})
			}()
		}
		for range 1000 {
			ok(t, <-errs)
		}
		timed("1,000 plans with a rule each, at once", nil, began)
		began = time.Now()
		slots := make([]int, 1000)
		for i := range slots {
			slots[i] = i
		}
		timed("all of them restored", n.Restore(ctx, slots), began)
	})
}

// matrix has a latency of its own, and loss, from every region to every other.
func matrix(regions []string) pipelines.Network {
	var n pipelines.Network
	for i, from := range regions {
		for j, to := range regions {
			s := latency(time.Duration(1+10*max(i, j)) * time.Millisecond)
			s.Loss = value(pipelines.Share(0.001))
			n.Links = append(n.Links, pipelines.Link{From: from, To: to, Shape: s})
		}
	}
	return n
}

// partition drops what goes from one half to the other.
func partition(name string, halves ...[]string) links.Event {
	e := links.Event{Name: name}
	for i, half := range halves {
		for _, from := range half {
			for _, to := range slices.Concat(slices.Concat(halves[:i]...), slices.Concat(halves[i+1:]...)) {
				e.Network.Links = append(e.Network.Links, pipelines.Link{From: from, To: to, Shape: pipelines.Shape{Policy: "drop"}})
			}
		}
	}
	return e
}

// dialUDP has one slot ask another by UDP. asks returns who the other takes it for, and answers says whether what the
// other sends there comes back.
func dialUDP(t *testing.T, f *fabric.Fabric, from, to int) (asks func() netip.AddrPort, answers func(netip.AddrPort) bool) {
	t.Helper()
	client, server := socket(t, f, from), socket(t, f, to)
	word := []byte("groundplan")
	read := func(fd *udp) netip.AddrPort {
		buffer := make([]byte, 100)
		_ = fd.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, sender, err := fd.ReadFromUDPAddrPort(buffer)
		if err != nil || string(buffer[:n]) != string(word) {
			t.Errorf("slot %d has read %q: %v", fd.slot, buffer[:n], err)
		}
		return sender
	}
	asks = func() netip.AddrPort {
		if _, err := client.WriteToUDPAddrPort(word, server.at); err != nil {
			t.Fatal(err)
		}
		return read(server)
	}
	answers = func(at netip.AddrPort) bool {
		if _, err := server.WriteToUDPAddrPort(word, at); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(read(client)) == fmt.Sprint(server.at)
	}
	return asks, answers
}

func TestChoosingAShaper(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	if way, err := choose(UserSpace, quiet); way != UserSpace || err != nil {
		t.Errorf("%s, %v", way, err)
	}
	if _, err := choose("magic", quiet); err == nil || !strings.Contains(err.Error(), "it is netem or userspace") {
		t.Errorf("%v", err)
	}
	way, err := choose("", quiet)
	if err != nil {
		t.Fatal(err)
	}
	forced, err := choose(Netem, quiet)
	if (way == Netem) != (err == nil) || way == Netem && forced != Netem {
		t.Errorf("%s by itself; forced to netem: %s, %v", way, forced, err)
	}
}
