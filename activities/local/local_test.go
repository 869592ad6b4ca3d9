package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
)

func TestOneRun(t *testing.T) {
	b := newBench(t, 3, 2)
	result := b.schedule()
	b.want(result, stage.Passed, "")
	if result.Placed != 5 || result.Kept != 0 {
		t.Errorf("placed %d and kept %d of 5", result.Placed, result.Kept)
	}
	if again := b.schedule(); again.Placed != 0 || again.Kept != 5 {
		t.Errorf("the second time placed %d and kept %d of 5", again.Placed, again.Kept)
	}
	b.want(b.network(), stage.Passed, "")
	result = b.run(b.runInput("ok", 1))
	b.want(result, stage.Passed, "")
	if result.Outcomes["g"].Succeeded != 3 || result.Outcomes["h"].Succeeded != 2 {
		t.Errorf("outcomes: %+v", result.Outcomes)
	}
	if last := b.last(); last.Total != 5 || last.Succeeded != 5 {
		t.Errorf("the last progress is %+v", last)
	}
	if err := b.ground.Gather(t.Context(), b.in, b.report); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := b.ground.Release(t.Context(), b.in.Run); err != nil {
			t.Fatal(err)
		}
	}
	b.gone()
	if _, err := os.Stat(filepath.Join(b.folder.Outputs("h", 1), "starts")); err != nil {
		t.Errorf("the outputs are gone: %v", err)
	}
}

func TestReleaseOfNothing(t *testing.T) {
	home := runs.Home(t.TempDir())
	if err := New(Options{Home: home}).Release(t.Context(), stage.Run{ID: "never-was"}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(string(home.Run("never-was"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it made a folder: %v", err)
	}
}

// TestWorkerLeaves ends the worker's part of a run while instances run: they go on, and the next attempt of the
// activity finds how they ended.
func TestWorkerLeaves(t *testing.T) {
	b := newBench(t, 4)
	b.place()
	leaves := errors.New("the worker leaves")
	ctx, leave := context.WithCancelCause(t.Context())
	in := b.runInput("sleep", 1)
	first := b.running(ctx, in)
	leave(leaves)
	if a := <-first; !errors.Is(a.err, leaves) {
		t.Fatalf("got %+v, %v", a.result, a.err)
	}
	b.ground = b.newGround(b.ground.options.Home)
	b.want(b.run(in), stage.Passed, "")
	for index := range 4 {
		if n := b.starts("g", index); n != 1 {
			t.Errorf("g/%d was started %d times", index, n)
		}
	}
}

func TestSidecarDiesWhileItRuns(t *testing.T) {
	b := newBench(t, 3)
	b.place()
	b.want(b.network(), stage.Passed, "")
	in := b.runInput("stall", 1)
	first := b.running(t.Context(), in)
	b.killSidecar()
	a := <-first
	if a.err != nil {
		t.Fatal(a.err)
	}
	lost := "the sidecar of this run died; 3 instances were lost"
	b.want(a.result, stage.Invalid, lost)
	b.want(b.run(in), stage.Invalid, lost) // whoever asks about that attempt again
	b.want(b.run(b.runInput("ok", 2)), stage.Passed, "")
	if state := b.state(); !state.NetworkBy.Equal(state.Sidecar.Since) {
		t.Errorf("the new sidecar was not given the network: %+v", state)
	}
	b.want(b.run(in), stage.Invalid, lost) // also while another one is there
}

func TestSidecarDiesBetweenStages(t *testing.T) {
	b := newBench(t, 2, 1)
	b.want(b.schedule("g"), stage.Passed, "")
	b.killSidecar()
	b.want(b.schedule("h"), stage.Passed, "")
	b.killSidecar()
	b.want(b.network(), stage.Passed, "")
	b.killSidecar()
	b.want(b.run(b.runInput("ok", 1)), stage.Passed, "")
}

// TestNobodyOpened is an attempt whose worker was killed after it had noted that it opens the gate, and before it did.
func TestNobodyOpened(t *testing.T) {
	b := newBench(t, 2)
	b.place()
	in := b.runInput("ok", 1)
	state := b.state()
	state.Opened[sidecars.Key(in)] = state.Sidecar.Since
	if err := state.write(b.folder); err != nil {
		t.Fatal(err)
	}
	b.want(b.run(in), stage.Passed, "")
}

func TestOutcomesOfRealInstances(t *testing.T) {
	b := newBench(t, 3)
	b.place()
	b.want(b.run(b.runInput("fail-0", 1)), stage.Failed, "1 of 3 instances did not succeed (g/0); g/0: reported failure: the peer said no")

	enough := b.runInput("fail-0", 2)
	enough.Stage.Run.Success = 0.6
	result := b.run(enough)
	b.want(result, stage.Passed, "")
	if len(result.Notes) != 1 || !strings.Contains(result.Notes[0], "1 of 3 instances did not succeed") {
		t.Errorf("notes: %q", result.Notes)
	}

	stalled := b.runInput("stall-0", 3)
	stalled.Stage.Timeout, stalled.Deadline = pipelines.Duration(2*time.Second), time.Now().Add(2*time.Second)
	b.want(b.run(stalled), stage.Failed, "timed out after 2s: 1 of 3 instances was still running (g/0)")
	b.want(b.run(b.runInput("ok", 4)), stage.Passed, "")
}

// TestFaultOfTheSidecar has the results of a stage go to a full disk: every instance succeeds, and nobody could prove it.
func TestFaultOfTheSidecar(t *testing.T) {
	b := newBench(t, 3)
	b.place()
	results := b.folder.Stage("run")
	if err := os.Symlink("/dev/full", results); err != nil {
		t.Fatal(err)
	}
	result := b.run(b.runInput("ok", 1))
	if result.Verdict != stage.Invalid || !strings.HasPrefix(result.Reason, "keeping what became of g/") || !strings.Contains(result.Reason, "no space left on device") {
		t.Errorf("the result is %s: %s", result.Verdict, result.Reason)
	}
	if err := os.Remove(results); err != nil {
		t.Fatal(err)
	}
	b.want(b.run(b.runInput("ok", 2)), stage.Passed, "")
}

func TestHalt(t *testing.T) {
	b := newBench(t, 3)
	b.place()
	for attempt, halt := range []func(in stage.Input) error{
		func(in stage.Input) error { return b.ground.HaltStage(t.Context(), in) },
		func(in stage.Input) error { return b.ground.Halt(t.Context(), in.Run) },
	} {
		in := b.runInput("stall", attempt+1)
		running := b.running(t.Context(), in)
		began := time.Now()
		if err := halt(in); err != nil {
			t.Fatal(err)
		}
		t.Logf("halted after %v", time.Since(began))
		a := <-running
		if a.err != nil || a.result.Verdict != stage.Cancelled {
			t.Errorf("got %+v, %v", a.result, a.err)
		}
	}
	b.want(b.run(b.runInput("ok", 3)), stage.Passed, "")
	if err := b.ground.HaltStage(t.Context(), b.runInput("ok", 9)); err != nil {
		t.Errorf("halting what never ran: %v", err)
	}
	b.killSidecar()
	if err := errors.Join(b.ground.HaltStage(t.Context(), b.runInput("ok", 3)), b.ground.Halt(t.Context(), b.in.Run)); err != nil {
		t.Errorf("halting without a sidecar: %v", err)
	}
}

func TestSomeCannotBePlaced(t *testing.T) {
	b := newBench(t, 20)
	for _, index := range []int{3, 11, 17, 18} {
		path := b.folder.Outputs("g", index)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	result := b.schedule()
	if result.Verdict != stage.Invalid || result.Placed != 16 || len(result.Failing) != 4 ||
		!strings.HasPrefix(result.Reason, "4 of 20 instances could not be placed: g/3: ") || !strings.HasSuffix(result.Reason, "; …") {
		t.Errorf("got %+v", result)
	}
	if run := b.run(b.runInput("ok", 1)); run.Verdict != stage.Invalid {
		t.Errorf("it ran without four of its instances: %+v", run)
	}
	for _, index := range []int{3, 11, 17, 18} {
		if err := os.Remove(b.folder.Outputs("g", index)); err != nil {
			t.Fatal(err)
		}
	}
	if result = b.schedule(); result.Verdict != stage.Passed || result.Placed != 4 || result.Kept != 16 {
		t.Errorf("after the fault was mended: %+v", result)
	}
	b.want(b.run(b.runInput("ok", 2)), stage.Passed, "")
}

func TestReleaseWithoutASidecar(t *testing.T) {
	for name, end := range map[string]func(b *bench){
		"killed": func(b *bench) { b.killSidecar() },
		"stopped": func(b *bench) {
			if err := syscall.Kill(b.sidecar().PID, syscall.SIGSTOP); err != nil {
				b.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 2)
			b.ground.patience = time.Second
			b.place()
			readOnly := filepath.Join(b.folder.Temp("g", 0), "module", "cache")
			if err := errors.Join(os.MkdirAll(readOnly, 0o755), os.WriteFile(filepath.Join(readOnly, "x"), nil, 0o400), os.Chmod(readOnly, 0o555)); err != nil {
				t.Fatal(err)
			}
			end(b)
			if err := b.ground.Release(t.Context(), b.in.Run); err != nil {
				t.Fatal(err)
			}
			b.gone()
		})
	}
}

func TestCallsThatRace(t *testing.T) {
	b := newBench(t, 6, 6)
	var calls sync.WaitGroup
	for i := range 8 {
		calls.Go(func() {
			ground := b.newGround(b.ground.options.Home)
			in := b.stage(pipelines.Stage{Name: "place", Kind: pipelines.KindSchedule, Schedule: &pipelines.Schedule{Groups: []string{string(rune('g' + i%2))}}}, 1)
			if result, err := ground.Schedule(t.Context(), in, b.report); err != nil || result.Verdict != stage.Passed {
				t.Errorf("call %d: %+v, %v", i, result, err)
			}
		})
	}
	calls.Wait()
	if found := b.sidecars(); len(found) != 1 {
		t.Errorf("%d sidecars: %v", len(found), found)
	}
	in := b.runInput("sleep", 1)
	for range 3 {
		calls.Go(func() { b.want(b.run(in), stage.Passed, "") })
	}
	calls.Wait()
	for index := range 6 {
		if n := b.starts("g", index); n != 1 {
			t.Errorf("g/%d was started %d times", index, n)
		}
	}
}

// TestPasswordOfRedis looks for it where others on the machine, and instances, could read it.
func TestPasswordOfRedis(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the sidecar of an unprivileged user can't reach a Redis over TCP")
	}
	const password = "a-password-of-ours"
	server := miniredis.RunT(t)
	server.RequireAuth(password)
	b := newBench(t, 1)
	b.ground.options.Redis = "redis://:" + password + "@" + server.Addr()
	b.place()
	b.want(b.run(b.runInput("ok", 1)), stage.Passed, "")
	if server.TotalConnectionCount() == 0 {
		t.Error("the sidecar did not use that Redis")
	}
	process := fmt.Sprintf("/proc/%d/", b.sidecar().PID)
	for _, file := range []string{process + "cmdline", process + "environ", b.folder.SidecarLog(), statePath(b.folder)} {
		if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), password) {
			t.Errorf("%s: %q, %v", file, text, err)
		}
	}
}

func TestSidecarThatDoesNotStart(t *testing.T) {
	b := newBench(t, 1)
	b.ground.options.Command = []string{"/bin/sh", "-c", "echo starting; echo 'no such redis' >&2; exit 1"}
	b.want(b.schedule(), stage.Invalid, "the sidecar of this run ended as soon as it was started: no such redis")
	b.ground.options.Command = []string{"/nowhere/groundplan"}
	if result := b.schedule(); result.Verdict != stage.Invalid || !strings.Contains(result.Reason, "/nowhere/groundplan") {
		t.Errorf("got %+v", result)
	}
}

// workerMain is a worker that can be killed: it schedules, sets the network and runs.
func workerMain(home, program string) int {
	b := &bench{T: &testing.T{}, ground: New(Options{Home: runs.Home(home)}), in: input(program, 8)}
	ctx := context.Background()
	place := b.stage(pipelines.Stage{Name: "place", Kind: pipelines.KindSchedule, Schedule: &pipelines.Schedule{Groups: []string{"g"}}}, 1)
	if result, err := b.ground.Schedule(ctx, place, b.report); err != nil || result.Verdict != stage.Passed {
		return complain(result, err)
	}
	if result, err := b.ground.Run(ctx, b.runInput("sleep", 1), b.report); err != nil || result.Verdict != stage.Passed {
		return complain(result, err)
	}
	return 0
}

func complain(result stage.Result, err error) int {
	fmt.Println(result, err)
	return 1
}

// TestWorkerKilledAnywhere kills workers at random moments, and lets the next one go on. The run passes, on one sidecar,
// with every instance started once.
func TestWorkerKilledAnywhere(t *testing.T) {
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			b := newBench(t, 8)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			worker := func() *exec.Cmd {
				return exec.Command(self, "worker", string(b.ground.options.Home), b.in.Artifacts["plan"].Path)
			}
			for range 6 {
				cmd := worker()
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond)
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			if out, err := worker().CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if found := b.sidecars(); len(found) != 1 {
				t.Errorf("%d sidecars: %v", len(found), found)
			}
			for index := range 8 {
				if n := b.starts("g", index); n != 1 {
					t.Errorf("g/%d was started %d times", index, n)
				}
			}
		})
	}
}

// TestAThousand places and runs 1,000 instances, and says how long each part took.
func TestAThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("placing 1,000 instances takes a while: run without -short")
	}
	b := newBench(t, 1000)
	timed := func(what string, do func()) {
		began := time.Now()
		do()
		t.Logf("%s: %v", what, time.Since(began))
	}
	timed("schedule", b.place)
	timed("schedule again", b.place)
	timed("run", func() { b.want(b.run(b.runInput("ok", 1)), stage.Passed, "") })
	stalled := b.running(t.Context(), b.runInput("stall", 2))
	timed("halt", func() {
		if err := b.ground.Halt(t.Context(), b.in.Run); err != nil {
			t.Error(err)
		}
	})
	<-stalled
	timed("release", func() {
		if err := b.ground.Release(t.Context(), b.in.Run); err != nil {
			t.Error(err)
		}
	})
	b.gone()
}
