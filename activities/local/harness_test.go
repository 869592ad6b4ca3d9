package local

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar"
	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/launch"
)

// TestMain lets the test binary be the other processes of these tests: the sidecar, and a worker that can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "sidecar":
			os.Exit(sidecarMain(os.Args[2:]))
		case "worker":
			os.Exit(workerMain(os.Args[2], os.Args[3]))
		case "splitter":
			os.Exit(splitterMain(os.Args[2]))
		case "peer":
			os.Exit(peerMain())
		}
	}
	os.Exit(m.Run())
}

// sidecarMain is `groundplan sidecar`.
func sidecarMain(args []string) int {
	flags := flag.NewFlagSet("sidecar", flag.ExitOnError)
	folder, seed := flags.String("folder", "", ""), flags.Uint64("seed", 0, "")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	redis, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 2
	}
	if err := sidecar.Main(context.Background(), sidecar.Config{Folder: runs.Folder(*folder), Redis: string(redis), Seed: *seed}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// plan is what instances run: a shell script that does what its case says.
const plan = `#!/bin/sh
echo "started $TEST_CASE" >> "$TEST_OUTPUTS_PATH/starts"
event() { echo "{\"ts\":1,\"msg\":\"\",\"group_id\":\"$TEST_GROUP_ID\",\"run_id\":\"$TEST_RUN\",\"event\":$1}"; }
success() { event '{"success_event":{"group":"g"}}'; }
case "$TEST_CASE" in
ok) success ;;
fail) event '{"failure_event":{"group":"g","error":"the peer said no"}}' ;;
fail-0) if [ "$GROUNDPLAN_INSTANCE" = 0 ]; then event '{"failure_event":{"group":"g","error":"the peer said no"}}'; else success; fi ;;
sleep) sleep 1; success ;;
stall) exec sleep 1000 ;;
stall-0) if [ "$GROUNDPLAN_INSTANCE" = 0 ]; then exec sleep 1000; else success; fi ;;
esac
`

// bench is a run on the local ground of a machine.
type bench struct {
	*testing.T
	ground *Ground
	folder runs.Folder
	in     stage.Input

	mu       sync.Mutex
	progress []stage.Progress
}

func newBench(t *testing.T, counts ...int) *bench {
	t.Helper()
	if err := launch.Supported(); err != nil {
		t.Skip("instances can't be placed here:", err)
	}
	home := runs.Home(t.TempDir())
	program := filepath.Join(t.TempDir(), "plan.sh")
	if err := os.WriteFile(program, []byte(plan), 0o755); err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, folder: home.Run("run-1"), in: input(program, counts...)}
	b.ground = b.newGround(home)
	t.Cleanup(func() {
		if err := b.ground.Release(context.Background(), b.in.Run); err != nil {
			t.Errorf("releasing: %v", err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(b.folder.SidecarLog())
			t.Logf("the sidecar's log:\n%s", log)
		}
	})
	return b
}

func (b *bench) newGround(home runs.Home) *Ground {
	return New(Options{Home: home, Log: slog.New(slog.NewTextHandler(b.Output(), nil))})
}

// input is a run with groups g, h, … of so many instances.
func input(program string, counts ...int) stage.Input {
	in := stage.Input{
		Run: stage.Run{ID: "run-1", Ground: "local", Root: "/repository"}, Pipeline: "test", Seed: 7,
		Artifacts: map[string]stage.Artifact{"plan": {Name: "plan", Path: program}},
	}
	for i, count := range counts {
		in.Groups = append(in.Groups, pipelines.Group{
			Name: string(rune('g' + i)), Artifact: "plan", Instances: count, Outcome: pipelines.OutcomeReport, Testground: true,
		})
	}
	return in
}

func (b *bench) stage(s pipelines.Stage, attempt int) stage.Input {
	in := b.in
	in.Stage, in.Attempt = s, attempt
	in.Deadline = time.Now().Add(time.Minute)
	if s.Timeout > 0 {
		in.Deadline = time.Now().Add(time.Duration(s.Timeout))
	}
	return in
}

func (b *bench) report(p stage.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress = append(b.progress, p)
}

// last is the newest progress.
func (b *bench) last() stage.Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.progress) == 0 {
		return stage.Progress{}
	}
	return b.progress[len(b.progress)-1]
}

func (b *bench) schedule(groups ...string) stage.Result {
	b.Helper()
	if len(groups) == 0 {
		groups = sidecars.Names(b.in)
	}
	in := b.stage(pipelines.Stage{Name: "place", Kind: pipelines.KindSchedule, Schedule: &pipelines.Schedule{Groups: groups}}, 1)
	result, err := b.ground.Schedule(b.Context(), in, b.report)
	if err != nil {
		b.Fatalf("scheduling: %v", err)
	}
	return result
}

// place brings every instance to the gate; a test that goes on from there is over when that fails.
func (b *bench) place() {
	b.Helper()
	if result := b.schedule(); result.Verdict != stage.Passed {
		b.Fatalf("placing is %s: %s", result.Verdict, result.Reason)
	}
}

func (b *bench) network() stage.Result {
	b.Helper()
	in := b.stage(pipelines.Stage{Name: "net", Kind: pipelines.KindNetwork, Network: &pipelines.Network{Access: pipelines.AccessNone}}, 1)
	result, err := b.ground.Network(b.Context(), in, b.report)
	if err != nil {
		b.Fatalf("setting the network: %v", err)
	}
	return result
}

// runInput is a run stage of all groups.
func (b *bench) runInput(testCase string, attempt int) stage.Input {
	return b.stage(pipelines.Stage{Name: "run", Kind: pipelines.KindRun, Run: &pipelines.Run{Groups: sidecars.Names(b.in), Case: testCase, Success: 1}}, attempt)
}

func (b *bench) run(in stage.Input) stage.Result {
	b.Helper()
	result, err := b.ground.Run(b.Context(), in, b.report)
	if err != nil {
		b.Fatalf("running: %v", err)
	}
	return result
}

// running starts a run that goes on beside the test, and returns when its instances run.
func (b *bench) running(ctx context.Context, in stage.Input) <-chan answer {
	b.Helper()
	done := make(chan answer, 1)
	go func() {
		result, err := b.ground.Run(ctx, in, b.report)
		done <- answer{result, err}
	}()
	total := sidecars.Instances(in, in.Stage.Run.Groups)
	b.wait("the instances run", func() bool { return b.last().Running == total })
	return done
}

type answer struct {
	result stage.Result
	err    error
}

func (b *bench) wait(what string, holds func() bool) {
	b.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("waited in vain until %s; the last progress was %+v", what, b.last())
		}
	}
}

func (b *bench) want(result stage.Result, verdict stage.Verdict, reason string) {
	b.Helper()
	if result.Verdict != verdict || result.Reason != reason {
		b.Errorf("the result is %s: %s\nwant %s: %s", result.Verdict, result.Reason, verdict, reason)
	}
}

// state is what the run's folder says is placed.
func (b *bench) state() state {
	b.Helper()
	s, err := readState(b.folder)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// sidecar is the run's sidecar, which lives.
func (b *bench) sidecar() *process {
	b.Helper()
	p := b.state().Sidecar
	if !p.lives() {
		b.Fatalf("the run has no sidecar that lives: %+v", p)
	}
	return p
}

// killSidecar ends the sidecar as a fault would.
func (b *bench) killSidecar() {
	b.Helper()
	p := b.sidecar()
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		b.Fatal(err)
	}
	b.wait("the sidecar is gone", func() bool { return !p.lives() })
}

// starts counts how often an instance's program was started.
func (b *bench) starts(group string, index int) int {
	data, _ := os.ReadFile(filepath.Join(b.folder.Outputs(group, index), "starts"))
	return strings.Count(string(data), "\n")
}

// sidecars lists the processes that are sidecars of the run.
func (b *bench) sidecars() []string {
	var found []string
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range commands {
		command, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(command), "sidecar\x00--folder\x00"+string(b.folder)+"\x00") {
			found = append(found, path)
		}
	}
	return found
}

// gone checks that nothing of the run is left but its outputs and records.
func (b *bench) gone() {
	b.Helper()
	b.wait("no sidecar is left", func() bool { return len(b.sidecars()) == 0 })
	for _, path := range []string{filepath.Join(string(b.folder), "temp"), statePath(b.folder), control.Socket(b.folder), filepath.Dir(control.Socket(b.folder))} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			b.Errorf("%s is left behind (%v)", path, err)
		}
	}
}
