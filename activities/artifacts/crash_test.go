package artifacts

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groundplan/groundplan/pipelines"
)

// TestMain lets the test binary be a builder that can be killed: with ARTIFACTS_TEST_STORE set it builds a module into
// that store, and ends.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ARTIFACTS_TEST_STORE"); dir != "" {
		os.Exit(buildInChild(dir, os.Getenv("ARTIFACTS_TEST_ROOT")))
	}
	os.Exit(m.Run())
}

func buildInChild(dir, root string) int {
	t := New(dir)
	artifact, err := t.Build(context.Background(), Order{Name: "peer", Root: root, Source: pipelines.Source{Go: &pipelines.GoSource{Module: "plan"}}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(artifact.Path, artifact.Cached)
	return 0
}

func (w *workbench) child() *exec.Cmd {
	w.Helper()
	self, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = slices.Concat(w.store.environ, []string{"ARTIFACTS_TEST_STORE=" + w.store.dir, "ARTIFACTS_TEST_ROOT=" + w.root})
	return cmd
}

// TestKilledAnywhere kills builders at random moments. Whatever they leave, the next build gives the program, and
// nothing else remains.
func TestKilledAnywhere(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	w := newWorkbench(t)
	for round := range rounds {
		text := fmt.Sprintf("round %d", round)
		w.write(plain(text))
		cmd := w.child()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		w.must(pipelines.GoSource{}, text)
		if left, err := filepath.Glob(filepath.Join(w.store.dir, ".making-*")); err != nil || len(left) > 0 {
			t.Errorf("after round %d: %v %v", round, left, err)
		}
	}
}

// TestTwoBuildersAtOnce lets several processes build the same: one compiles, the others wait for it.
func TestTwoBuildersAtOnce(t *testing.T) {
	w := newWorkbench(t).write(plain("together"))
	var group sync.WaitGroup
	said := make([]string, 4)
	for i := range said {
		group.Go(func() {
			out, err := w.child().CombinedOutput()
			if err != nil {
				t.Errorf("builder %d: %v: %s", i, err, out)
			}
			said[i] = string(out)
		})
	}
	group.Wait()
	compiled := 0
	for _, text := range said {
		if strings.Contains(text, "false") {
			compiled++
		}
	}
	if compiled != 1 {
		t.Errorf("%d builders compiled: %q", compiled, said)
	}
}

// TestDamage puts rubbish where the store keeps its own files.
func TestDamage(t *testing.T) {
	w := newWorkbench(t).write(plain("whole"))
	artifact := w.must(pipelines.GoSource{}, "whole")
	indexes, err := filepath.Glob(filepath.Join(w.store.dir, ".index", "*.json"))
	if err != nil || len(indexes) == 0 {
		t.Fatalf("no index: %v", err)
	}
	for _, path := range indexes {
		if err := os.WriteFile(path, []byte("{\"files\": {\"x\": null}, rubbish"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if again := w.must(pipelines.GoSource{}, "whole"); !again.Cached {
		t.Error("a damaged index gave another digest")
	}
	if err := os.Remove(artifact.Path); err != nil {
		t.Fatal(err)
	}
	if again := w.must(pipelines.GoSource{}, "whole"); again.Cached || again.Digest != artifact.Digest {
		t.Errorf("a removed program gave %+v", again)
	}
}

// TestAChangeWithinOneTick changes a file right after a build without changing its size.
func TestAChangeWithinOneTick(t *testing.T) {
	w := newWorkbench(t).write(plain("one"))
	first := w.must(pipelines.GoSource{}, "one")
	if second := w.write(plain("two")).must(pipelines.GoSource{}, "two"); second.Digest == first.Digest {
		t.Error("the change was not seen")
	}
}

func BenchmarkWarm(b *testing.B) {
	dir := b.TempDir()
	root := b.TempDir()
	for name, content := range plain("warm") {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(settled) // what changed just now is read again each time
	order := Order{Name: "peer", Root: root, Source: pipelines.Source{Go: &pipelines.GoSource{Module: "plan"}}}
	for range 2 {
		if _, err := New(dir).Build(b.Context(), order); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		artifact, err := New(dir).Build(b.Context(), order)
		if err != nil || !artifact.Cached {
			b.Fatal(artifact, err)
		}
	}
}
