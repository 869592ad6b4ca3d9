package node_test

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// TestARunOverThreeNodes has instances of three nodes meet, over a network that is shaped between groups, and collects.
func TestARunOverThreeNodes(t *testing.T) {
	inCluster(t, 6, func(c *cluster) {
		began := time.Now()
		if fresh := c.place("r"); fresh != c.instances() {
			c.t.Errorf("%d of %d are new", fresh, c.instances())
		}
		c.t.Logf("placed in %v", time.Since(began))
		c.stage("r", "s1", "together")
		latency := pipelines.Duration(60 * time.Millisecond)
		shape := pipelines.Shape{Latency: &latency}
		state := pipelines.Network{Links: []pipelines.Link{{From: "a", To: "b", Shape: shape}, {From: "b", To: "a", Shape: shape}}}
		state.Verify.Off = true
		c.onEach(func(_ int, m *machine) error {
			reply, err := m.Control("r").Network(c.t.Context(), control.Network{State: state, Key: "n1", Stage: "net", Seed: 7})
			if err == nil && reply.Refused != "" {
				err = fmt.Errorf("refused: %s", reply.Refused)
			}
			return err
		})
		c.stage("r", "s2", "shape")
		files, _ := c.collect("r", "s2")
		for _, group := range []string{"a", "b"} {
			for index := range c.instances() / 2 {
				name := fmt.Sprintf("outputs/%s/%d/stdout.log", group, index)
				if n := strings.Count(files[name], fmt.Sprintf("I am %s/%d\n", group, index)); n != 2 {
					c.t.Errorf("%s: %q", name, files[name])
				}
			}
		}
		for _, m := range c.nodes {
			if info, err := m.info(); err != nil || len(info.Runs) != 1 || info.Runs[0].Restarts != 0 {
				c.t.Errorf("%+v, %v", info, err)
			} else {
				c.t.Logf("the sidecar on %s has %d MiB resident", m.told.Name, info.Runs[0].Memory>>20)
			}
		}
		began = time.Now()
		c.remove("r")
		c.t.Logf("removed in %v", time.Since(began))
	})
}

// TestWhatDiesInTheMiddle kills, while instances meet again and again: an agent with its sidecars, a sidecar, an agent that
// takes its leave; and has Redis away for some seconds. Nothing is lost and nothing is doubled.
func TestWhatDiesInTheMiddle(t *testing.T) {
	const rounds = 100
	inCluster(t, 6, func(c *cluster) {
		c.place("r")
		c.open("r", "s", control.RunStage{Case: "rounds", Params: map[string]string{"rounds": fmt.Sprint(rounds), "pause": "100ms"}})
		for i, fail := range []func(){
			func() { c.nodes[1].kill(syscall.SIGKILL, true); time.Sleep(time.Second); c.nodes[1].startAgent() },
			func() {
				info, err := c.nodes[2].info()
				if err != nil || len(info.Runs) != 1 {
					c.t.Fatalf("%+v, %v", info, err)
				}
				if err := syscall.Kill(info.Runs[0].PID, syscall.SIGKILL); err != nil {
					c.t.Error(err)
				}
			},
			func() { c.redis.set(true); time.Sleep(3 * time.Second); c.redis.set(false) },
			func() { c.nodes[0].kill(syscall.SIGTERM, false); c.nodes[0].startAgent() },
		} {
			time.Sleep(time.Second)
			c.t.Logf("%d: %v", i, time.Now())
			fail()
		}
		c.succeeded("r", "s")
		files, results := c.collect("r", "s")
		c.everyRoundOnce(files, rounds)
		c.t.Logf("%s", files["outputs/a/0/stdout.log"])
		for name, r := range results {
			if r.Outcome != control.OutcomeSucceeded || r.Starts > 1 {
				c.t.Errorf("%s: %+v", name, r)
			}
		}
		if c.t.Failed() {
			return // what the sidecars have said is worth more now
		}
		c.remove("r")
	})
}

// everyRoundOnce checks that each round every instance published once: their numbers are all those that there are.
func (c *cluster) everyRoundOnce(files map[string]string, rounds int) {
	c.t.Helper()
	var all []int
	for _, group := range []string{"a", "b"} {
		for index := range c.instances() / 2 {
			var seqs []int
			name := fmt.Sprintf("outputs/%s/%d/seqs.json", group, index)
			if err := json.Unmarshal([]byte(files[name]), &seqs); err != nil || len(seqs) != rounds || !slices.IsSorted(seqs) {
				c.t.Errorf("%s: %q, %v", name, files[name], err)
			}
			all = append(all, seqs...)
		}
	}
	slices.Sort(all)
	for i, seq := range all {
		if seq != i+1 {
			c.t.Fatalf("number %d of %d is %d: something was lost or doubled", i+1, len(all), seq)
		}
	}
}

// TestAPodThatIsLost has a pod end in the middle of a stage. The stage ends by that and says who is lost; placing again
// makes a place for the pod that has come instead, and the next stage has all.
func TestAPodThatIsLost(t *testing.T) {
	inCluster(t, 2, func(c *cluster) {
		c.place("r")
		c.open("r", "s1", control.RunStage{Case: "sleep"})
		time.Sleep(300 * time.Millisecond)
		began := time.Now()
		if err := c.nodes[1].supervisors[3].Process.Kill(); err != nil {
			c.t.Fatal(err)
		}
		status := control.RunStatus{}
		for !status.Done {
			var err error
			if status, err = c.nodes[1].Control("r").Wait(c.t.Context(), "s1", status.Version, time.Minute); err != nil {
				c.t.Fatal(err)
			}
		}
		c.t.Logf("after %v: %s", time.Since(began), status.Fault)
		if status.Lost != 1 || !strings.Contains(status.Fault, "b/0") {
			c.t.Errorf("%+v", status)
		}
		c.onEach(func(_ int, m *machine) error {
			_, err := m.Control("r").Halt(c.t.Context(), "s1")
			return err
		})
		c.nodes[1].startPod(3)
		if fresh := c.place("r"); fresh != 1 {
			c.t.Errorf("%d are new", fresh)
		}
		c.stage("r", "s2", "together")
		c.remove("r")
	})
}

// TestARemovalThatNobodyHelpsWith removes a run from a node on which its sidecar is dead and can't come back, since Redis
// is away.
func TestARemovalThatNobodyHelpsWith(t *testing.T) {
	inCluster(t, 2, func(c *cluster) {
		c.place("r")
		c.redis.set(true)
		info, err := c.nodes[1].info()
		if err != nil || len(info.Runs) != 1 {
			c.t.Fatalf("%+v, %v", info, err)
		}
		if err := syscall.Kill(info.Runs[0].PID, syscall.SIGKILL); err != nil {
			c.t.Fatal(err)
		}
		began := time.Now()
		c.remove("r")
		c.t.Logf("removed in %v", time.Since(began))
		for slot := range c.instances() { // the kernel takes links away by and by
			for began := time.Now(); c.linked(slot); time.Sleep(10 * time.Millisecond) {
				if time.Since(began) > 20*time.Second {
					c.t.Fatalf("slot %d still has its eth1", slot)
				}
			}
		}
	})
}

// linked says whether a pod has a link into the data network.
func (c *cluster) linked(slot int) (is bool) {
	err := c.Inside(slot, func() error {
		_, err := net.InterfaceByName("eth1")
		is = err == nil
		return nil
	})
	return is && err == nil
}
