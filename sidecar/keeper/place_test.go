//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sidecar/control"
)

func TestPlaceConverges(t *testing.T) {
	b := newBench(t)
	all := placement(shell("a", 3, ""), shell("b", 2, ""))
	all.Groups = []string{"b"}
	status, err := b.Place(t.Context(), all)
	if err != nil || status.New != 2 || status.Kept != 0 || status.Groups["b"].Placed != 2 || status.Groups["a"] != (control.Counts{Total: 3}) {
		t.Errorf("%+v, %v", status, err)
	}
	if host := b.network.present[3]; host != "b-0" { // behind all of a, which aren't placed
		t.Errorf("slot 3 is %q", host)
	}
	all.Groups = []string{"a", "b"}
	if status, err = b.Place(t.Context(), all); err != nil || status.New != 3 || status.Kept != 2 || status.FaultCount != 0 {
		t.Errorf("%+v, %v", status, err)
	}
	for _, dir := range []string{b.folder.Outputs("a", 2), b.folder.Temp("b", 1)} {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
}

func TestFaultsOfSomeDontStopOthers(t *testing.T) {
	b := newBench(t)
	blocked := b.folder.Outputs("a", 1)
	if err := os.MkdirAll(filepath.Dir(blocked), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blocked, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b.network.addFault = func(s Seat) error {
		if s.Slot >= 5 {
			return errors.New("no more namespaces")
		}
		return nil
	}
	status := b.place(shell("a", 30, ""))
	if status.New != 4 || status.FaultCount != 26 || len(status.Faults) != 20 || status.Groups["a"].Placed != 4 {
		t.Errorf("%+v", status)
	}
	if f := status.Faults["a/1"]; !strings.HasSuffix(f, blocked+": not a directory") {
		t.Errorf("fault: %s", f)
	}
	if f := status.Faults["a/5"]; f != "giving it a network: no more namespaces" {
		t.Errorf("fault: %s", f)
	}
	b.network.addFault = nil
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	if status = b.place(shell("a", 30, "")); status.New != 26 || status.Kept != 4 || status.FaultCount != 0 {
		t.Errorf("%+v", status)
	}
}

func TestPlaceRefuses(t *testing.T) {
	b := newBench(t)
	refused := func(ask control.Placement, want string) {
		t.Helper()
		_, err := b.Place(t.Context(), ask)
		if refusal := new(control.Error); !errors.As(err, &refusal) || refusal.Message != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	other := placement(shell("a", 1, ""))
	other.Run = "run-2"
	refused(other, "this is the sidecar of run run-1, not of run-2")
	refused(placement(shell("a", 1, ""), shell("a", 1, "")), `group "a" of 1 instances can't be placed: names must be unique and counts not negative`)
	unknown := placement(shell("a", 1, ""))
	unknown.Groups = []string{"z"}
	refused(unknown, `group "z" is to be placed but is not among all groups`)
	b.place(shell("a", 1, ""))
	refused(placement(shell("a", 2, "")), "run run-1 holds a placement of other groups: release it before placing these")
}

func TestNewPlacementBringsNewPrograms(t *testing.T) {
	b := newBench(t)
	b.place(shell("a", 1, "exit 9"))
	b.place(shell("a", 1, success))
	if s := b.run("k1", control.RunStage{Groups: []string{"a"}}); s.Groups["a"].Succeeded != 1 {
		t.Errorf("%+v", s.FirstFailure)
	}
}

func TestPlacingTwiceAtOnceAddsOnce(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	added, kept := 0, 0
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			status, err := b.Place(t.Context(), placement(shell("a", 50, "")))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			added += status.New
			kept += status.Kept
		})
	}
	callers.Wait()
	if added != 50 || kept != 150 {
		t.Errorf("added %d, kept %d", added, kept)
	}
}

func TestReleaseEndsEverythingAndIsFinal(t *testing.T) {
	b := newBench(t)
	b.place(shell("a", 2, "sleep 7541"))
	b.open("k1", control.RunStage{Groups: []string{"a"}})
	b.until("k1", func(s control.RunStatus) bool { return s.Groups["a"].Running == 2 })
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() {
			if _, err := b.Release(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if left := alive(t, "7541"); len(left) > 0 {
		t.Errorf("still alive: %v", left)
	}
	if _, err := os.Stat(tempRoot(b.folder)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("temporary files: %v", err)
	}
	if _, err := b.Place(t.Context(), placement(shell("a", 2, ""))); err == nil || err.Error() != "the run has been released" {
		t.Errorf("placing after release: %v", err)
	}
	if _, err := b.Open(t.Context(), "k2", control.RunStage{Stage: "s", Groups: []string{"a"}}); err == nil || err.Error() != "the run has been released" {
		t.Errorf("opening after release: %v", err)
	}
}

func TestSyncServiceThatFailsIsAFaultOfTheGround(t *testing.T) {
	b := newBench(t)
	b.signals.fail = errors.New("the data is lost")
	b.place(shell("a", 2, "echo started"))
	status := b.run("k1", control.RunStage{Groups: []string{"a"}})
	if status.Fault != "signalling that the network is ready: the data is lost" || status.Unfinished != 2 {
		t.Errorf("%+v", status)
	}
	if _, err := os.Stat(filepath.Join(b.folder.Outputs("a", 0), "stdout.log")); err == nil {
		t.Error("the instance was started all the same")
	}
}

func TestHaltWhileTheSyncServiceIsAway(t *testing.T) {
	b := newBench(t)
	b.signals.hold = make(chan struct{})
	b.place(shell("a", 2, ""))
	b.open("k1", control.RunStage{Groups: []string{"a"}})
	status, err := b.Halt(t.Context(), "k1")
	if err != nil || !status.Halted || status.Unfinished != 2 || status.Fault != "" {
		t.Errorf("%+v, %v", status, err)
	}
	if r := b.results("lookups")["a/1"]; r.Reason != "not started yet when the stage was ended" {
		t.Errorf("%+v", r)
	}
}

func TestWaitReturnsWhenSomethingChanged(t *testing.T) {
	b := newBench(t)
	b.place(shell("a", 1, "while ! [ -e go ]; do sleep 0.02; done; "+success))
	b.open("k1", control.RunStage{Groups: []string{"a"}})
	status := b.until("k1", func(s control.RunStatus) bool { return s.Groups["a"].Running == 1 })
	began := time.Now()
	if same, err := b.Wait(t.Context(), "k1", status.Version, 50*time.Millisecond); err != nil || same.Done || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%+v, %v after %v", same, err, time.Since(began))
	}
	if err := os.WriteFile(filepath.Join(b.folder.Temp("a", 0), "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	status, err := b.Wait(t.Context(), "k1", status.Version, time.Minute)
	if err != nil || status.Groups["a"].Succeeded != 1 {
		t.Errorf("%+v, %v", status, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	b.end("k1")
	if _, err := b.Wait(ctx, "k2", 0, time.Minute); err == nil || err.Error() != `no stage was opened with the key "k2"` {
		t.Errorf("unknown key: %v", err)
	}
}

func TestEventsTell(t *testing.T) {
	b := newBench(t)
	b.place(shell("a", 30, "exit 1"))
	b.run("k1", control.RunStage{Groups: []string{"a"}})
	data, err := os.ReadFile(b.folder.Events())
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for line := range strings.Lines(string(data)) {
		_, kind, _ := strings.Cut(line, `"kind":"`)
		kind, _, _ = strings.Cut(kind, `"`)
		count[kind]++
	}
	want := map[string]int{"sidecar-started": 1, "stage-opened": 1, "stage-closed": 1, "instance-failed": 20}
	if !maps.Equal(count, want) {
		t.Errorf("%v, want %v\n%s", count, want, data)
	}
	if !strings.Contains(string(data), "the gate of stage lookups has closed: 0 succeeded, 30 did not") {
		t.Errorf("%s", data)
	}
}

func TestJournalEndsATornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	if err := os.WriteFile(path, []byte(`{"a":1}`+"\n"+`{"b`), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(j.write(map[string]int{"c": 2}), j.close()); err != nil {
			t.Fatal(err)
		}
	}
	data, _ := os.ReadFile(path)
	if want := "{\"a\":1}\n{\"b\n{\"c\":2}\n{\"c\":2}\n"; string(data) != want {
		t.Errorf("%q, want %q", data, want)
	}
	if _, err := openJournal(t.TempDir()); err == nil {
		t.Error("a folder was opened as a journal")
	}
}

func TestHostnames(t *testing.T) {
	if h := control.Hostname("peer", 17); h != "peer-17" {
		t.Error(h)
	}
	long := strings.Repeat("x", 63)
	seen := map[string]bool{}
	for i := range 1000 {
		h := control.Hostname(long, i)
		if len(h) > 63 || seen[h] {
			t.Fatalf("%q is too long or there twice", h)
		}
		seen[h] = true
	}
}

func TestSeeds(t *testing.T) {
	seen := map[uint64]string{}
	for _, run := range []uint64{0, 7} {
		for _, group := range []string{"a", "b"} {
			for i := range 100 {
				s := seedOf(run, group, i)
				if other, twice := seen[s]; twice {
					t.Errorf("%s and %d/%s/%d have the same seed", other, run, group, i)
				}
				seen[s] = fmt.Sprintf("%d/%s/%d", run, group, i)
			}
		}
	}
	if s := seedOf(7, "a", 0); s != 0x5afc2d725f98b90f {
		t.Errorf("seeds have changed: %#x; runs can't be repeated any more", s)
	}
}

func TestPeak(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ seen, maxrss, parent, want int64 }{
		{5 * mib, 30 * mib, 30 * mib, 5 * mib},     // the kernel's figure is the parent's
		{5 * mib, 30*mib + 100, 30 * mib, 5 * mib}, // and may be off a little
		{5 * mib, 90 * mib, 30 * mib, 90 * mib},    // grew after the last look
		{95 * mib, 90 * mib, 30 * mib, 95 * mib},   // the two count differently
		{0, 30 * mib, 30 * mib, 0},                 // nothing is known
	} {
		if got := peak(c.seen, c.maxrss, c.parent); got != c.want {
			t.Errorf("peak(%d, %d, %d) = %d, want %d", c.seen, c.maxrss, c.parent, got, c.want)
		}
	}
}
