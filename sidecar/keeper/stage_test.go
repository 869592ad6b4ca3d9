//go:build linux

package keeper

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

const success = `echo '{"ts":1,"event":{"success_event":{"group":"g"}}}'; `

func TestOutcomesOfRealProcesses(t *testing.T) {
	b := newBench(t)
	script := success + "exit 0"
	byExit := func(g control.Group) control.Group { g.Outcome = pipelines.OutcomeExit; return g }
	missing := shell("missing", 1, "")
	missing.Program = "/nowhere/plan"
	groups := []control.Group{
		shell("good", 2, script),
		shell("says", 1, `echo '{"event":{"failure_event":{"group":"g","error":"too slow"}}}'`),
		shell("panics", 1, `echo '{"event":{"crash_event":{"error":"nil map","stacktrace":"x"}}}'; echo '{"event":{"crash_event":{"error":"again"}}}'`),
		shell("silent", 1, "echo hello"),
		shell("leaves", 1, "echo one >&2; echo two >&2; exit 3"),
		shell("segv", 1, "kill -SEGV $$"),
		byExit(shell("exits", 1, "exit 0")),
		byExit(shell("exits-not", 1, "exit 4")),
		missing,
	}
	b.place(groups...)
	status := b.run("k1", control.RunStage{Groups: names(groups)})

	want := map[string][2]string{
		"good/0": {"succeeded", ""}, "good/1": {"succeeded", ""},
		"says/0":      {"failed", "reported failure: too slow"},
		"panics/0":    {"crashed", "panicked: nil map"},
		"silent/0":    {"silent", "exited with status 0 without reporting an outcome"},
		"leaves/0":    {"failed", "exited with status 3 without reporting an outcome"},
		"segv/0":      {"crashed", "killed by SIGSEGV"},
		"exits/0":     {"succeeded", ""},
		"exits-not/0": {"failed", "exited with status 4"},
		"missing/0":   {"failed", "could not be started: fork/exec /nowhere/plan: no such file or directory"},
	}
	results := b.results("lookups")
	if len(results) != len(want) {
		t.Errorf("%d results, want %d", len(results), len(want))
	}
	for name, w := range want {
		if got := results[name]; got.Outcome != w[0] || got.Reason != w[1] || got.Attempt != "k1" {
			t.Errorf("%s: %s %q, want %s %q", name, got.Outcome, got.Reason, w[0], w[1])
		}
	}
	if lines := results["leaves/0"].LastLines; strings.Join(lines, "|") != "one|two" {
		t.Errorf("last lines %q", lines)
	}
	if r := results["segv/0"]; r.Exit != -1 || r.Signal != "SIGSEGV" {
		t.Errorf("exit %d signal %q", r.Exit, r.Signal)
	}
	var all control.Counts
	for _, c := range status.Groups {
		all.Succeeded += c.Succeeded
		all.Failed += c.Failed
		all.Crashed += c.Crashed
		all.Silent += c.Silent
		all.Running += c.Running
	}
	if all != (control.Counts{Succeeded: 3, Failed: 4, Crashed: 2, Silent: 1}) {
		t.Errorf("counts %+v", all)
	}
	if status.FirstFailure == nil || len(status.Failing) != 7 || status.TimedOut || status.Unfinished != 0 || status.Fault != "" {
		t.Errorf("status %+v", status)
	}
	if out := b.output("silent", 0, "run.out"); out != "hello\n" {
		t.Errorf("run.out is %q", out)
	}
	if n := b.signals.count("k1", "run:run-1:plan:plan:case::states:network-initialized"); n != 10 {
		t.Errorf("network-initialized was signalled %d times", n)
	}
}

func names(groups []control.Group) []string {
	var all []string
	for _, g := range groups {
		all = append(all, g.Name)
	}
	return all
}

func TestSecondStageReadsItsOwnOutputOnly(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 1, `echo "$TEST_CASE"; if [ "$TEST_CASE" = one ]; then `+success+`fi; [ -e "$TEST_OUTPUTS_PATH/run.out" ] && echo linked; echo x >&2`))
	if s := b.run("k1", control.RunStage{Groups: []string{"g"}, Case: "one"}); s.Groups["g"].Succeeded != 1 {
		t.Errorf("first stage: %+v", s)
	}
	if s := b.run("k2", control.RunStage{Groups: []string{"g"}, Case: "two"}); s.Groups["g"].Silent != 1 {
		t.Errorf("the second stage saw the first one's event: %+v", s)
	}
	if out := b.output("g", 0, "run.out"); strings.Contains(out, "linked") || !strings.HasSuffix(out, "two\n") {
		t.Errorf("run.out: %q", out)
	}
}

func TestTimeoutEndsWhatStillRuns(t *testing.T) {
	b := newBench(t)
	b.place(shell("good", 1, success), shell("stalls", 3, "echo waiting; sleep 7531"))
	status := b.run("k1", control.RunStage{
		Groups: []string{"good", "stalls"}, Deadline: time.Now().Add(700 * time.Millisecond),
	})
	if !status.TimedOut || status.Unfinished != 3 || status.Groups["stalls"].Failed != 3 || status.Groups["good"].Succeeded != 1 {
		t.Errorf("status %+v", status)
	}
	r := b.results("lookups")["stalls/2"]
	if r.Reason != "still running when the stage's timeout ended" || r.Signal != "SIGKILL" || len(r.LastLines) != 1 {
		t.Errorf("result %+v", r)
	}
	if left := alive(t, "7531"); len(left) > 0 {
		t.Errorf("still alive: %v", left)
	}
}

func TestHaltReachesProcessesThatHideFromTheirGroup(t *testing.T) {
	b := newBench(t)
	// A grandchild in a session of its own, and one that a dead parent left behind.
	b.place(shell("g", 5, `setsid sleep 7532 & (setsid sh -c 'sleep 7532; true' &) ; echo ready; sleep 7532`))
	b.open("k1", control.RunStage{Groups: []string{"g"}})
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["g"].Running == 5 })
	for len(alive(t, "7532")) < 20 {
		time.Sleep(5 * time.Millisecond)
	}
	began := time.Now()
	status, err := b.Halt(t.Context(), "k1")
	if err != nil || !status.Done || !status.Halted || status.Unfinished != 5 {
		t.Errorf("%+v, %v", status, err)
	}
	t.Logf("halted after %v", time.Since(began))
	if left := alive(t, "7532"); len(left) > 0 {
		t.Errorf("still alive: %v", left)
	}
	if again, err := b.Halt(t.Context(), "k1"); err != nil || again.Version != status.Version {
		t.Errorf("halting twice: %+v, %v", again, err)
	}
}

func TestLeftoversOfAFinishedInstanceAreCleared(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 1, success+`setsid sleep 7533 >/dev/null 2>&1 & exit 0`))
	if s := b.run("k1", control.RunStage{Groups: []string{"g"}}); s.Groups["g"].Succeeded != 1 {
		t.Errorf("%+v", s)
	}
	if left := alive(t, "7533"); len(left) > 0 {
		t.Errorf("still alive: %v", left)
	}
}

func TestFailFast(t *testing.T) {
	b := newBench(t)
	b.place(shell("bad", 2, "exit 1"), shell("slow", 2, "sleep 7534"))
	status := b.run("k1", control.RunStage{Groups: []string{"bad", "slow"}, FailFast: true, MaxFailures: 1})
	if !status.FailedFast || status.TimedOut || status.Unfinished != 2 {
		t.Errorf("%+v", status)
	}
	if r := b.results("lookups")["slow/0"]; r.Reason != "still running when the failure of another instance ended the stage" {
		t.Errorf("%+v", r)
	}
}

func TestOpeningTwiceStartsOnce(t *testing.T) {
	b := newBench(t)
	b.place(shell("g", 4, "echo started; "+success))
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			if _, err := b.Open(t.Context(), "k1", control.RunStage{Stage: "lookups", Groups: []string{"g"}}); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	b.end("k1")
	for i := range 4 {
		if n := strings.Count(b.output("g", i, "stdout.log"), "started"); n != 1 {
			t.Errorf("g/%d was started %d times", i, n)
		}
	}
	again, err := b.Open(t.Context(), "k1", control.RunStage{Stage: "lookups", Groups: []string{"g"}})
	if err != nil || !again.Done || again.Groups["g"].Succeeded != 4 {
		t.Errorf("opening a stage that is over: %+v, %v", again, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	b := newBench(t)
	refused := func(key string, ask control.RunStage, want string) {
		t.Helper()
		if _, err := b.Open(t.Context(), key, ask); err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	refused("k0", control.RunStage{Stage: "s", Groups: []string{"a"}}, "nothing has been placed yet")
	all := placement(shell("a", 2, "sleep 7535"), shell("b", 1, ""), shell("empty", 0, ""))
	all.Groups = []string{"a"}
	if _, err := b.Place(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	refused("k1", control.RunStage{Stage: "s", Groups: []string{"b"}}, "b/0 has not been placed")
	refused("k1", control.RunStage{Stage: "s", Groups: []string{"c"}}, `there is no group "c"`)
	refused("k1", control.RunStage{Stage: "s", Groups: []string{"a"}, Only: []string{"b/0"}}, `there is no instance "b/0" in the stage's groups`)
	refused("k1", control.RunStage{Stage: "s", Groups: []string{"empty"}}, "the stage has no instances")
	refused("k1", control.RunStage{Stage: "../s", Groups: []string{"a"}}, `a stage can't be called "../s"`)
	b.open("k2", control.RunStage{Groups: []string{"a"}, Only: []string{"a/1"}})
	refused("k3", control.RunStage{Stage: "s", Groups: []string{"a"}}, "a/1 still runs in stage lookups")
	b.open("k4", control.RunStage{Groups: []string{"a"}, Only: []string{"a/0"}})
	if _, err := b.HaltAll(t.Context()); err != nil {
		t.Error(err)
	}
	if s := b.end("k4"); s.Groups["a"].Total != 1 || !s.Halted {
		t.Errorf("%+v", s)
	}
}

func TestPeakMemory(t *testing.T) {
	b := newBench(t)
	const size = 150 << 20
	g := shell("g", 3, "")
	g.Program, g.Arguments = os.Args[0], nil
	g.Env = map[string]string{"KEEPER_TEST_EAT": fmt.Sprint(size)}
	small := shell("small", 1, success+"sleep 0.5")
	b.place(g, small)
	b.run("k1", control.RunStage{Groups: []string{"g", "small"}})
	for name, r := range b.results("lookups") {
		t.Logf("%s: %d KiB, %.3f s", name, r.PeakMemory>>10, r.CPU)
		low, high := int64(size), int64(3*size) // the race detector takes as much again
		if name == "small/0" {
			low, high = 200<<10, 20<<20
		}
		if r.PeakMemory < low || r.PeakMemory > high {
			t.Errorf("%s: peak memory %d is not between %d and %d", name, r.PeakMemory, low, high)
		}
	}
	if r := b.results("lookups")["g/0"]; r.CPU <= 0 {
		t.Errorf("no CPU time: %+v", r)
	}
}

func TestManyInstances(t *testing.T) {
	count := 300
	if testing.Short() {
		count = 50
	}
	b := newBench(t)
	began := time.Now()
	b.place(shell("g", count, success+`echo "$GROUNDPLAN_INSTANCE $HOSTNAME" > "$TEST_OUTPUTS_PATH/me"`))
	placed := time.Now()
	status := b.run("k1", control.RunStage{Groups: []string{"g"}})
	t.Logf("%d placed in %v, started and ended in %v", count, placed.Sub(began), time.Since(placed))
	if status.Groups["g"].Succeeded != count {
		t.Errorf("%+v", status)
	}
	if len(b.results("lookups")) != count {
		t.Errorf("%d results", len(b.results("lookups")))
	}
	if me := b.output("g", count-1, "me"); me != fmt.Sprintf("%d g-%d\n", count-1, count-1) {
		t.Errorf("the last one is %q", me)
	}
}
