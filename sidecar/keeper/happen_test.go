//go:build linux

package keeper

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/events"
)

const ms = pipelines.Duration(time.Millisecond)

func after(offset pipelines.Duration) pipelines.Anchor { return pipelines.Anchor{Offset: offset} }

func some(group string, count int) *pipelines.Choice {
	return &pipelines.Choice{Group: group, Count: count}
}

// happened are the lines about events in the run's event log.
func (b *bench) happened() []runs.Event {
	b.t.Helper()
	all, err := b.folder.ReadEvents()
	if err != nil {
		b.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e runs.Event) bool { return e.Event == "" })
}

func TestKilledByAnEvent(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 10, `sleep 0.5; `+success), shell("h", 3, success))
	status := b.run("k1", control.RunStage{Groups: []string{"g", "h"}, Seed: 7, FailFast: true, Events: []pipelines.Event{
		{Name: "churn", At: after(100 * ms), Kill: some("g", 3)},
	}})
	if g := status.Groups["g"]; g.Killed != 3 || g.Succeeded != 7 || g.Failed+g.Crashed+g.Silent+g.Running != 0 || g.Total != 10 {
		t.Errorf("%+v", g)
	}
	if status.FirstFailure != nil || len(status.Failing) > 0 || status.FailedFast || status.Unfinished > 0 || status.Fault != "" {
		t.Errorf("%+v", status)
	}
	lines := b.happened()
	if len(lines) != 1 || lines[0].Kind != runs.KindEventBegan || lines[0].Event != "churn" || lines[0].Due != 100*time.Millisecond ||
		lines[0].At < lines[0].Due || len(lines[0].Instances) != 3 || lines[0].Attempt != "k1" {
		t.Fatalf("%+v", lines)
	}
	if want := "the event churn killed " + strings.Join(lines[0].Instances, ", "); lines[0].Text != want || status.Event != want {
		t.Errorf("%q and %q, want %q", lines[0].Text, status.Event, want)
	}
	draw := events.Draw{Seed: 7, Stage: "lookups", Event: "churn"}
	for i, index := range draw.Choose(*some("g", 3), 10, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		name := fmt.Sprintf("g/%d", index)
		if lines[0].Instances[i] != name {
			t.Errorf("killed %q, want %s", lines[0].Instances, name)
		}
		if r := b.results("lookups")[name]; r.Outcome != control.OutcomeKilled || r.Reason != "killed by the event churn" || r.Signal != "SIGKILL" || r.Starts != 0 {
			t.Errorf("%+v", r)
		}
	}
}

func TestKilledAndStartedAgain(t *testing.T) {
	b := newBench(t)
	// Every process of it is killed, those that have left its group too; the second time it ends well.
	script := `echo "start ${GROUNDPLAN_STARTS:-1}"; [ "$GROUNDPLAN_STARTS" = 2 ] && { ` + success + ` exit 0; }; setsid sleep 7561 & sleep 7561`
	b.place(shell("g", 3, script))
	b.open("k1", control.RunStage{Groups: []string{"g"}, Deadline: time.Now().Add(20 * time.Second), Events: []pipelines.Event{
		{At: after(300 * ms), Kill: &pipelines.Choice{Group: "g"}, Restart: 200 * ms},
	}})
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["g"].Running == 3 })
	b.configure("k1", "g-0", `{"enable":false,"callback_state":"s"}`)
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["g"].Running == 0 })
	if left := alive(t, "7561"); len(left) > 0 {
		t.Errorf("%q still run", left)
	}
	status := b.end("k1")
	if status.Groups["g"].Succeeded != 3 || status.Groups["g"].Running != 0 {
		t.Errorf("%+v %+v", status, status.FirstFailure)
	}
	if got := b.shaping.called("Restore"); !slices.Equal(got, []string{"Restore [0]"}) {
		t.Errorf("between the starts: %q", got)
	}
	for index := range 3 {
		r := b.results("lookups")[fmt.Sprintf("g/%d", index)]
		if r.Starts != 2 || r.PeakMemory == 0 || r.Ended.Sub(r.Started) < 500*time.Millisecond {
			t.Errorf("%+v", r)
		}
		if out := b.output("g", index, "stdout.log"); !strings.HasPrefix(out, "start 1\nstart 2\n") {
			t.Errorf("stdout: %s", out)
		}
	}
	lines := b.happened()
	if len(lines) != 2 || lines[1].Kind != runs.KindEventEnded || lines[1].Event != "event 1" || len(lines[1].Instances) != 3 ||
		lines[1].Due-lines[0].At != 200*time.Millisecond || lines[1].At < lines[1].Due {
		t.Errorf("%+v", lines)
	}
	if want := "event 1 is over: started g/0, g/1, g/2 again"; lines[1].Text != want {
		t.Errorf("%q, want %q", lines[1].Text, want)
	}
}

// TestKilledAfterItsReport has events kill instances whose outcome is known then, or that end as they are to be killed.
func TestKilledAfterItsReport(t *testing.T) {
	b := newBench(t)
	b.place(shell("says", 2, success+"sleep 7562"), shell("observed", 1, "sleep 7562"), shell("fails", 1, `echo '{"event":{"failure_event":{"error":"bad"}}}'; sleep 7562`))
	b.open("k1", control.RunStage{Groups: []string{"says", "observed", "fails"}, Events: []pipelines.Event{
		{Name: "one", At: after(300 * ms), Kill: &pipelines.Choice{Group: "says", Indices: []int{0}}},
		{Name: "two", At: after(300 * ms), Kill: &pipelines.Choice{Group: "says", Indices: []int{1}}, Restart: 50 * ms},
		{Name: "three", At: after(300 * ms), Kill: some("observed", 1), Restart: 50 * ms},
		{Name: "four", At: after(300 * ms), Kill: some("fails", 1), Restart: 50 * ms},
	}})
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["observed"].Running == 1 })
	b.Observe(Observation{Client: "observed/0", Space: "k1", Topic: keys + "run_events", Payload: []byte(`{"success_event":{}}`)})
	b.until("k1", func(s control.RunStatus) bool {
		return s.Groups["says"].Succeeded == 2 && s.Groups["fails"].Failed == 1
	})
	if _, err := b.Halt(t.Context(), "k1"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"says/0": "succeeded", "says/1": "succeeded", "observed/0": "succeeded", "fails/0": "failed"} {
		if r := b.results("lookups")[name]; r.Outcome != want || r.Starts != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, line := range b.happened() {
		if line.Event == "three" && line.Kind == runs.KindEventBegan && line.Text != "the event three found no instance of observed that still ran" {
			t.Errorf("%q", line.Text)
		}
	}
}

func TestStageEndsBeforeTheRestart(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 2, "sleep 7563"))
	status := b.run("k1", control.RunStage{Groups: []string{"g"}, Deadline: time.Now().Add(600 * time.Millisecond), Events: []pipelines.Event{
		{Name: "churn", At: after(100 * ms), Kill: some("g", 1), Restart: 3600000 * ms},
		{Name: "late", At: pipelines.Anchor{Event: "churn", Healed: true}, Kill: some("g", 1)},
		{Name: "later", At: after(3600000 * ms), Kill: some("g", 1)},
		{Name: "never", At: pipelines.Anchor{State: "never"}, Kill: some("g", 1)},
	}})
	if g := status.Groups["g"]; !status.TimedOut || g.Failed != 2 || g.Killed != 0 || status.Unfinished != 2 {
		t.Errorf("%+v", status)
	}
	var reasons []string
	for _, r := range b.results("lookups") {
		reasons = append(reasons, r.Reason)
	}
	slices.Sort(reasons)
	want := []string{"killed by the event churn, and not started again yet when the stage ended", "still running when the stage's timeout ended"}
	if !slices.Equal(reasons, want) {
		t.Errorf("%q", reasons)
	}
	slices.Sort(status.Missed)
	want = []string{
		"the event late did not happen: the stage was over before the event churn was",
		"the event later did not happen: the stage was over before its time",
		"the event never did not happen: the stage was over before every instance had signalled the state never",
	}
	if !slices.Equal(status.Missed, want) {
		t.Errorf("%s", strings.Join(status.Missed, "\n"))
	}
}

func TestProgramThatCannotBeStartedAgain(t *testing.T) {
	b := newBench(t)
	g := shell("g", 1, "")
	g.Program, g.Arguments = b.t.TempDir()+"/plan", nil
	if err := os.WriteFile(g.Program, []byte("#!/bin/sh\nrm \"$0\"\nsleep 7564\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.place(g)
	status := b.run("k1", control.RunStage{Groups: []string{"g"}, Events: []pipelines.Event{{At: after(300 * ms), Kill: some("g", 1), Restart: 10 * ms}}})
	if f := status.FirstFailure; f == nil || !strings.HasPrefix(f.Reason, "could not be started again: ") {
		t.Errorf("%+v %+v", status, f)
	}
}

// stopped counts the processes that run a command with that text and are stopped.
func stopped(t *testing.T, text string) (stopped, all int) {
	t.Helper()
	for _, path := range alive(t, text) {
		stat, err := os.ReadFile(strings.Replace(path, "cmdline", "stat", 1))
		if err != nil {
			continue
		}
		all++
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "T") {
			stopped++
		}
	}
	return stopped, all
}

func TestPaused(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 4, "setsid sleep 7565 & sleep 7565"), shell("other", 1, success))
	b.open("k1", control.RunStage{Groups: []string{"g"}, Events: []pipelines.Event{
		{Name: "nap", At: after(200 * ms), Pause: &pipelines.Choice{Group: "g", Indices: []int{1, 2}, For: 500 * ms}},
	}})
	b.until("k1", func(s control.RunStatus) bool { return s.Event != "" })
	const processes = 3 // a shell and its two sleeps
	if n, all := stopped(t, "7565"); n != 2*processes || all != 4*processes {
		t.Errorf("%d of %d are stopped", n, all)
	}
	// Another stage's gate doesn't wake them.
	if s := b.run("k2", control.RunStage{Stage: "beside", Groups: []string{"other"}}); s.Groups["other"].Succeeded != 1 {
		t.Errorf("%+v", s)
	}
	if n, _ := stopped(t, "7565"); n != 2*processes {
		t.Errorf("%d are stopped", n)
	}
	b.until("k1", func(s control.RunStatus) bool { return strings.Contains(s.Event, "is over") })
	if n, _ := stopped(t, "7565"); n != 0 {
		t.Errorf("%d are still stopped", n)
	}
	status, err := b.Halt(t.Context(), "k1")
	if err != nil || status.Event != "the event nap is over: let go of g/1, g/2" {
		t.Errorf("%+v, %v", status, err)
	}
}

// TestPausesThatOverlap has an event find only those that no other one has stopped, and a kill find all.
func TestPausesThatOverlap(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 3, "sleep 7569"))
	b.open("k1", control.RunStage{Groups: []string{"g"}, Events: []pipelines.Event{
		{Name: "one", At: after(100 * ms), Pause: &pipelines.Choice{Group: "g", Indices: []int{0, 1}, For: 300 * ms}},
		{Name: "two", At: after(200 * ms), Pause: &pipelines.Choice{Group: "g", For: 3600000 * ms}},
		{Name: "three", At: pipelines.Anchor{Event: "one", Healed: true}, Kill: &pipelines.Choice{Group: "g"}},
	}})
	b.end("k1")
	var texts []string
	for _, line := range b.happened() {
		texts = append(texts, line.Text)
	}
	want := []string{"the event one stopped g/0, g/1", "the event two stopped g/2", "the event one is over: let go of g/0, g/1", "the event three killed g/0, g/1, g/2"}
	if !slices.Equal(texts, want) {
		t.Errorf("%q", texts)
	}
}

func TestPausedToTheEnd(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 2, "sleep 7566"))
	b.open("k1", control.RunStage{Groups: []string{"g"}, Events: []pipelines.Event{
		{At: after(0), Pause: &pipelines.Choice{Group: "g", Count: 2, For: 3600000 * ms}},
	}})
	b.until("k1", func(s control.RunStatus) bool { return s.Event != "" })
	if status, err := b.Halt(t.Context(), "k1"); err != nil || status.Unfinished != 2 || status.Fault != "" {
		t.Errorf("%+v, %v", status, err)
	}
}

func TestNetworkEvents(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 2, "sleep 1; "+success))
	change := &pipelines.Network{Default: pipelines.Shape{Policy: "drop"}}
	b.open("k1", control.RunStage{Groups: []string{"g"}, Events: []pipelines.Event{
		{Name: "split", At: pipelines.Anchor{State: "half-done"}, For: 100 * ms, Network: change},
		{Name: "slow", At: pipelines.Anchor{Event: "split", Healed: true, Offset: 50 * ms}, Network: change},
	}})
	for len(b.shaping.called("ResetOverload")) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := b.signals.Signal(t.Context(), "k1", "run:run-1:plan:plan:case::states:half-done", 2); err != nil {
		t.Fatal(err)
	}
	status := b.end("k1")
	if status.Groups["g"].Succeeded != 2 || status.Fault != "" || len(status.Missed) > 0 {
		t.Errorf("%+v", status)
	}
	var calls []string
	for _, name := range []string{"Begin", "End"} {
		calls = append(calls, b.shaping.called(name)...)
	}
	if want := []string{"Begin lookups/split", "Begin lookups/slow", "End lookups/split", "End lookups/slow"}; !slices.Equal(calls, want) {
		t.Errorf("%q", calls)
	}
	var texts []string
	for _, line := range b.happened() {
		texts = append(texts, line.Text)
	}
	want := []string{
		"the event split changed the network", "the event split is over: the network has healed",
		"the event slow changed the network", "the event slow is over: the network has healed",
	}
	if !slices.Equal(texts, want) {
		t.Errorf("%q", texts)
	}
}

func TestEventsThatCannotBeCarriedOut(t *testing.T) {
	for call, want := range map[string]string{
		"Begin": "the event split can't be carried out: there is no NAT left",
		"End":   "the event split can't be taken back: there is no NAT left",
	} {
		b := newBench(t)
		b.shaping.fail[call] = &Refusal{"there is no NAT left"}
		b.place(shell("g", 2, "sleep 7567"))
		status := b.run("k1", control.RunStage{Groups: []string{"g"}, Events: []pipelines.Event{
			{Name: "split", At: after(10 * ms), For: 10 * ms, Network: &pipelines.Network{}},
		}})
		if status.Fault != want || status.Unfinished != 2 || len(alive(t, "7567")) > 0 {
			t.Errorf("%+v", status)
		}
	}
}

// TestStageEndsWhileAnEventBegins has a stage end while an event is being put in force: it is taken back, and nobody is at
// fault.
func TestStageEndsWhileAnEventBegins(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 1, "sleep 0.3; "+success))
	b.shaping.hold = make(chan struct{})
	status := b.run("k1", control.RunStage{Groups: []string{"g"}, Events: []pipelines.Event{
		{Name: "split", At: after(10 * ms), Network: &pipelines.Network{}},
	}})
	if status.Fault != "" || status.Groups["g"].Succeeded != 1 || len(b.shaping.standing) > 0 || len(b.happened()) > 0 {
		t.Errorf("%+v, %q stand, %+v", status, b.shaping.standing, b.happened())
	}
}

func TestOverload(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 1, "sleep 0.1; "+success))
	b.shaping.overload = "3 packets were lost"
	if status := b.run("k1", control.RunStage{Groups: []string{"g"}}); status.Fault != "3 packets were lost" || status.Groups["g"].Succeeded != 1 {
		t.Errorf("%+v", status)
	}
	b.shaping.overload = ""
	b.shaping.fail["Restore"] = errors.New("no netlink")
	b.open("k2", control.RunStage{Groups: []string{"g"}})
	b.until("k2", func(s control.RunStatus) bool { return s.Groups["g"].Running == 1 })
	b.configure("k2", "g-0", `{"enable":true}`)
	if want := "restoring what 1 instances of stage lookups had configured of their network: no netlink"; b.end("k2").Fault != want {
		t.Errorf("%+v", b.end("k2"))
	}
	if got := b.shaping.called("ResetOverload"); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// TestManyFall kills and starts again all of many instances at once.
func TestManyFall(t *testing.T) {
	const count = 60
	b := newBench(t)
	b.place(shell("g", count, `[ "$GROUNDPLAN_STARTS" = 4 ] && { `+success+` exit 0; }; sleep 7568`))
	var list []pipelines.Event
	for i := range 3 {
		e := pipelines.Event{Name: "fall-" + strconv.Itoa(i), At: after(200 * ms), Kill: &pipelines.Choice{Group: "g"}, Restart: 10 * ms}
		if i > 0 {
			e.At = pipelines.Anchor{Event: "fall-" + strconv.Itoa(i-1), Healed: true, Offset: 100 * ms}
		}
		list = append(list, e)
	}
	status := b.run("k1", control.RunStage{Groups: []string{"g"}, Events: list, Deadline: time.Now().Add(30 * time.Second)})
	if g := status.Groups["g"]; g.Succeeded != count || g.Running != 0 {
		t.Errorf("%+v %+v", status, status.FirstFailure)
	}
	for _, r := range b.results("lookups") {
		if r.Starts != 4 {
			t.Fatalf("%+v", r)
		}
	}
}
