package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
)

// peerMain is an instance of the stories below: those of group g answer, those of h ask the one at the parameter peer
// all the time, and write down when an answer came.
func peerMain() int {
	err := serve
	if os.Getenv("TEST_GROUP_ID") != "g" {
		err = askOn
	}
	if err := err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(`{"ts":1,"event":{"success_event":{"group":"g"}}}`)
	return 0
}

// lasts is how long they go on.
const lasts = 4 * time.Second

func serve() error {
	conn, err := net.ListenPacket("udp4", ":7007")
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(lasts)); err != nil {
		return err
	}
	buffer := make([]byte, 64)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return nil // its time is over
		}
		_, _ = conn.WriteTo(buffer[:n], from)
	}
}

func askOn() error {
	_, peer, _ := strings.Cut(os.Getenv("TEST_INSTANCE_PARAMS"), "peer=")
	conn, err := net.Dial("udp4", peer)
	if err != nil {
		return err
	}
	defer conn.Close()
	answers, err := os.Create(filepath.Join(os.Getenv("TEST_OUTPUTS_PATH"), "answers"))
	if err != nil {
		return err
	}
	defer answers.Close()
	buffer := make([]byte, 8)
	for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, _ = conn.Write(buffer)
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := conn.Read(buffer); err == nil {
			if err := binary.Write(answers, binary.BigEndian, time.Now().UnixNano()); err != nil {
				return err
			}
		}
	}
	return nil
}

// peers is a run whose instances are those.
func peers(t *testing.T, counts ...int) *bench {
	t.Helper()
	b := newBench(t, counts...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.in.Artifacts = map[string]stage.Artifact{"plan": {Name: "plan", Path: self, Args: []string{"peer"}}}
	return b
}

// split cuts the two groups apart, a second after the start, for a second.
func split() pipelines.Event {
	drop := pipelines.Shape{Policy: "drop"}
	return pipelines.Event{
		Name: "split", At: pipelines.Anchor{Offset: pipelines.Duration(time.Second)}, For: pipelines.Duration(time.Second),
		Network: &pipelines.Network{Links: []pipelines.Link{{From: "g", To: "h", Shape: drop}, {From: "h", To: "g", Shape: drop}}},
	}
}

func (b *bench) splitInput(attempt int) stage.Input {
	in := b.runInput("talk", attempt)
	in.Stage.Run.Params = map[string]string{"peer": "10.0.0.2:7007"}
	in.Stage.Run.Events = []pipelines.Event{split()}
	return in
}

// answers are the times at which an instance of h was answered.
func (b *bench) answers(index int) []time.Time {
	b.Helper()
	data, err := os.ReadFile(filepath.Join(b.folder.Outputs("h", index), "answers"))
	if err != nil {
		b.Fatal(err)
	}
	list := make([]int64, len(data)/8)
	if err := binary.Read(bytes.NewReader(data), binary.BigEndian, list); err != nil {
		b.Fatal(err)
	}
	var times []time.Time
	for _, ns := range list {
		times = append(times, time.Unix(0, ns))
	}
	return times
}

// happened are the lines of the event log about events.
func (b *bench) happened() []runs.Event {
	b.Helper()
	all, err := b.folder.ReadEvents()
	if err != nil {
		b.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e runs.Event) bool { return e.Event == "" })
}

// TestPartitionHealsWithoutItsWorker kills the worker in the middle of a partition. It heals on time, with nobody there
// to ask for it, and the next worker finds a run that went as if nothing had happened.
func TestPartitionHealsWithoutItsWorker(t *testing.T) {
	b := peers(t, 1, 2)
	b.place()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	worker := exec.Command(self, "splitter", string(b.ground.options.Home))
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	b.wait("the partition has begun", func() bool { return len(b.happened()) > 0 })
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = worker.Wait()
	killed := time.Now()
	b.wait("the partition has healed", func() bool { return len(b.happened()) > 1 })
	healed := time.Now()

	b.want(b.run(b.splitInput(1)), stage.Passed, "")
	lines := b.happened()
	if len(lines) != 2 || lines[0].Kind != runs.KindEventBegan || lines[1].Kind != runs.KindEventEnded || lines[0].Event != "split" {
		t.Fatalf("%+v", lines)
	}
	began, ended := lines[0], lines[1]
	if ended.Time.Before(killed) || ended.Time.After(healed) {
		t.Errorf("killed at %v, healed at %v, seen at %v", killed, ended.Time, healed)
	}
	t.Logf("began %v after it was due, healed %v after it was due (taking %v and %v)", began.At-began.Due, ended.At-ended.Due, began.Took, ended.Took)
	for index := range 2 {
		before, during, after := 0, 0, 0
		for _, at := range b.answers(index) {
			switch {
			case at.Before(began.Time):
				before++
			case at.After(ended.Time):
				after++
			case at.After(began.Time.Add(50*time.Millisecond)) && at.Before(ended.Time.Add(-ended.Took)):
				during++ // but those that were on their way
			}
		}
		if before == 0 || during > 0 || after == 0 {
			t.Errorf("h/%d was answered %d times before, %d during and %d after the partition", index, before, during, after)
		}
	}
}

// splitterMain is the worker that is killed.
func splitterMain(home string) int {
	b := &bench{T: &testing.T{}, ground: New(Options{Home: runs.Home(home)}), in: input("", 1, 2)}
	result, err := b.ground.Run(context.Background(), b.splitInput(1), b.report)
	return complain(result, err)
}

// TestEventsOfARun follows events from what a pipeline asks for to the verdict.
func TestEventsOfARun(t *testing.T) {
	b := newBench(t, 4, 1)
	b.place()
	at := func(d time.Duration) pipelines.Anchor { return pipelines.Anchor{Offset: pipelines.Duration(d)} }
	share := pipelines.Share(0.5)
	in := b.runInput("sleep", 1)
	in.Stage.Run.Events = []pipelines.Event{
		{Name: "fall", At: at(200 * time.Millisecond), Kill: &pipelines.Choice{Group: "g", Share: &share}},
		{Name: "nap", At: at(300 * time.Millisecond), Pause: &pipelines.Choice{Group: "h", Count: 1, For: pipelines.Duration(100 * time.Millisecond)}},
		{Name: "late", At: at(time.Hour), Kill: &pipelines.Choice{Group: "g", Count: 1}},
	}
	result := b.run(in)
	b.want(result, stage.Passed, "")
	want := pipelines.Outcomes{Succeeded: 2, Killed: 2}
	if result.Outcomes["g"] != want || result.Outcomes["h"].Succeeded != 1 {
		t.Errorf("%+v", result.Outcomes)
	}
	if missed := []string{"the event late did not happen: the stage was over before its time"}; !slices.Equal(result.Notes, missed) {
		t.Errorf("notes %q", result.Notes)
	}
	seen := func(text string) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.ContainsFunc(b.progress, func(p stage.Progress) bool { return strings.HasPrefix(p.Note, text) })
	}
	if !seen("the event fall killed g/") || !seen("the event nap is over: let go of h/0") {
		t.Errorf("progress %+v", b.progress)
	}
	if last := b.last(); last.Killed != 2 || last.Waiting != 0 {
		t.Errorf("%+v", last)
	}

	again := b.runInput("sleep", 2)
	again.Stage.Run.Events = []pipelines.Event{{Name: "fall", At: at(200 * time.Millisecond), Kill: &pipelines.Choice{Group: "g", Share: &share}, Restart: pipelines.Duration(10 * time.Millisecond)}}
	b.want(b.run(again), stage.Passed, "")
	lines := b.happened()
	if first, second := lines[0], lines[len(lines)-1]; !slices.Equal(first.Instances, second.Instances) || len(second.Instances) != 2 {
		t.Errorf("the same seed chose %q, then %q", first.Instances, second.Instances)
	}
	for _, name := range lines[0].Instances {
		if n := b.starts("g", int(name[2]-'0')); n != 3 {
			t.Errorf("%s was started %d times", name, n)
		}
	}

	bad := b.runInput("stall", 3)
	bad.Stage.Run.Events = []pipelines.Event{{Name: "out", At: at(0), Network: &pipelines.Network{Access: pipelines.AccessInternet}}}
	if result := b.run(bad); result.Verdict != stage.Invalid || !strings.HasPrefix(result.Reason, "the event out can't be carried out: ") {
		t.Errorf("%+v", result)
	}
}

// TestNetworkIsProved has a state of the network proved, by a worker, and by one that asks again.
func TestNetworkIsProved(t *testing.T) {
	b := newBench(t, 3, 3)
	b.place()
	latency := pipelines.Duration(10 * time.Millisecond)
	in := b.stage(pipelines.Stage{Name: "wan", Kind: pipelines.KindNetwork, Network: &pipelines.Network{
		Default: pipelines.Shape{Latency: &latency}, Access: pipelines.AccessNone, Verify: pipelines.Verify{Pairs: 6, Tolerance: 0.5},
	}}, 1)
	var first control.Proof
	for i := range 2 {
		result, err := b.ground.Network(t.Context(), in, b.report)
		if err != nil {
			t.Fatal(err)
		}
		b.want(result, stage.Passed, "")
		if len(result.Notes) != 1 || !strings.HasPrefix(result.Notes[0], "6 links between instances were probed: latency within ") {
			t.Errorf("notes %q", result.Notes)
		}
		var proof control.Proof
		if err := runs.ReadJSON(b.folder.Proof("wan"), &proof); err != nil || len(proof.Pairs) != 6 || proof.Seed != 7 {
			t.Fatalf("%+v, %v", proof, err)
		}
		if i > 0 && !proof.Started.Equal(first.Started) {
			t.Error("it was proved twice")
		}
		first = proof
	}
	for _, p := range first.Pairs {
		if p.Asked.Latency != latency || p.Achieved.Latency < latency/2 || !p.OK {
			t.Errorf("%+v", p)
		}
	}
	refused := in
	refused.Attempt = 2
	refused.Stage.Network = &pipelines.Network{Access: pipelines.AccessInternet}
	result, err := b.ground.Network(t.Context(), refused, b.report)
	if err != nil || result.Verdict != stage.Invalid || !strings.HasPrefix(result.Reason, "the data network can't be set: ") {
		t.Errorf("%+v, %v", result, err)
	}
	if asked := b.state().Network; asked.Key != "wan-1" {
		t.Errorf("a new sidecar would be asked for %+v", asked)
	}
}

func TestLinksThatAreNotAsAsked(t *testing.T) {
	reply := control.NetworkReply{Pairs: 50, Proof: &control.Proof{}}
	if why := sidecars.Outside(reply); why != "" {
		t.Errorf("%q", why)
	}
	bad := control.Pair{From: "eu/3", To: "us/7", Fault: "latency 62ms instead of 50ms"}
	reply.Faults, reply.Proof.Pairs = 1, []control.Pair{bad, {From: "eu/1", To: "eu/2", OK: true}}
	if why, want := sidecars.Outside(reply), "1 of 50 links that were probed is not as asked: eu/3 → us/7: latency 62ms instead of 50ms"; why != want {
		t.Errorf("%q, want %q", why, want)
	}
	reply.Faults, reply.Proof.Pairs = 5, []control.Pair{bad, bad, bad, bad, bad}
	fault := "eu/3 → us/7: latency 62ms instead of 50ms; "
	if why, want := sidecars.Outside(reply), "5 of 50 links that were probed are not as asked: "+strings.Repeat(fault, 3)+"…"; why != want {
		t.Errorf("%q, want %q", why, want)
	}
}
