package sidecar

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

func TestInstancesRunTogether(t *testing.T) {
	for name, o := range map[string]options{"root": {}, "unprivileged": {nobody: true}} {
		t.Run(name, func(t *testing.T) {
			if name == "root" && os.Geteuid() != 0 {
				t.Skip("this takes root")
			}
			r := start(t, o)
			r.place(r.group("a", 5), r.group("b", 5))
			status := r.stage("k1", control.RunStage{Groups: []string{"a", "b"}, Case: "together"})
			if status.Groups["a"].Succeeded != 5 || status.Groups["b"].Succeeded != 5 || status.Fault != "" {
				t.Fatalf("%+v\n%+v", status, status.FirstFailure)
			}
			one := r.results()["a/0"]
			if one.PeakMemory < 2<<20 || one.PeakMemory > 200<<20 || one.CPU <= 0 {
				t.Errorf("peak memory %d, CPU %v", one.PeakMemory, one.CPU)
			}
		})
	}
}

func TestEnvironmentOfARealInstance(t *testing.T) {
	r := start(t, options{})
	r.place(r.group("a", 1), r.group("b", 2))
	status := r.stage("k1", control.RunStage{Groups: []string{"b"}, Case: "environment", Params: map[string]string{"x": "1=2"}})
	if status.Groups["b"].Succeeded != 2 {
		t.Fatalf("%+v", status.FirstFailure)
	}
	out := r.output("b", 1, "run.out")
	for _, want := range []string{
		"TEST_INSTANCE_COUNT=2", "GROUNDPLAN_INSTANCE=1", `GROUNDPLAN_PARAMS={"x":"1=2"}`, "os.Hostname b-1",
		"eth0 [100.96.0.4/16]", "eth1 [10.0.0.4/16 fd67:7264:706c::a00:4/96]", "os.Getwd " + r.folder.Temp("b", 1),
	} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("%q is missing from:\n%s", want, out)
		}
	}
	if strings.Contains(out, "SIDECARS_OWN") {
		t.Error("the sidecar's own environment reached an instance")
	}
}

func TestPlansConfigureTheirNetwork(t *testing.T) {
	r := start(t, options{})
	r.place(r.group("g", 3))
	for _, name := range []string{"leave-network", "move", "shape", "leave-network", "unshaped"} {
		status := r.stage("k-"+name+time.Now().String(), control.RunStage{Groups: []string{"g"}, Case: name, Deadline: time.Now().Add(20 * time.Second)})
		if status.Groups["g"].Succeeded != 3 {
			t.Fatalf("%s: %+v", name, status.FirstFailure)
		}
	}
	if out := r.output("g", 2, "stdout.log"); !strings.Contains(out, "eth1 now [10.0.77.12/16 ") {
		t.Errorf("the address did not change: %s", out)
	}
	status := r.stage("k4", control.RunStage{Groups: []string{"g"}, Case: "elsewhere", Deadline: time.Now().Add(20 * time.Second)})
	want := "outside the data network 10.0.0.0/16"
	if status.Groups["g"].Failed != 3 || !strings.Contains(status.FirstFailure.Reason, want) || status.TimedOut {
		t.Errorf("%+v %+v", status, status.FirstFailure)
	}
	// The next stage begins on the network as it was.
	if s := r.stage("k5", control.RunStage{Groups: []string{"g"}, Case: "environment"}); s.Groups["g"].Succeeded != 3 {
		t.Errorf("%+v", s.FirstFailure)
	}
	if out := r.output("g", 2, "stdout.log"); !strings.Contains(out, "eth1 [10.0.0.4/16 ") {
		t.Errorf("the address was not restored: %s", out)
	}
}

func TestReportedOutcomeGivesAGraceToExit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	r := start(t, options{})
	r.place(r.group("g", 1))
	began := time.Now()
	status := r.stage("k1", control.RunStage{Groups: []string{"g"}, Case: "lingers"})
	if status.Groups["g"].Succeeded != 1 || time.Since(began) < 9*time.Second {
		t.Errorf("after %v: %+v", time.Since(began), status)
	}
	if r := r.results()["g/0"]; r.Signal != "SIGKILL" || r.Outcome != control.OutcomeSucceeded {
		t.Errorf("%+v", r)
	}
}

func TestReleaseLeavesNothing(t *testing.T) {
	r := start(t, options{})
	r.place(r.group("g", 10))
	status, err := r.Open(t.Context(), "k1", control.RunStage{Stage: "stage", Groups: []string{"g"}, Case: "sleep"})
	if err != nil {
		t.Fatal(err)
	}
	r.until(status, func(s control.RunStatus) bool { return s.Groups["g"].Running == 10 })
	waiter := make(chan control.RunStatus, 1)
	go func() {
		s, _ := r.Wait(t.Context(), "k1", 1<<40, time.Minute)
		waiter <- s
	}()
	began := time.Now()
	if _, err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("released in %v", time.Since(began))
	if s := <-waiter; !s.Done || !s.Halted {
		t.Errorf("whoever waited for the stage heard %+v", s)
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	r.nothingLeft()
	if _, err := r.Status(t.Context()); !errors.Is(err, control.ErrAway) {
		t.Errorf("got %v, want ErrAway", err)
	}
}

// TestOrphansAreCollected has an instance leave processes behind that end long before it does. They become the
// sidecar's, which is the only one that can wait for them.
func TestOrphansAreCollected(t *testing.T) {
	r := start(t, options{})
	g := r.group("g", 5)
	g.Program, g.Outcome = "/bin/sh", pipelines.OutcomeExit
	g.Arguments = []string{"-c", `for i in 1 2 3 4; do (sleep 0.2 & echo $! >>orphans); done; exec sleep 1000`}
	r.place(g)
	status, err := r.Open(t.Context(), "k1", control.RunStage{Stage: "stage", Groups: []string{"g"}})
	if err != nil {
		t.Fatal(err)
	}
	r.until(status, func(s control.RunStatus) bool { return s.Groups["g"].Running == 5 })
	for index := range 5 {
		for r.lines(filepath.Join(r.folder.Temp("g", index), "orphans")) != 4 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	for { // until only the instances are left, none of them dead
		states := r.children()
		if len(states) == 5 && !slices.Contains(states, "Z") {
			return
		}
		if t.Context().Err() != nil || time.Since(status.Started) > time.Minute {
			t.Fatalf("the sidecar's children are in the states %v", states)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *run) lines(path string) int {
	data, _ := os.ReadFile(path)
	return strings.Count(string(data), "\n")
}

// children are the states of the sidecar's child processes: S, Z, …
func (r *run) children() []string {
	r.t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		r.t.Fatal(err)
	}
	var states []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// pid (name) state parent …
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(r.pid) {
			states = append(states, fields[0])
		}
	}
	return states
}

// nothingLeft checks that no process of the run is there, nor its temporary files and socket.
func (r *run) nothingLeft() {
	r.t.Helper()
	names, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range names {
		env, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(env), string(r.folder)) {
			r.t.Errorf("%s is still there", name)
		}
	}
	for _, path := range []string{filepath.Join(string(r.folder), "temp"), control.Socket(r.folder)} {
		if exists(path) {
			r.t.Errorf("%s is still there", path)
		}
	}
}

func TestKilledSidecarTakesItsInstancesAlong(t *testing.T) {
	r := start(t, options{})
	r.place(r.group("g", 10))
	status, err := r.Open(t.Context(), "k1", control.RunStage{Stage: "stage", Groups: []string{"g"}, Case: "sleep"})
	if err != nil {
		t.Fatal(err)
	}
	r.until(status, func(s control.RunStatus) bool { return s.Groups["g"].Running == 10 })
	if err := syscall.Kill(r.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	if _, err := r.Wait(t.Context(), "k1", 0, time.Minute); !errors.Is(err, control.ErrAway) {
		t.Errorf("got %v, want ErrAway", err)
	}
	// A new sidecar takes the socket over; it knows nothing of the stage.
	again := &run{t: t, folder: r.folder, ended: make(chan error, 1), Client: r.Client}
	p, err := launchSidecar([]string{string(r.folder), "", "1h"})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, err := p.Wait(); again.ended <- err }()
	again.awaitAnswer()
	var refused *control.Error
	if _, err := again.Wait(t.Context(), "k1", 0, 0); !errors.As(err, &refused) || refused.Status != 404 {
		t.Errorf("got %v, want a refusal with 404", err)
	}
	again.place(again.group("g", 10))
	if s := again.stage("k2", control.RunStage{Groups: []string{"g"}, Case: "together"}); s.Groups["g"].Succeeded != 10 {
		t.Errorf("%+v", s)
	}
}

func TestSecondSidecarGivesWay(t *testing.T) {
	r := start(t, options{})
	p, err := launchSidecar([]string{string(r.folder), "", "1h"})
	if err != nil {
		t.Fatal(err)
	}
	state, err := p.Wait()
	if err != nil || state.Success() {
		t.Errorf("%v, %v", state, err)
	}
	log, _ := os.ReadFile(r.folder.SidecarLog())
	if !strings.Contains(string(log), control.ErrServed.Error()) {
		t.Errorf("log: %s", log)
	}
	if _, err := r.Status(t.Context()); err != nil {
		t.Errorf("the first one is disturbed: %v", err)
	}
}

func TestTermAndIdlenessRelease(t *testing.T) {
	t.Run("SIGTERM", func(t *testing.T) {
		r := start(t, options{})
		r.place(r.group("g", 2))
		if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
		r.nothingLeft()
	})
	t.Run("idle", func(t *testing.T) {
		r := start(t, options{idle: 500 * time.Millisecond})
		r.place(r.group("g", 2))
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
		r.nothingLeft()
	})
}

func TestRedisOutside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the sidecar of an unprivileged user can't reach a Redis over TCP")
	}
	server := miniredis.RunT(t)
	if err := server.Set("somebody's", "own"); err != nil {
		t.Fatal(err)
	}
	r := start(t, options{redis: "redis://localhost:" + server.Port()})
	r.place(r.group("g", 3))
	if s := r.stage("k1", control.RunStage{Groups: []string{"g"}, Case: "together"}); s.Groups["g"].Succeeded != 3 {
		t.Errorf("%+v", s.FirstFailure)
	}
	if len(server.Keys()) < 2 {
		t.Error("nothing was written to Redis")
	}
	if _, err := r.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if left := server.Keys(); !slices.Equal(left, []string{"somebody's"}) {
		t.Errorf("the run has left %q in Redis", left)
	}
}

// TestRedisThatIsGone is a release that finds no Redis any more: it ends all the same, and says what stays.
func TestRedisThatIsGone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the sidecar of an unprivileged user can't reach a Redis over TCP")
	}
	server := miniredis.RunT(t)
	r := start(t, options{redis: "redis://localhost:" + server.Port()})
	r.place(r.group("g", 3))
	if s := r.stage("k1", control.RunStage{Groups: []string{"g"}, Case: "together"}); s.Groups["g"].Succeeded != 3 {
		t.Errorf("%+v", s.FirstFailure)
	}
	server.Close()
	began := time.Now()
	if _, err := r.Release(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("released in %v", time.Since(began))
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	r.nothingLeft()
	log, _ := os.ReadFile(r.folder.SidecarLog())
	for _, want := range []string{"the run's data stays in Redis until it expires", "the Redis client spoke"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log doesn't say %q", want)
		}
	}
	for line := range strings.Lines(string(log)) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("a line that nobody can take apart: %s", line)
		}
	}
	if t.Failed() {
		t.Logf("%s", log)
	}
}

func TestRedisOverAUnixSocketForAnUnprivilegedUser(t *testing.T) {
	server := miniredis.NewMiniRedis()
	path := filepath.Join(os.TempDir(), fmt.Sprintf("sidecar-test-redis-%d", os.Getpid()))
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go forward(l, server.Addr())
	r := start(t, options{redis: "unix://" + path, nobody: true})
	r.place(r.group("g", 2))
	if s := r.stage("k1", control.RunStage{Groups: []string{"g"}, Case: "together"}); s.Groups["g"].Succeeded != 2 {
		t.Errorf("%+v", s.FirstFailure)
	}
}

// forward connects whoever comes to an address.
func forward(l net.Listener, address string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", address)
		if err != nil {
			in.Close()
			continue
		}
		for _, ends := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				buffer := make([]byte, 4096)
				for {
					n, err := ends[0].Read(buffer)
					if n > 0 {
						_, _ = ends[1].Write(buffer[:n])
					}
					if err != nil {
						ends[1].Close()
						return
					}
				}
			}()
		}
	}
}

func TestManyInstances(t *testing.T) {
	count := manyInstances
	if testing.Short() {
		count = 100
	}
	r := start(t, options{})
	began := time.Now()
	status := r.place(r.group("g", count))
	placed := time.Now()
	t.Logf("%d placed in %v, %d KiB each in the sidecar", count, placed.Sub(began), status.MemoryPerInstance>>10)
	if again := r.place(r.group("g", count)); again.New != 0 || again.Kept != count {
		t.Errorf("placing again: %+v", again)
	}
	began = time.Now()
	s := r.stage("k1", control.RunStage{Groups: []string{"g"}, Case: "together", Deadline: time.Now().Add(2 * time.Minute)})
	t.Logf("ran in %v", time.Since(began))
	if s.Groups["g"].Succeeded != count {
		t.Errorf("%+v %+v", s, s.FirstFailure)
	}
	var starts []time.Time
	for _, i := range r.results() {
		starts = append(starts, i.Started)
	}
	slices.SortFunc(starts, time.Time.Compare)
	t.Logf("first to last start: %v, the last %v after the stage was opened", starts[len(starts)-1].Sub(starts[0]), starts[len(starts)-1].Sub(s.Started))
	log, _ := os.ReadFile(r.folder.SidecarLog())
	if _, said, opened := strings.Cut(string(log), `msg="the gate has opened" `); opened {
		t.Log("the sidecar says: " + said)
	} else {
		t.Error("the instances were let go one after the other")
	}
}
