//go:build linux

package pods

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/sidecar/keeper"
	"github.com/groundplan/groundplan/sidecar/pods/podtest"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	podtest.Cleanup()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

// node is a node with pods.
type node struct {
	t    *testing.T
	root string
	pods []*podtest.Pod
}

// kinds are both kinds of pods: the first process of a namespace, and one beside others.
func kinds(t *testing.T, test func(t *testing.T, o podtest.Options)) {
	t.Run("namespaces", func(t *testing.T) { test(t, podtest.Options{}) })
	t.Run("plain", func(t *testing.T) { test(t, podtest.Options{Plain: true}) })
}

func newNode(t *testing.T, count int, o podtest.Options) *node {
	n := &node{t: t, root: t.TempDir()}
	for slot := range count {
		n.pods = append(n.pods, podtest.Start(t, n.root, slot, fmt.Sprintf("uid-%d", slot), o))
	}
	return n
}

// sidecar is one that follows all pods of a node.
func (n *node) sidecar(gone func(int, string)) *Pods {
	n.t.Helper()
	p, err := New(Options{KubeletRoot: n.root, Folder: "-", Gone: gone, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = p.Close() })
	var homes []keeper.Home
	for _, pod := range n.pods {
		homes = append(homes, keeper.Home{Slot: pod.Slot, Group: "g", Index: pod.Slot, Pod: pod.Pod})
	}
	for i, err := range p.Place(n.t.Context(), homes) {
		if err != nil {
			n.t.Fatalf("placing pod %d: %v", i, err)
		}
	}
	return p
}

// shell is a program that a shell runs.
func shell(key string, starts int, script string) keeper.Program {
	return keeper.Program{Key: key, Starts: starts, Path: "sh", Args: []string{"sh", "-c", script}, Env: []string{"A=asked"}}
}

// started is a program whose end is waited for.
type launched struct {
	keeper.Started
	exits chan keeper.Exit
}

func launch(t *testing.T, p *Pods, slot int, program keeper.Program) *launched {
	t.Helper()
	s := &launched{exits: make(chan keeper.Exit, 10)}
	var err error
	if s.Started, err = p.Start(slot, program, func(e keeper.Exit) { s.exits <- e }); err != nil {
		t.Fatalf("starting %s: %v", program.Args, err)
	}
	return s
}

func (s *launched) wait(t *testing.T) keeper.Exit {
	t.Helper()
	select {
	case e := <-s.exits:
		return e
	case <-time.After(patience):
		t.Fatal("nobody says that the program has ended")
		return keeper.Exit{}
	}
}

func (n *node) output(slot int, name string) string {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.pods[slot].Path, "outputs", name))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if so() {
			return
		}
	}
	t.Fatalf("%s didn't come about", what)
}
