//go:build linux

package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/events"
)

const (
	here  = 8 // instances on the node whose keeper is killed
	there = 2 // on another node, which is only played
)

// patient is a program that says how often it was started, and ends well once it may.
func (s *successor) patient() control.Group {
	return shell("g", here+there, fmt.Sprintf(`echo "start ${GROUNDPLAN_STARTS:-1}"; while ! [ -e %s/go ]; do sleep 0.02; done; %s`, s.folder, success))
}

func (s *successor) placement() control.Placement {
	ask := placement(s.patient())
	ask.Node = &control.Node{Name: "one", Lead: true, Nodes: []control.Peer{{Name: "one", Slots: [][2]int{{0, here - 1}}}, {Name: "two", Slots: [][2]int{{here, here + there - 1}}}}}
	for slot := range here {
		ask.Node.Pods = append(ask.Node.Pods, control.Pod{Slot: slot, UID: fmt.Sprint(slot), Name: fmt.Sprint("pod-", slot)})
	}
	return ask
}

// playOther has the other node of a stage be at the gate, over, and know of every move.
func (s *successor) playOther(key string) {
	for _, state := range []string{"gate:two", "ended:two"} {
		_ = s.world.signals.Signal(s.t.Context(), "groundplan:"+key, state, 1)
	}
	_, _ = s.world.signals.Publish(s.t.Context(), "groundplan:"+key, topicMoved, json.RawMessage(`{"node":"two","upto":1000000}`))
}

// insist asks until somebody answers, of whichever keeper lives then. While none does, it is as if the call was on its way.
func insist[R any](s *successor, ask func(ctx context.Context) (R, error)) (reply R) {
	s.t.Helper()
	until := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
		reply, err := ask(ctx)
		cancel()
		if err == nil {
			return reply
		}
		if refused := new(control.Error); errors.As(err, &refused) && refused.Status < 500 || time.Now().After(until) {
			log, _ := os.ReadFile(filepath.Join(string(s.folder), "log"))
			s.t.Fatalf("%v\n%s", err, log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// observe tells the keeper what an instance has published, until one has heard of it.
func (s *successor) observe(o Observation) {
	document, err := json.Marshal(o)
	if err != nil {
		s.t.Error(err)
		return
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(string(s.folder), "observe.sock"))
	}}}
	for s.t.Context().Err() == nil {
		reply, err := client.Post("http://keeper/", "application/json", bytes.NewReader(document))
		if err == nil {
			_ = reply.Body.Close()
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// steps are what was noted down of a stage.
func (s *successor) steps(key string) []step {
	all, err := readLines[step](stepsPath(s.folder, key))
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// eventually waits until something is so.
func (s *successor) eventually(what string, so func() bool) {
	s.t.Helper()
	for until := time.Now().Add(time.Minute); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			log, _ := os.ReadFile(filepath.Join(string(s.folder), "log"))
			s.t.Fatalf("waited in vain for this: %s\n%s", what, log)
		}
	}
}

// isOpen says whether a stage's gate has opened.
func (s *successor) isOpen(key string) bool {
	return slices.ContainsFunc(s.steps(key), func(what step) bool { return !what.Opened.IsZero() })
}

// over says whether an event is over, or has begun where it has no end.
func (s *successor) over(key, event string, ends bool) bool {
	return slices.ContainsFunc(s.steps(key), func(what step) bool {
		return ends && what.Ended != nil && what.Ended.Event == event || !ends && what.Began != nil && what.Began.Event == event
	})
}

// eventsOfAll do something to everything that a keeper has to know of to go on.
var eventsOfAll = []pipelines.Event{
	{Name: "split", At: after(50 * ms), For: 500 * ms, Network: &pipelines.Network{}},
	{Name: "churn", At: after(100 * ms), Kill: some("g", 4), Restart: 150 * ms},
	{Name: "nap", At: pipelines.Anchor{Event: "churn", Healed: true}, Pause: &pipelines.Choice{Group: "g", Count: 4, For: 150 * ms}},
	{Name: "fell", At: pipelines.Anchor{Event: "nap", Healed: true, Offset: 20 * ms}, Kill: some("g", 3)},
}

// drawn are the instances here that an event chooses.
func drawn(stage, event string, count int) map[string]bool {
	var all []int
	for i := range here + there {
		all = append(all, i)
	}
	names := map[string]bool{}
	for _, i := range (events.Draw{Seed: 7, Stage: stage, Event: event}).Choose(*some("g", count), len(all), all) {
		if i < here {
			names[fmt.Sprintf("g/%d", i)] = true
		}
	}
	return names
}

// TestKilledAtAnyMoment kills keepers at random moments of a run stage, with SIGKILL. Another goes on each time, and in the
// end nothing has happened twice, or not at all.
func TestKilledAtAnyMoment(t *testing.T) {
	kills, lives := 30, 6 // kills of one run
	if testing.Short() {
		kills = 6
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for run := range kills / lives {
		s := newSuccessor(t, here)
		key := fmt.Sprintf("k/%d", run)
		s.playOther(key)
		s.begin()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range lives {
				time.Sleep(time.Duration(random.IntN(350)) * time.Millisecond)
				s.kill()
				s.begin()
			}
		}()
		s.carryOut(key)
		<-done
		s.check(key)
		insist(s, s.client.Release)
	}
}

// carryOut has a stage run to its end.
func (s *successor) carryOut(key string) {
	ask := s.placement()
	insist(s, func(ctx context.Context) (control.Status, error) { return s.client.Place(ctx, ask) })
	net := control.Network{Key: "wan-1", Stage: "wan", State: pipelines.Network{Access: "none", Verify: pipelines.Verify{Pairs: 5}}}
	insist(s, func(ctx context.Context) (control.NetworkReply, error) { return s.client.Network(ctx, net) })
	stage := control.RunStage{Stage: "lookups", Groups: []string{"g"}, Seed: 7, Events: eventsOfAll, Deadline: time.Now().Add(2 * time.Minute)}
	insist(s, func(ctx context.Context) (control.RunStatus, error) { return s.client.Open(ctx, key, stage) })
	s.eventually("the gate opens", func() bool { return s.isOpen(key) })
	for slot := range here { // some of them are down just now, or will be
		s.observe(Observation{
			Client: fmt.Sprintf("g/%d", slot), Space: key, Topic: keys + "topics:network:" + fmt.Sprintf("g-%d", slot), Seq: 1,
			Payload: []byte(fmt.Sprintf(`{"enable":true,"IPv4":"10.0.5.%d/16","callback_state":"configured"}`, slot+1)),
		})
	}
	s.eventually("events happen", func() bool { return s.over(key, "split", true) && s.over(key, "fell", false) })
	if err := os.WriteFile(filepath.Join(string(s.folder), "go"), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
	status := insist(s, func(ctx context.Context) (control.RunStatus, error) {
		status, err := s.client.Wait(ctx, key, 0, 0)
		if err == nil && !status.Done {
			err = errors.New("the stage goes on")
		}
		return status, err
	})
	fallen := len(drawn("lookups", "fell", 3))
	if g := status.Groups["g"]; status.Fault != "" || g.Total != here || g.Killed != fallen || g.Succeeded != here-fallen || g.Failed+g.Crashed+g.Silent+g.Running != 0 {
		log, _ := os.ReadFile(filepath.Join(string(s.folder), "log"))
		s.t.Errorf("%+v\n%+v\n%s", status, status.FirstFailure, log)
	}
}

// check looks at what a run has left.
func (s *successor) check(key string) {
	t := s.t
	churned, fallen := drawn("lookups", "churn", 4), drawn("lookups", "fell", 3)
	results, err := readLines[control.Instance](s.folder.Stage("lookups"))
	if err != nil || len(results) != here {
		t.Errorf("%d results, %v", len(results), err)
	}
	for _, r := range results {
		name := fmt.Sprintf("%s/%d", r.Group, r.Index)
		want, starts, said := control.OutcomeSucceeded, 0, "start 1\n"
		if fallen[name] {
			want = control.OutcomeKilled
		}
		if churned[name] {
			starts, said = 2, "start 1\nstart 2\n"
		}
		if r.Outcome != want || r.Starts != starts {
			t.Errorf("%s: %+v", name, r)
		}
		out, err := os.ReadFile(filepath.Join(s.folder.Outputs("g", r.Index), "stdout.log"))
		if err != nil || !strings.HasPrefix(string(out), said) || strings.Count(string(out), "start") != strings.Count(said, "start") {
			t.Errorf("%s wrote %q", name, out)
		}
	}
	s.world.mu.Lock()
	if len(s.world.standing) > 0 || len(s.world.configs) > 0 || s.world.stage != "none" {
		t.Errorf("in force: %v %v %q", s.world.standing, s.world.configs, s.world.stage)
	}
	s.world.mu.Unlock()
	// Of those that were down when they asked, nobody heard. Signalled for all at once, and killed before that was noted, the
	// network may be told to be ready twice: more than all are as good as all.
	for state, bounds := range map[string][2]int64{"network-initialized": {here, 2 * here}, "configured": {1, here}} {
		if n := s.world.signals.count(key, keys+"states:"+state); n < bounds[0] || n > bounds[1] {
			t.Errorf("%s was signalled %d times, want %v", state, n, bounds)
		}
	}
	counts := map[string]int{}
	lines, err := s.folder.ReadEvents()
	if err != nil {
		t.Error(err)
	}
	for _, line := range lines {
		if line.Event != "" || line.Kind == runs.KindStageClosed {
			counts[line.Kind+" "+line.Event]++
		}
	}
	for what, n := range counts {
		if n != 1 {
			t.Errorf("%s was told %d times", what, n)
		}
	}
	if left := alive(t, string(s.folder)+"/go"); len(left) > 0 {
		t.Errorf("still alive: %v", left)
	}
}

// TestGoesOn kills a keeper where it is known what it has done.
func TestGoesOn(t *testing.T) {
	s := newSuccessor(t, here)
	s.playOther("k1")
	s.begin()
	ask := s.placement()
	insist(s, func(ctx context.Context) (control.Status, error) { return s.client.Place(ctx, ask) })
	net := control.Network{Key: "wan-1", Stage: "wan", State: pipelines.Network{Access: "none", Verify: pipelines.Verify{Pairs: 5}}}
	insist(s, func(ctx context.Context) (control.NetworkReply, error) { return s.client.Network(ctx, net) })
	stage := control.RunStage{Stage: "lookups", Groups: []string{"g"}, Seed: 7, Deadline: time.Now().Add(time.Minute), Events: []pipelines.Event{
		{Name: "split", At: after(10 * ms), Network: &pipelines.Network{}},
		{Name: "nap", At: after(10 * ms), Pause: &pipelines.Choice{Group: "g", Indices: []int{3}, For: 3600000 * ms}},
		{Name: "fell", At: after(10 * ms), Kill: &pipelines.Choice{Group: "g", Indices: []int{4}}},
	}}
	opened := insist(s, func(ctx context.Context) (control.RunStatus, error) { return s.client.Open(ctx, "k1", stage) })
	for _, event := range []string{"split", "nap", "fell"} {
		s.eventually(event+" happens", func() bool { return s.over("k1", event, false) })
	}
	s.observe(Observation{Client: "g/0", Space: "k1", Topic: keys + "topics:network:g-0", Seq: 1, Payload: []byte(`{"enable":true,"IPv4":"10.0.5.1/16","callback_state":"configured"}`)})
	s.observe(Observation{Client: "g/1", Space: "k1", Topic: keys + "run_events", Payload: []byte(`{"success_event":{}}`)})
	if err := s.world.signals.Barrier(t.Context(), "k1", keys+"states:configured", 1); err != nil {
		t.Fatal(err)
	}
	_, _ = s.world.signals.Publish(t.Context(), "groundplan:k1", topicMoves, json.RawMessage(`{"node":"two","slot":9,"address":"10.0.5.9/16"}`))
	s.eventually("that is noted", func() bool {
		return slices.ContainsFunc(s.steps("k1"), func(what step) bool { return what.Applied != nil }) &&
			slices.ContainsFunc(s.steps("k1"), func(what step) bool { return what.Took != nil })
	})
	if err := s.world.programs.Signal(2, unix.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	s.eventually("g/2 and g/4 are over", func() bool { return s.lines() == 2 })
	s.kill()
	if err := s.world.programs.Signal(5, unix.SIGSEGV); err != nil { // while nobody looks
		t.Fatal(err)
	}
	s.begin()

	status := insist(s, func(ctx context.Context) (control.RunStatus, error) {
		status, err := s.client.Wait(ctx, "k1", opened.Version+100, time.Minute)
		if g := status.Groups["g"]; err == nil && (g.Running != 5 || g.Crashed != 2) {
			err = errors.New("not yet")
		}
		return status, err
	})
	if g := status.Groups["g"]; g.Killed != 1 || !status.Started.Equal(opened.Started) || status.Event == "" || status.FirstFailure == nil {
		t.Errorf("%+v", status)
	}
	placed := insist(s, s.client.Status)
	if placed.Groups["g"].Placed != here {
		t.Errorf("%+v", placed)
	}
	s.world.mu.Lock()
	if !slices.Equal(s.world.standing, []string{"lookups/split"}) || s.world.configs[0].String() != "10.0.5.1/16" || s.world.configs[9].String() != "10.0.5.9/16" || s.world.held || s.world.stage != "none" {
		t.Errorf("in force: %v %v %q", s.world.standing, s.world.configs, s.world.stage)
	}
	s.world.mu.Unlock()
	if n, _ := stopped(t, string(s.folder)+"/go"); n == 0 {
		t.Error("what an event has stopped was let go")
	}
	reply := insist(s, func(ctx context.Context) (control.NetworkReply, error) { return s.client.Network(ctx, net) })
	if reply.Proof == nil || s.world.proofs != 1 {
		t.Errorf("%+v, proved %d times", reply, s.world.proofs)
	}
	s.observe(Observation{Client: "g/0", Space: "k1", Topic: keys + "topics:network:g-0", Seq: 1, Payload: []byte(`{"enable":true,"IPv4":"10.0.5.1/16","callback_state":"configured"}`)})

	halted := insist(s, func(ctx context.Context) (control.RunStatus, error) { return s.client.Halt(ctx, "k1") })
	if g := halted.Groups["g"]; !halted.Halted || halted.Unfinished != 4 || g.Succeeded != 1 || g.Failed != 4 || g.Crashed != 2 || g.Killed != 1 {
		t.Errorf("%+v", halted)
	}
	if n := s.world.signals.count("k1", keys+"states:configured"); n != 1 {
		t.Errorf("the plan was told %d times", n)
	}
	s.kill()
	s.begin()
	again := insist(s, func(ctx context.Context) (control.RunStatus, error) { return s.client.Wait(ctx, "k1", 0, 0) })
	if again.Ended.IsZero() || !again.Ended.Equal(halted.Ended) || again.Unfinished != 4 || again.Version != halted.Version {
		t.Errorf("%+v\n%+v", again, halted)
	}
	insist(s, func(ctx context.Context) (control.RunStatus, error) { return s.client.Halt(ctx, "k1") })
	if status := insist(s, s.client.Release); status.Groups["g"].Running != 0 {
		t.Errorf("%+v", status)
	}
}

// lines counts the results of the stage.
func (s *successor) lines() int {
	all, err := readLines[control.Instance](s.folder.Stage("lookups"))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(all)
}

// TestGoesOnAfterItsTime has the deadline pass, and a halt be cut off, while no keeper is there.
func TestGoesOnAfterItsTime(t *testing.T) {
	s := newSuccessor(t, here)
	s.playOther("k1")
	s.begin()
	insist(s, func(ctx context.Context) (control.Status, error) { return s.client.Place(ctx, s.placement()) })
	stage := control.RunStage{Stage: "lookups", Groups: []string{"g"}, Deadline: time.Now().Add(5 * time.Second)}
	insist(s, func(ctx context.Context) (control.RunStatus, error) { return s.client.Open(ctx, "k1", stage) })
	s.eventually("the gate opens", func() bool { return s.isOpen("k1") })
	s.kill()
	time.Sleep(time.Until(stage.Deadline))
	s.begin()
	status := insist(s, func(ctx context.Context) (control.RunStatus, error) {
		status, err := s.client.Wait(ctx, "k1", 0, 0)
		if err == nil && !status.Done {
			err = errors.New("not yet")
		}
		return status, err
	})
	if !status.TimedOut || status.Unfinished != here || status.Fault != "" {
		t.Errorf("%+v", status)
	}
	insist(s, s.client.Release)
}

// TestStoppedBefore goes on with a stage that another keeper was about to end.
func TestStoppedBefore(t *testing.T) {
	s := newSuccessor(t, here)
	s.playOther("k1")
	s.begin()
	insist(s, func(ctx context.Context) (control.Status, error) { return s.client.Place(ctx, s.placement()) })
	stage := control.RunStage{Stage: "lookups", Groups: []string{"g"}, Deadline: time.Now().Add(time.Hour)}
	insist(s, func(ctx context.Context) (control.RunStatus, error) { return s.client.Open(ctx, "k1", stage) })
	s.eventually("the gate opens", func() bool { return s.isOpen("k1") })
	s.kill()
	j, err := openJournal(stepsPath(s.folder, "k1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.write(step{Stopped: causeHalted}), j.close()); err != nil {
		t.Fatal(err)
	}
	for slot := range 3 { // it had come to those
		if err := s.world.programs.Signal(slot, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	s.begin()
	status := insist(s, func(ctx context.Context) (control.RunStatus, error) {
		status, err := s.client.Wait(ctx, "k1", 0, 0)
		if err == nil && !status.Done {
			err = errors.New("not yet")
		}
		return status, err
	})
	if !status.Halted || status.Unfinished != here || status.Groups["g"].Failed != here || status.Fault != "" {
		t.Errorf("%+v", status)
	}
	insist(s, s.client.Release)
}

func TestNothingToGoOnWith(t *testing.T) {
	folder := runs.Home(t.TempDir()).Run("run-1")
	if err := os.MkdirAll(string(folder), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(askedPath(folder), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := New(Options{Folder: folder, Network: newFakeNetwork(), Shaping: &fakeShaping{}, Sync: newFakeSync(), Adopt: true})
	if err == nil || !strings.HasPrefix(err.Error(), "reading what the run's sidecar was asked for before: ") {
		t.Error(err)
	}
}
