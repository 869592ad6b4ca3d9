//go:build linux

package pods

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/pods/podtest"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestPodsThatGo(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*podtest.Pod)
		want string
	}{
		"killed":  {(*podtest.Pod).Kill, "its pod's supervisor has ended"},
		"deleted": {(*podtest.Pod).Delete, "its pod was"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, 2, podtest.Options{})
			var mu sync.Mutex
			gone := make(map[int]string)
			p := n.sidecar(func(slot int, why string) {
				mu.Lock()
				defer mu.Unlock()
				gone[slot] += why
			})
			lost, stays := launch(t, p, 0, shell("k", 1, "sleep 1000")), launch(t, p, 1, shell("k", 1, "sleep 1000"))
			test.end(n.pods[0])
			if e := lost.wait(t); !strings.Contains(e.Lost, test.want) {
				t.Errorf("lost because %q", e.Lost)
			}
			var why *keeper.Lost
			if _, err := p.Start(0, shell("k", 2, "true"), func(keeper.Exit) {}); !errors.As(err, &why) {
				t.Errorf("a start there: %v", err)
			}
			if left, err := p.Clear(t.Context(), []int{0, 1}); left != 0 || err != nil {
				t.Errorf("clearing: %d, %v", left, err)
			}
			if err := p.Signal(0, unix.SIGKILL); err != nil {
				t.Error(err)
			}
			if e := stays.wait(t); e.Lost != "" {
				t.Errorf("the other is lost too: %s", e.Lost)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(gone) != 1 || !strings.Contains(gone[0], test.want) {
				t.Errorf("gone are %v", gone)
			}
			// Its place can be taken by a new pod.
			n.pods[0] = podtest.Start(t, n.root, 0, "uid-new", podtest.Options{})
			if errs := p.Place(t.Context(), []keeper.Home{{Slot: 0, Pod: n.pods[0].Pod}}); errs[0] != nil {
				t.Fatal(errs[0])
			}
			launch(t, p, 0, shell("k", 3, "exit 0")).wait(t)
		})
	}
}

// TestAnotherSidecar has a sidecar go while programs run and end, and another one come.
func TestAnotherSidecar(t *testing.T) {
	n := newNode(t, 3, podtest.Options{})
	p := n.sidecar(nil)
	programs := []keeper.Program{shell("k", 1, "exit 5"), shell("k", 1, "sleep 0.2; exit 6"), shell("k", 1, "sleep 1000")}
	var first []*launched
	for slot, program := range programs {
		first = append(first, launch(t, p, slot, program))
	}
	first[0].wait(t)
	_ = p.Close()
	time.Sleep(400 * time.Millisecond) // nobody is there while the second ends
	p = n.sidecar(nil)
	for slot, program := range programs {
		again := launch(t, p, slot, program)
		if !again.At.Equal(first[slot].At) {
			t.Errorf("program %d was started again", slot)
		}
		if slot == 2 {
			_ = p.Signal(slot, unix.SIGKILL)
		}
		e := again.wait(t)
		if slot < 2 && e.Status.ExitStatus() != 5+slot || slot == 2 && e.Status.Signal() != unix.SIGKILL {
			t.Errorf("program %d ended with %#x", slot, e.Status)
		}
	}
}

// TestBrokenConnections breaks the connection again and again while programs are started and end.
func TestBrokenConnections(t *testing.T) {
	n := newNode(t, 1, podtest.Options{})
	p := n.sidecar(nil)
	ctx, stop := context.WithCancel(t.Context())
	var trouble sync.WaitGroup
	trouble.Go(func() {
		for ctx.Err() == nil {
			if pod, err := p.at(0); err == nil {
				if l, _, _ := pod.now(); l != nil {
					_ = l.conn.Close()
				}
			}
			time.Sleep(3 * time.Millisecond)
		}
	})
	for i := range 100 {
		s := launch(t, p, 0, shell("k", i, fmt.Sprintf("echo %d; exit %d", i, i%50)))
		if e := s.wait(t); e.Lost != "" || e.Status.ExitStatus() != i%50 {
			t.Errorf("start %d ended with %+v", i, e)
		}
	}
	stop()
	trouble.Wait()
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintln(&want, i)
	}
	if got := n.output(0, "stdout.log"); got != want.String() {
		t.Errorf("not each was started once: %q", got)
	}
}

func TestThousandStarts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: left out of short tests")
	}
	const pods, each = 10, 100
	n := newNode(t, pods, podtest.Options{})
	p := n.sidecar(nil)
	began := time.Now()
	var work sync.WaitGroup
	for slot := range pods {
		work.Go(func() {
			for i := range each {
				exits := make(chan keeper.Exit, 2)
				if _, err := p.Start(slot, shell("k", i, "exit 9"), func(e keeper.Exit) { exits <- e }); err != nil {
					t.Error(err)
					return
				}
				if e := <-exits; e.Status.ExitStatus() != 9 {
					t.Errorf("slot %d, start %d: %+v", slot, i, e)
				}
			}
		})
	}
	work.Wait()
	t.Logf("%d starts in %v", pods*each, time.Since(began))
}
