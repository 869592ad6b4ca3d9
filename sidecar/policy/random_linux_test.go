package policy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/links"
)

// TestRandomStates has every instance send to every other under one random state after the other, and sees what comes of
// it: each is put in force in place of the one before.
func TestRandomStates(t *testing.T) {
	const rounds = 12
	inSidecar(t, Options{}, true, []string{"a:5", "b:9", "c:1", "d:9"}, func(t *testing.T, r *rig) {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		m := newMesh(t, r)
		whole := r.table.socket.most
		for round := range rounds {
			layers := randomLayers(random, r.seats)
			r.table.socket.most = whole
			if round%2 == 1 {
				r.table.socket.most = 1000 // many transactions
			}
			r.apply(t, layers)
			state := r.table.state
			want := m.expect(state)
			if got := m.observe(t, want); got != want {
				t.Fatalf("round %d of seed %d: %s", round, seed, m.differ(got, want))
			}
			if err := agrees(r.table, state); err != nil {
				t.Fatalf("round %d of seed %d: %v", round, seed, err)
			}
		}
	})
}

// agrees says whether a table keeps in mind what is in force, and nothing else.
func agrees(t *Table, state *links.State) error {
	contents, of := t.o.contents(state)
	if len(t.classes) != len(contents) || len(t.sources) != len(of) {
		return fmt.Errorf("%d chains for %d contents, %d sources for %d instances", len(t.classes), len(contents), len(t.sources), len(of))
	}
	for slot, n := range of {
		if t.classes[t.sources[slot]].content != contents[n] {
			return fmt.Errorf("slot %d goes through a chain with rules of others", slot)
		}
	}
	return nil
}

const meshSize = 24

// mesh is a socket in every instance, and connected ones from each to every address of the others.
type mesh struct {
	r         *rig
	receivers [meshSize]*net.UDPConn
	senders   [meshSize][2 * meshSize]*net.UDPConn
	round     byte
}

// fates has what becomes of the packets of each instance to the addresses of every other: IPv4 first, then IPv6.
type fates [meshSize][2 * meshSize]fate

func newMesh(t *testing.T, r *rig) *mesh {
	m := &mesh{r: r}
	for from := range meshSize {
		err := r.Inside(from, func() (err error) {
			if m.receivers[from], err = net.ListenUDP("udp", &net.UDPAddr{Port: port}); err != nil {
				return err
			}
			for to := range 2 * meshSize {
				if to%meshSize == from {
					continue
				}
				target := net.UDPAddrFromAddrPort(netip.AddrPortFrom(m.address(to), port))
				if m.senders[from][to], err = net.DialUDP("udp", nil, target); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for from := range meshSize {
			m.receivers[from].Close()
			for _, c := range m.senders[from] {
				if c != nil {
					c.Close()
				}
			}
		}
	})
	return m
}

func (m *mesh) address(to int) netip.Addr {
	i := m.r.seats.Instances[to%meshSize]
	if to < meshSize {
		return i.Data
	}
	return i.Data6
}

// observe sends, and sees what came where and who was refused. It looks until that is what is wanted, and then once
// more: a busy machine takes its time.
func (m *mesh) observe(t *testing.T, want fates) fates {
	t.Helper()
	var seen fates
	m.round++
	for from, row := range m.senders {
		for to, c := range row {
			if seen[from][to] = dropped; c != nil {
				_, _ = c.Write([]byte{m.round, byte(from), byte(to)})
			} else {
				seen[from][to] = passed
			}
		}
	}
	for begin := time.Now(); seen != want && time.Since(begin) < 5*time.Second; {
		m.look(t, &seen)
	}
	time.Sleep(10 * time.Millisecond)
	m.look(t, &seen)
	return seen
}

// look adds what has come to what was seen.
func (m *mesh) look(t *testing.T, seen *fates) {
	t.Helper()
	for at, c := range m.receivers {
		b := make([]byte, 8)
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		for n, err := c.Read(b); err == nil; n, err = c.Read(b) {
			if n == 3 && b[0] == m.round && int(b[2])%meshSize == at {
				seen[b[1]][b[2]] = passed
			}
		}
	}
	for from, row := range m.senders {
		for to, c := range row {
			if c != nil && errorOf(t, c) != 0 {
				seen[from][to] = rejected
			}
		}
	}
}

func errorOf(t *testing.T, c *net.UDPConn) (code int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { code, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) })
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func (m *mesh) expect(state *links.State) fates {
	var want fates
	for from := range meshSize {
		for to := range 2 * meshSize {
			if to%meshSize == from {
				continue
			}
			want[from][to] = Options{}.fate(state.Path(from, m.address(to)))
			if blocked := state.Inbound()[to%meshSize]; want[from][to] == passed {
				want[from][to] = Options{}.fate(links.Path{Policy: blocked})
			}
		}
	}
	return want
}

func (m *mesh) differ(got, want fates) string {
	for from := range meshSize {
		for to := range 2 * meshSize {
			if got[from][to] != want[from][to] {
				return fmt.Sprintf("from %d to %s: fate %d, and should be %d", from, m.address(to), got[from][to], want[from][to])
			}
		}
	}
	return "no difference"
}

func randomLayers(r *rand.Rand, seats links.Seats) links.Layers {
	policies := []string{"", "accept", "reject", "drop"}
	groups := []string{"a", "b", "c", "d"}
	network := func() (n pipelines.Network) {
		n.Default.Policy = policies[r.IntN(len(policies))]
		for range r.IntN(6) {
			n.Links = append(n.Links, link(groups[r.IntN(4)], groups[r.IntN(4)], policies[r.IntN(4)]))
		}
		if r.IntN(3) == 0 {
			n.Inbound = []pipelines.Block{{Groups: []string{groups[r.IntN(4)]}, Policy: policies[1+r.IntN(3)]}}
		}
		return n
	}
	layers := links.Layers{Stage: network(), Plans: map[int]links.Plan{}}
	for slot := range seats.Instances {
		if r.IntN(3) > 0 {
			continue
		}
		var p links.Plan
		for range r.IntN(5) {
			to := netip.PrefixFrom(seats.Instances[r.IntN(meshSize)].Data, 24+r.IntN(9))
			if r.IntN(3) == 0 {
				to = netip.PrefixFrom(seats.Instances[r.IntN(meshSize)].Data6, 120+r.IntN(9))
			}
			p.Rules = append(p.Rules, links.Rule{To: to, Shape: links.Shape{Shape: pipelines.Shape{Policy: policies[r.IntN(4)]}}})
		}
		layers.Plans[slot] = p
	}
	if r.IntN(2) == 0 {
		layers.Events = []links.Event{{Name: "e", Network: network()}}
	}
	return layers
}
