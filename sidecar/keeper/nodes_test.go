//go:build linux

package keeper

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// cluster is some nodes, each with a keeper. The first leads.
type cluster struct {
	t       *testing.T
	nodes   []*bench
	signals *fakeSync
	slots   [][]int // by node
	uids    map[int]string
	groups  []control.Group
}

// newCluster spreads groups over nodes: slots are those of each node.
func newCluster(t *testing.T, slots [][]int, groups ...control.Group) *cluster {
	t.Helper()
	c := &cluster{t: t, signals: newFakeSync(), slots: slots, uids: map[int]string{}, groups: groups}
	for range slots {
		c.nodes = append(c.nodes, newBenchWith(t, c.signals))
	}
	for node := range slots {
		c.place(node)
	}
	return c
}

func nodeName(n int) string { return fmt.Sprintf("node-%d", n) }

// ask is a node's placement.
func (c *cluster) ask(node int) control.Placement {
	ask := placement(c.groups...)
	ask.Node = &control.Node{Name: nodeName(node), Lead: node == 0}
	for _, slot := range c.slots[node] {
		ask.Node.Pods = append(ask.Node.Pods, control.Pod{Slot: slot, UID: "uid-" + c.uids[slot], Name: fmt.Sprintf("pod-%d", slot)})
	}
	for i := range c.slots {
		peer := control.Peer{Name: nodeName(i), Address: netip.AddrFrom4([4]byte{192, 168, 0, byte(i + 1)})}
		for _, slot := range c.slots[i] {
			peer.Slots = append(peer.Slots, [2]int{slot, slot})
		}
		ask.Node.Nodes = append(ask.Node.Nodes, peer)
	}
	return ask
}

func (c *cluster) place(node int) control.Status {
	c.t.Helper()
	status, err := c.nodes[node].Place(c.t.Context(), c.ask(node))
	if err != nil {
		c.t.Fatal(err)
	}
	return status
}

func (c *cluster) open(key string, ask control.RunStage) {
	c.t.Helper()
	for _, b := range c.nodes {
		b.open(key, ask)
	}
}

func (c *cluster) end(key string) []control.RunStatus {
	c.t.Helper()
	var all []control.RunStatus
	for _, b := range c.nodes {
		all = append(all, b.end(key))
	}
	return all
}

// total sums the counts of a group over nodes.
func total(all []control.RunStatus, group string) control.Counts {
	var sum control.Counts
	for _, s := range all {
		c := s.Groups[group]
		sum.Total += c.Total
		sum.Placed += c.Placed
		sum.Running += c.Running
		sum.Succeeded += c.Succeeded
		sum.Failed += c.Failed
		sum.Crashed += c.Crashed
		sum.Silent += c.Silent
		sum.Killed += c.Killed
	}
	return sum
}

func TestCountsAndGateOverNodes(t *testing.T) {
	c := newCluster(t, [][]int{{0, 3}, {1, 2, 4}, {5}},
		shell("a", 4, `sleep 0.2; echo "$TEST_INSTANCE_COUNT $TEST_GROUP_INSTANCE_COUNT ${LANG-none} $HOSTNAME"; `+success), shell("b", 2, "sleep 0.2; "+success))
	for i, want := range []int{2, 3, 1} {
		status, err := c.nodes[i].Status(t.Context())
		if n := status.Groups["a"].Placed + status.Groups["b"].Placed; err != nil || n != want || status.Groups["a"].Total+status.Groups["b"].Total != want {
			t.Errorf("node %d: %+v, %v", i, status, err)
		}
		if len(c.nodes[i].network.peers) != 3 || c.nodes[i].network.peers[1].Slots[2] != [2]int{4, 4} {
			t.Errorf("node %d: peers %+v", i, c.nodes[i].network.peers)
		}
	}
	ask := control.RunStage{Groups: []string{"a", "b"}}
	c.nodes[0].open("k1", ask)
	c.nodes[1].open("k1", ask)
	c.nodes[1].until("k1", func(s control.RunStatus) bool { return s.Groups["a"].Running+s.Groups["b"].Running == 3 })
	time.Sleep(100 * time.Millisecond)
	if out := c.nodes[0].output("a", 0, "stdout.log"); out != "" {
		t.Errorf("the gate has opened before all nodes were there: %q", out)
	}
	c.nodes[2].open("k1", ask)
	all := c.end("k1")
	if a, b := total(all, "a"), total(all, "b"); a != (control.Counts{Total: 4, Placed: 4, Succeeded: 4}) || b.Succeeded != 2 {
		t.Errorf("%+v %+v", a, b)
	}
	if out := c.nodes[1].output("a", 2, "stdout.log"); !strings.HasPrefix(out, "6 4 none a-2\n") {
		t.Errorf("%q", out)
	}
	if n := c.signals.count("k1", "run:run-1:plan:plan:case::states:network-initialized"); n != 6 {
		t.Errorf("network-initialized was signalled %d times", n)
	}
	for i, b := range c.nodes {
		kinds := map[string]int{}
		events, err := b.folder.ReadEvents()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			kinds[e.Kind]++
		}
		want := map[string]int{"sidecar-started": 1}
		if i == 0 {
			want["stage-opened"], want["stage-closed"] = 1, 1
		}
		if !maps.Equal(kinds, want) {
			t.Errorf("node %d: %v", i, kinds)
		}
	}
}

// TestStageStaysOpenOnEveryNode has one node without members, and one whose members end early: what an event asks of the
// network is in force on all until the last has ended.
func TestStageStaysOpenOnEveryNode(t *testing.T) {
	c := newCluster(t, [][]int{{0}, {1}, {2}}, shell("quick", 1, success), shell("slow", 1, "while ! [ -e go ]; do sleep 0.02; done; "+success), shell("other", 1, success))
	change := &pipelines.Network{Default: pipelines.Shape{Policy: "drop"}}
	c.open("k1", control.RunStage{Groups: []string{"quick", "slow"}, Events: []pipelines.Event{
		{Name: "split", At: pipelines.Anchor{State: "all-there"}, Network: change},
	}})
	c.nodes[0].until("k1", func(s control.RunStatus) bool { return s.Groups["quick"].Succeeded == 1 })
	if err := c.signals.Signal(t.Context(), "k1", "run:run-1:plan:plan:case::states:all-there", 2); err != nil {
		t.Fatal(err)
	}
	for i, b := range c.nodes {
		for len(b.shaping.called("Begin lookups/split")) == 0 {
			time.Sleep(time.Millisecond)
		}
		if s, err := b.Wait(t.Context(), "k1", 0, 0); err != nil || s.Done {
			t.Errorf("node %d: %+v, %v", i, s, err)
		}
	}
	if _, err := c.nodes[0].Open(t.Context(), "k2", control.RunStage{Stage: "s", Groups: []string{"quick"}}); err == nil {
		t.Error("an instance was given to a second stage while the first is open elsewhere")
	}
	if err := os.WriteFile(filepath.Join(c.nodes[1].folder.Temp("slow", 0), "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for i, s := range c.end("k1") {
		if s.Fault != "" || s.TimedOut || s.Halted || len(s.Missed) > 0 || s.Event != "" != (i == 0) {
			t.Errorf("node %d: %+v", i, s)
		}
		if len(c.nodes[i].shaping.standing) > 0 || len(c.nodes[i].shaping.called("End")) != 1 {
			t.Errorf("node %d: %q", i, c.nodes[i].shaping.calls)
		}
		if n := len(c.nodes[i].happened()); n != 0 && i > 0 || n != 2 && i == 0 {
			t.Errorf("node %d told %d lines about events", i, n)
		}
	}
}

// TestNodesThatAreHalted halts one that has no members and one that waits for the others: neither says that it cut anything
// off.
func TestNodesThatAreHalted(t *testing.T) {
	c := newCluster(t, [][]int{{0}, {1}, {2}}, shell("quick", 1, success), shell("slow", 1, "sleep 7571"), shell("other", 1, ""))
	c.open("k1", control.RunStage{Groups: []string{"quick", "slow"}, Deadline: time.Now().Add(time.Minute)})
	c.nodes[0].until("k1", func(s control.RunStatus) bool { return s.Groups["quick"].Succeeded == 1 })
	c.nodes[1].until("k1", func(s control.RunStatus) bool { return s.Groups["slow"].Running == 1 })
	for _, i := range []int{2, 1, 0} {
		began := time.Now()
		status, err := c.nodes[i].Halt(t.Context(), "k1")
		if err != nil || !status.Done || status.Halted != (i == 1) || status.Fault != "" {
			t.Errorf("node %d: %+v, %v", i, status, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("halting node %d took %v", i, took)
		}
	}
}

// TestDeadlineAtTheGate has a node never come: the others give up when their time is over.
func TestDeadlineAtTheGate(t *testing.T) {
	c := newCluster(t, [][]int{{0}, {1}}, shell("a", 2, "sleep 0.2; echo started"))
	c.nodes[0].open("k1", control.RunStage{Groups: []string{"a"}, Deadline: time.Now().Add(300 * time.Millisecond)})
	if s := c.nodes[0].end("k1"); !s.TimedOut || s.Unfinished != 1 || s.Fault != "" {
		t.Errorf("%+v", s)
	}
	if out := c.nodes[0].output("a", 0, "stdout.log"); out != "" {
		t.Errorf("it was let go: %q", out)
	}
}

func TestDrawsOverNodes(t *testing.T) {
	c := newCluster(t, [][]int{{0, 3, 6}, {1, 4, 7}, {2, 5, 8, 9}}, shell("a", 10, `[ "$GROUNDPLAN_STARTS" = 2 ] && { `+success+`exit; }; sleep 3; `+success))
	c.open("k1", control.RunStage{Groups: []string{"a"}, Seed: 7, Events: []pipelines.Event{
		{Name: "fell", At: after(100 * ms), Kill: some("a", 4)},
		{Name: "churn", At: after(300 * ms), Kill: some("a", 4), Restart: 100 * ms},
		{Name: "nap", At: after(500 * ms), Pause: &pipelines.Choice{Group: "a", Count: 3, For: 100 * ms}},
	}})
	all := c.end("k1")
	if a := total(all, "a"); a.Killed != 4 || a.Succeeded != 6 {
		t.Errorf("%+v", a)
	}
	var lines []string
	for _, e := range c.nodes[0].happened() {
		lines = append(lines, e.Text)
		if e.Event == "fell" {
			for _, name := range e.Instances {
				found := ""
				for _, b := range c.nodes {
					found += b.results("lookups")[name].Outcome
				}
				if found != control.OutcomeKilled {
					t.Errorf("%s: %q", name, found)
				}
			}
		}
	}
	if !strings.HasPrefix(lines[0], "the event fell killed what still ran of 4 chosen instances: a/") || len(lines) != 5 {
		t.Errorf("%s", strings.Join(lines, "\n"))
	}
	if n := len(c.nodes[1].happened()) + len(c.nodes[2].happened()); n > 0 {
		t.Errorf("%d lines from nodes that don't lead", n)
	}
	again := 0
	for _, b := range c.nodes {
		for _, r := range b.results("lookups") {
			if r.Starts == 2 {
				again++
			}
		}
	}
	if again == 0 || again > 4 {
		t.Errorf("%d were started again", again)
	}
}

func TestMovesOverNodes(t *testing.T) {
	c := newCluster(t, [][]int{{0}, {1}, {2}}, shell("a", 3, "while ! [ -e go ]; do sleep 0.02; done; "+success))
	c.open("k1", control.RunStage{Groups: []string{"a"}})
	for _, b := range c.nodes {
		b.until("k1", func(s control.RunStatus) bool { return s.Groups["a"].Running == 1 })
	}
	c.nodes[2].shaping.hold = make(chan struct{})
	c.nodes[0].configure("k1", "a-0", `{"enable":true,"IPv4":"10.0.7.7/16","callback_state":"moved"}`)
	for len(c.nodes[2].shaping.called("Move")) == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	if n := c.signals.count("k1", keys+"states:moved"); n != 0 {
		t.Error("the plan was told before all nodes knew")
	}
	close(c.nodes[2].shaping.hold)
	if err := c.signals.Barrier(t.Context(), "k1", keys+"states:moved", 1); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "10.0.7.7/16", "10.0.7.7/16"} {
		s := c.nodes[i].shaping
		s.mu.Lock()
		if got := s.moved[0]; got.IsValid() != (want != "") || want != "" && got.String() != want {
			t.Errorf("node %d: %v", i, s.moved)
		}
		s.mu.Unlock()
	}
	c.nodes[0].configure("k1", "a-0", `{"enable":false,"callback_state":"off"}`) // no move
	if err := c.signals.Barrier(t.Context(), "k1", keys+"states:off", 1); err != nil {
		t.Fatal(err)
	}
	for i, b := range c.nodes {
		if err := os.WriteFile(filepath.Join(b.folder.Temp("a", i), "go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range c.end("k1") {
		calls := c.nodes[i].shaping.called("Move")
		if want := []string{"Move 0 10.0.7.7/16", "Move 0 invalid Prefix"}; s.Fault != "" || i > 0 && !slices.Equal(calls, want) || i == 0 && len(calls) > 0 {
			t.Errorf("node %d: %q %+v", i, calls, s)
		}
	}
}

// TestMovesOfMany has all of many instances move at once.
func TestMovesOfMany(t *testing.T) {
	const count = 60
	slots := make([][]int, 3)
	for slot := range count {
		slots[slot%3] = append(slots[slot%3], slot)
	}
	c := newCluster(t, slots, shell("a", count, "sleep 7572"))
	c.open("k1", control.RunStage{Groups: []string{"a"}})
	for _, b := range c.nodes {
		b.until("k1", func(s control.RunStatus) bool { return s.Groups["a"].Running == count/3 })
	}
	for slot := range count {
		c.nodes[slot%3].configure("k1", fmt.Sprintf("a-%d", slot), fmt.Sprintf(`{"enable":true,"IPv4":"10.0.9.%d/16","callback_state":"moved"}`, slot+1))
	}
	if err := c.signals.Barrier(t.Context(), "k1", keys+"states:moved", count); err != nil {
		t.Fatal(err)
	}
	for i, b := range c.nodes {
		if n := len(b.shaping.moved); n != count*2/3 {
			t.Errorf("node %d knows of %d moves", i, n)
		}
	}
	for i, b := range c.nodes {
		if s, err := b.Halt(t.Context(), "k1"); err != nil || s.Fault != "" || len(b.shaping.moved) > 0 {
			t.Errorf("node %d: %+v, %v, %v", i, s, err, b.shaping.moved)
		}
	}
}

func TestLostInstances(t *testing.T) {
	c := newCluster(t, [][]int{{0, 1, 2, 3}, {4, 5}}, shell("a", 6, "sleep 7573"))
	b := c.nodes[0]
	c.open("k1", control.RunStage{Groups: []string{"a"}, Deadline: time.Now().Add(time.Hour)})
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["a"].Running == 4 })
	b.programs.lose(1, "its pod was evicted")
	b.programs.lose(3, "its pod was evicted")
	status := b.end("k1")
	if status.Lost < 1 || status.Lost > 2 || !strings.Contains(status.Fault, "a/1 (its pod was evicted)") || status.TimedOut || status.Halted ||
		status.Groups["a"].Running != 0 || status.Groups["a"].Failed+status.Lost != 4 {
		t.Errorf("%+v", status)
	}
	if n := len(b.results("lookups")); n != 4-status.Lost {
		t.Errorf("%d results", n)
	}
	if len(alive(t, "7573")) == 0 {
		t.Error("the other node's were ended too")
	}
	if s, err := c.nodes[1].Halt(t.Context(), "k1"); err != nil || !s.Halted {
		t.Errorf("%+v, %v", s, err)
	}

	if _, err := b.Open(t.Context(), "k2", control.RunStage{Stage: "s", Groups: []string{"a"}}); err == nil || err.Error() != "a/1 has not been placed" {
		t.Errorf("opening without it: %v", err)
	}
	b.Gone(3, "uid-", "its pod was evicted")
	b.programs.revive(1)
	b.programs.revive(3)
	c.uids[1], c.uids[3] = "new", "new"
	b.network.added = nil
	placed := c.place(0)
	if slices.Sort(b.network.added); placed.New != 2 || placed.Kept != 2 || !slices.Equal(b.network.added, []int{1, 3}) {
		t.Errorf("%+v, added %v", placed, b.network.added)
	}
	if home := b.programs.placed[len(b.programs.placed)-1]; home.Pod.UID != "uid-new" {
		t.Errorf("%+v", home)
	}
	c.place(1)
	c.open("k3", control.RunStage{Groups: []string{"a"}})
	b.until("k3", func(s control.RunStatus) bool { return s.Groups["a"].Running == 4 })
	for _, b := range c.nodes {
		if _, err := b.Halt(t.Context(), "k3"); err != nil {
			t.Error(err)
		}
	}
}

// TestLostBeforeItsStart has pods go before the stage, unnoticed; and while nothing runs, noticed.
func TestLostBeforeItsStart(t *testing.T) {
	c := newCluster(t, [][]int{{0, 1}}, shell("a", 2, "sleep 7574"))
	b := c.nodes[0]
	b.programs.gone[0] = "its node is gone"
	status := b.run("k1", control.RunStage{Groups: []string{"a"}})
	if status.Lost != 1 || status.Fault != "1 instance is lost: a/0 (its node is gone)" {
		t.Errorf("%+v", status)
	}
	b.Gone(1, "uid-other", "of an earlier pod")
	b.Gone(1, "uid-", "its pod was deleted")
	if s, err := b.Status(t.Context()); err != nil || s.Groups["a"].Placed != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	var said []string
	events, err := b.folder.ReadEvents()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == "instance-lost" {
			said = append(said, e.Text)
		}
	}
	if want := []string{"a/0 is lost: its node is gone", "a/1 is lost: its pod was deleted"}; !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
}

func TestPlacementsOverNodes(t *testing.T) {
	c := newCluster(t, [][]int{{0, 1}, {2}}, shell("a", 3, "sleep 7575"))
	b := c.nodes[0]
	ask := c.ask(0)
	ask.Node.Name = "elsewhere"
	if _, err := b.Place(t.Context(), ask); err == nil || err.Error() != `node "elsewhere" is not among the nodes that hold instances of the run` {
		t.Error(err)
	}
	ask = c.ask(0)
	ask.Node.Pods[0].Slot = 3
	if _, err := b.Place(t.Context(), ask); err == nil || err.Error() != "pod pod-0 is for slot 3: there are 3 instances" {
		t.Error(err)
	}
	c.open("k1", control.RunStage{Groups: []string{"a"}})
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["a"].Running == 2 })
	c.uids[1] = "new"
	if _, err := b.Place(t.Context(), c.ask(0)); err == nil || err.Error() != "a/1 still runs in stage lookups: it can't be placed anew" {
		t.Error(err)
	}
	for _, b := range c.nodes {
		if _, err := b.HaltAll(t.Context()); err != nil {
			t.Error(err)
		}
	}
	c.slots = [][]int{{0}, {1, 2}} // a/1 has moved to the other node
	if s := c.place(0); s.New != 0 || s.Kept != 1 || s.Groups["a"].Total != 1 || !slices.Equal(b.programs.forgot, []int{1}) {
		t.Errorf("%+v, forgot %v", s, b.programs.forgot)
	}
	if s := c.place(1); s.New != 1 || s.Kept != 1 {
		t.Errorf("%+v", s)
	}
}

// TestNodesWithoutTheirNetwork has a network that knows of no other nodes.
func TestNodesWithoutTheirNetwork(t *testing.T) {
	b := newBench(t)
	b.Keeper.fabric = struct{ Network }{b.network}
	ask := placement(shell("a", 1, ""))
	ask.Node = &control.Node{Name: "n", Pods: []control.Pod{{Slot: 0}}, Nodes: []control.Peer{{Name: "n"}}}
	if _, err := b.Place(t.Context(), ask); err == nil || err.Error() != "the network of this sidecar can't reach instances on other nodes" {
		t.Error(err)
	}
}
