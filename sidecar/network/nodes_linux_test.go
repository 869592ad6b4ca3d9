package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/fabric/fabrictest"
	"github.com/groundplan/groundplan/sidecar/launch/launchtest"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/prober"
)

// spread is a network over several nodes.
type spread struct {
	*fabrictest.Cluster
	t        *testing.T
	networks []*Network
}

// overNodes has work done with a network over nodes that hold two instances each, those of groups a, b, c, …
func overNodes(t *testing.T, nodes int, work func(t *testing.T, s *spread)) {
	t.Helper()
	launchtest.Options{Root: true}.InSidecar(t, func(t *testing.T) {
		t.Helper()
		s := &spread{Cluster: fabrictest.New(t, fabrictest.Options{Nodes: nodes, PerNode: 2, Isolate: true}), t: t, networks: make([]*Network, nodes)}
		for i := range nodes {
			s.open(i)
		}
		t.Cleanup(func() {
			for _, n := range s.networks {
				if err := n.Close(); err != nil {
					t.Error(err)
				}
			}
		})
		s.all(func(n *Network) error { return n.Seat(t.Context(), s.groups()) })
		work(t, s)
	})
}

// groups are a on the first node, b on the second, and so on.
func (s *spread) groups() []pipelines.Group {
	var all []pipelines.Group
	for i := range s.Nodes {
		all = append(all, pipelines.Group{Name: string(rune('a' + i)), Instances: 2})
	}
	return all
}

// socket opens one at a slot's own address.
func (s *spread) socket(slot int) *udp {
	s.t.Helper()
	u := &udp{slot: slot}
	err := s.Inside(slot, func() (err error) {
		u.UDPConn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.own(slot), 0)))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { u.Close() })
	u.at = u.LocalAddr().(*net.UDPAddr).AddrPort()
	return u
}

// heard sends a word to an address, and says who the one that listens has it from; the zero value when it doesn't come.
func (s *spread) heard(from, listens *udp, to netip.AddrPort) netip.AddrPort {
	s.t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte("groundplan"), to); err != nil {
		s.t.Fatal(err)
	}
	_ = listens.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, sender, err := listens.ReadFromUDPAddrPort(make([]byte, 100))
	if err != nil {
		return netip.AddrPort{}
	}
	return sender
}

func (s *spread) open(node int) {
	s.t.Helper()
	var err error
	s.networks[node], err = New(s.Nodes[node].Fabric, Options{Shaper: os.Getenv("GROUNDPLAN_SHAPER")})
	if err != nil {
		s.t.Fatal(err)
	}
}

// all has every node do something.
func (s *spread) all(what func(n *Network) error) {
	s.t.Helper()
	failed := make(chan error, len(s.networks))
	for _, n := range s.networks {
		go func() { failed <- what(n) }()
	}
	for range s.networks {
		if err := <-failed; err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *spread) endpoint(slot int, at netip.Addr) *prober.Endpoint {
	s.t.Helper()
	e, err := prober.Open(func(work func() error) error { return s.Inside(slot, work) }, at)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { e.Close() })
	return e
}

func (s *spread) own(slot int) netip.Addr {
	_, data := s.Nodes[0].Fabric.Addresses(slot)
	return data
}

func about(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if want < 0 && got < 0 {
		return
	}
	if got < want || got > want+35*time.Millisecond {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// Slots 0 and 1 are of group a on the first node, 2 and 3 of b on the second, 4 and 5 of c on the third.
func TestInForceOverNodes(t *testing.T) {
	overNodes(t, 3, func(t *testing.T, s *spread) {
		ctx := t.Context()
		six := s.Nodes[0].Fabric.Address6
		var e, e6 []*prober.Endpoint
		for slot := range 6 {
			e, e6 = append(e, s.endpoint(slot, s.own(slot))), append(e6, s.endpoint(slot, six(slot)))
		}
		about(t, "nothing asked", delay(t, e[0], e[2]), 0)

		s.all(func(n *Network) error {
			return n.SetStage(ctx, pipelines.Network{Links: []pipelines.Link{
				{From: "a", To: "b", Shape: latency(40 * time.Millisecond)}, {From: "a", To: "a", Shape: latency(20 * time.Millisecond)},
				{From: "b", To: "c", Shape: pipelines.Shape{Policy: "reject"}}, {From: "c", To: "b", Shape: pipelines.Shape{Policy: "drop"}},
			}, Inbound: []pipelines.Block{{Groups: []string{"c"}, Policy: "reject"}}})
		})
		about(t, "there", delay(t, e[0], e[2]), 40*time.Millisecond)
		about(t, "there by IPv6", delay(t, e6[0], e6[2]), 40*time.Millisecond)
		about(t, "back", delay(t, e[2], e[0]), 0)
		about(t, "on one node", delay(t, e[0], e[1]), 20*time.Millisecond)
		for what, got := range map[string][2]links.Policy{
			"rejected":           {knocked(t, e[2], e[4]), links.Reject},
			"rejected by IPv6":   {knocked(t, e6[2], e6[4]), links.Reject},
			"dropped":            {knocked(t, e[4], e[2]), links.Drop},
			"inbound":            {knocked(t, e[0], e[4]), links.Reject},
			"inbound by IPv6":    {knocked(t, e6[0], e6[4]), links.Reject},
			"out of the blocked": {knocked(t, e[4], e[0]), links.Accept},
		} {
			if got[0] != got[1] {
				t.Errorf("%s: %v", what, got[0])
			}
		}
		// What answers comes in.
		if got := delay(t, e[4], e[1]); got < 0 {
			t.Error("the blocked one can't send")
		}
		about(t, "an answer", delay(t, e[1], e[4]), 0)

		s.all(func(n *Network) error {
			return n.Begin(ctx, partition("split", []string{"a"}, []string{"b", "c"}))
		})
		if got := knocked(t, e[0], e[2]); got != links.Drop {
			t.Errorf("in two: %v", got)
		}
		s.all(func(n *Network) error { return n.End(ctx, "split") })
		about(t, "healed", delay(t, e[0], e[2]), 40*time.Millisecond)

		ok(t, s.networks[1].Configure(ctx, 2, Config{Enabled: false}))
		about(t, "disabled", delay(t, e[0], e[2]), -1)
		ok(t, s.networks[1].Restore(ctx, []int{2}))
		about(t, "enabled", delay(t, e[0], e[2]), 40*time.Millisecond)
		for i, n := range s.networks {
			if said := n.Overload(); said != "" {
				t.Logf("node %d: %s", i, said)
			}
			if h := n.shapers[0].Health(); i == 1 && h.Packets > 200 {
				t.Errorf("the node that only receives has shaped %d packets", h.Packets)
			}
		}
	})
}

// A node with 100 of 10,000 instances, in four regions.
func TestTenThousandOverNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: not with -short")
	}
	launchtest.Options{Root: true}.InSidecar(t, func(t *testing.T) {
		const nodes, each = 100, 100
		c := fabrictest.Bare(t, fabrictest.Options{Nodes: 1, PerNode: each, Isolate: true})
		for i := 1; i < nodes; i++ {
			c.Peers = append(c.Peers, control.Peer{
				Name: fmt.Sprint("far", i), Address: netip.AddrFrom4([4]byte{192, 168, 9, byte(i)}), Slots: [][2]int{{i * each, (i+1)*each - 1}},
			})
		}
		ctx, began := t.Context(), time.Now()
		took := func(what string) {
			t.Logf("%s: %v", what, time.Since(began).Round(100*time.Microsecond))
			began = time.Now()
		}
		c.Nodes[0].Open()
		took("a fabric that knows 99 other nodes")
		c.Nodes[0].Fill()
		took("100 pods added")
		n, err := New(c.Nodes[0].Fabric, Options{Shaper: os.Getenv("GROUNDPLAN_SHAPER")})
		ok(t, err)
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		regions := []string{"eu", "us", "ap", "sa"}
		var all []pipelines.Group
		for _, r := range regions {
			all = append(all, pipelines.Group{Name: r, Instances: nodes * each / 4, Region: r})
		}
		began = time.Now()
		ok(t, n.Seat(ctx, all))
		took("seats of 10,000")
		ok(t, n.SetStage(ctx, matrix(regions)))
		took("matrix of four regions")
		ok(t, n.Begin(ctx, partition("split", regions[:2], regions[2:])))
		took("partition")
		ok(t, n.End(ctx, "split"))
		took("healing")
		for slot := 200; slot < 300; slot++ {
			ok(t, n.Move(ctx, slot, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 200, byte(slot - 199)}), 16)))
		}
		took("100 moves elsewhere, one after the other")
	})
}

func TestMoveOverNodes(t *testing.T) {
	overNodes(t, 3, func(t *testing.T, s *spread) {
		ctx := t.Context()
		s.all(func(n *Network) error { return n.SetStage(ctx, between("a", "b", latency(30*time.Millisecond))) })
		to := netip.MustParsePrefix("10.0.77.7/16")
		move := func(prefix netip.Prefix) {
			t.Helper()
			for i, n := range s.networks {
				if i == 1 {
					ok(t, n.Configure(ctx, 2, Config{Enabled: true, Address: prefix}))
				} else {
					ok(t, n.Move(ctx, 2, prefix))
				}
			}
		}
		move(to)
		about(t, "to where it has moved", delay(t, s.endpoint(0, s.own(0)), s.endpoint(2, to.Addr())), 30*time.Millisecond)
		move(netip.Prefix{})
		about(t, "home again", delay(t, s.endpoint(0, s.own(0)), s.endpoint(2, s.own(2))), 30*time.Millisecond)
		if err := s.networks[1].Move(ctx, 2, to); err == nil {
			t.Error("its own instance was moved like another node's")
		}
		refused := new(Refusal)
		if err := s.networks[0].Move(ctx, 2, netip.MustParsePrefix("192.168.1.1/16")); !errors.As(err, &refused) {
			t.Errorf("%v", err)
		}
	})
}

// A sidecar that comes back finds the links, the rules and where plans have put their instances.
func TestTakenOver(t *testing.T) {
	overNodes(t, 3, func(t *testing.T, s *spread) {
		ctx := t.Context()
		stage := between("a", "b", latency(30*time.Millisecond))
		stage.Links = append(stage.Links, pipelines.Link{From: "b", To: "c", Shape: pipelines.Shape{Policy: "drop"}})
		s.all(func(n *Network) error { return n.SetStage(ctx, stage) })
		to := netip.MustParsePrefix("10.0.77.7/16")
		ok(t, s.networks[1].Configure(ctx, 2, Config{Enabled: true, Address: to}))
		ok(t, s.networks[0].Move(ctx, 2, to))
		ok(t, s.networks[2].Move(ctx, 2, to))
		moved := s.endpoint(2, to.Addr())
		other, unshaped := s.endpoint(4, s.own(4)), s.endpoint(5, s.own(5))
		for round := range 3 {
			ok(t, s.networks[1].Close())
			ok(t, s.Nodes[1].Fabric.Close())
			about(t, "while nobody is there", delay(t, moved, unshaped), -1)
			about(t, "what the kernel does by itself", delay(t, other, moved), 0)
			s.Nodes[1].Open()
			s.Nodes[1].Fill()
			s.open(1)
			about(t, "before anything is asked", delay(t, moved, other), -1)
			n := s.networks[1]
			n.Hold()
			ok(t, n.Seat(ctx, s.groups()))
			ok(t, n.SetStage(ctx, pipelines.Network{}))
			about(t, "on hold", delay(t, moved, other), -1)
			ok(t, n.SetStage(ctx, stage))
			ok(t, n.Resume(ctx))
			about(t, "dropped", delay(t, moved, other), -1)
			about(t, fmt.Sprint("taken over ", round), delay(t, s.endpoint(0, s.own(0)), moved), 30*time.Millisecond)
		}
		ok(t, s.networks[1].Restore(ctx, []int{2, 3}))
		ok(t, s.networks[0].Move(ctx, 2, netip.Prefix{}))
		about(t, "restored", delay(t, s.endpoint(0, s.own(0)), s.endpoint(2, s.own(2))), 30*time.Millisecond)
	})
}

func TestNATOverNodes(t *testing.T) {
	overNodes(t, 3, func(t *testing.T, s *spread) {
		ctx := t.Context()
		nat := func(kind string, names ...string) pipelines.NAT { return pipelines.NAT{Groups: names, Type: kind} }
		stage := pipelines.Network{
			Default: latency(20 * time.Millisecond),
			NAT:     []pipelines.NAT{nat("full-cone", "a"), nat("port-restricted", "b")},
		}
		s.all(func(n *Network) error { return n.SetStage(ctx, stage) })
		a, b, c := s.socket(0), s.socket(2), s.socket(4)
		began := time.Now()
		fromA := s.heard(a, c, c.at)
		if external := s.networks[2].State().Routers()[0].External; fromA.Addr() != external {
			t.Errorf("it comes from %s, want the NAT's %s", fromA, external)
		}
		if got := s.heard(c, a, fromA); got != c.at {
			t.Errorf("the answer comes from %s", got)
		}
		if took := time.Since(began); took < 40*time.Millisecond {
			t.Errorf("out of the NAT and back in %v", took)
		}
		// Two NATs on two nodes: the one lets nobody in that it has not sent to, the other everybody.
		fromB := s.heard(b, c, c.at)
		if got := s.heard(a, b, fromB); got.IsValid() {
			t.Errorf("a port-restricted NAT let %s in", got)
		}
		if got := s.heard(b, a, fromA); got != fromB {
			t.Errorf("from NAT to NAT it comes from %s, want %s", got, fromB)
		}
		if got := s.heard(a, b, fromB); got != fromA {
			t.Errorf("back it comes from %s, want %s", got, fromA)
		}
		if got := s.heard(c, a, a.at); got.IsValid() {
			t.Error("a private address was reached from another node")
		}
		// Both behind the same one.
		one := s.socket(1)
		if got := s.heard(a, one, one.at); got != a.at {
			t.Errorf("behind the same NAT it comes from %s", got)
		}
		spread := pipelines.Network{NAT: []pipelines.NAT{nat("full-cone", "a", "c")}}
		for _, n := range s.networks {
			refused := new(Refusal)
			if err := n.SetStage(ctx, spread); !errors.As(err, &refused) || !strings.Contains(refused.Sentence, "a/0 and c/0") {
				t.Errorf("%v", err)
			}
		}
	})
}

// meeting is where the nodes of a test meet.
type meeting struct {
	mu    sync.Mutex
	said  map[string]map[int][]byte
	nodes int
	size  int
}

type chair struct {
	*meeting
	node int
}

func (s chair) Exchange(ctx context.Context, name string, say []byte) ([][]byte, error) {
	m := s.meeting
	m.mu.Lock()
	if m.said[name] == nil {
		m.said[name] = map[int][]byte{}
	}
	if m.said[name][s.node] != nil {
		m.mu.Unlock()
		return nil, fmt.Errorf("node %d has said something under %s before", s.node, name)
	}
	m.said[name][s.node] = say
	m.size += len(say)
	m.mu.Unlock()
	for ; ; time.Sleep(time.Millisecond) {
		m.mu.Lock()
		if all := m.said[name]; len(all) == m.nodes {
			var inOrder [][]byte
			for i := range m.nodes {
				inOrder = append(inOrder, all[i])
			}
			m.mu.Unlock()
			return inOrder, nil
		}
		m.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

func TestProofOverNodes(t *testing.T) {
	overNodes(t, 3, func(t *testing.T, s *spread) {
		ctx := t.Context()
		m := &meeting{said: map[string]map[int][]byte{}, nodes: 3}
		for i, n := range s.networks {
			n.rendezvous, n.name = chair{m, i}, fmt.Sprint("n", i)
		}
		stage := pipelines.Network{
			Default: latency(10 * time.Millisecond),
			Links: []pipelines.Link{
				{From: "a", To: "b", Shape: pipelines.Shape{Latency: value(pipelines.Duration(40 * time.Millisecond)), Loss: value(pipelines.Share(0.1))}},
				{From: "b", To: "a", Shape: pipelines.Shape{Bandwidth: value(pipelines.Bandwidth(5e6))}},
				{From: "b", To: "c", Shape: pipelines.Shape{Policy: "reject"}}, {From: "c", To: "b", Shape: pipelines.Shape{Policy: "drop"}},
			},
			Inbound: []pipelines.Block{{Groups: []string{"c"}, Policy: "reject"}},
		}
		s.all(func(n *Network) error { return n.SetStage(ctx, stage) })
		proofs := make([]control.Proof, 3)
		prove := func(key string, pairs int) {
			s.all(func(n *Network) error {
				i := slices.Index(s.networks, n)
				n.ResetOverload()
				var err error
				proofs[i], err = n.ProveStage(ctx, key, pipelines.Verify{Pairs: pairs, Tolerance: 0.1}, 7, nil)
				return err
			})
		}
		prove("key", 18)
		t.Logf("%d pairs in %v, %d bytes exchanged", len(proofs[0].Pairs), proofs[0].Ended.Sub(proofs[0].Started), m.size)
		busy := ""
		for _, n := range s.networks {
			busy = cmp.Or(busy, n.Overload())
		}
		for _, p := range proofs[0].Pairs {
			switch {
			case !p.OK && busy != "":
				t.Logf("%s → %s: %s; but %s", p.From, p.To, p.Fault, busy)
			case !p.OK:
				t.Errorf("%s → %s: %s", p.From, p.To, p.Fault)
			case p.From[0] != p.To[0] && p.Packets > 0 && !strings.Contains(p.Note, "clocks are compared to within"):
				t.Errorf("%s → %s: nothing is said of the clocks: %q", p.From, p.To, p.Note)
			}
		}
		for i, p := range proofs {
			if !reflect.DeepEqual(p.Pairs, proofs[0].Pairs) {
				t.Errorf("node %d has another proof", i)
			}
		}
		if len(proofs[0].Pairs) != 18 {
			t.Errorf("%d pairs", len(proofs[0].Pairs))
		}
		// One that isn't as it should be is found out, by all.
		wrong := stage
		wrong.Links = slices.Concat(stage.Links, []pipelines.Link{
			{From: "a", To: "a", Shape: latency(50 * time.Millisecond)}, {From: "b", To: "c", Shape: pipelines.Shape{Policy: "accept"}},
		})
		wrong.Inbound = nil
		ok(t, s.networks[2].SetStage(ctx, wrong))
		for _, n := range s.networks[:2] {
			n.state.Store(s.networks[2].State()) // what is asked for, but isn't done
		}
		prove("other", 9)
		i := slices.IndexFunc(proofs[2].Pairs, func(p control.Pair) bool { return p.From[0] == 'a' && p.To[0] == 'a' })
		if p := proofs[2].Pairs[i]; p.OK || !strings.Contains(p.Fault, "instead of 50ms") {
			t.Errorf("%+v", p)
		}
		i = slices.IndexFunc(proofs[2].Pairs, func(p control.Pair) bool { return p.From[0] == 'b' && p.To[0] == 'c' })
		if p := proofs[1].Pairs[i]; p.OK || !strings.Contains(p.Fault, "not one of") {
			t.Errorf("%+v", p)
		}
	})
}
