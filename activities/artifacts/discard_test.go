package artifacts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func obtained(t *testing.T, s *Store, digest string) (path string, cached bool) {
	t.Helper()
	path, cached, err := s.obtain(t.Context(), Order{Name: "x"}, digest, nil, func(folder string) error {
		return os.WriteFile(filepath.Join(folder, programName), []byte("x"), 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
	return path, cached
}

func TestDiscard(t *testing.T) {
	s := New(t.TempDir())
	digest := strings.Repeat("ab", 32)
	path, _ := obtained(t, s, digest)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Dir(path), old, old); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Digest != digest || list[0].Used.After(old.Add(time.Second)) {
		t.Fatalf("listed are %+v, %v", list, err)
	}
	decided := time.Now().Add(-time.Minute)
	if _, cached := obtained(t, s, digest); !cached {
		t.Error("it was made again")
	}
	if gone, err := s.Discard(digest, decided); gone || err != nil {
		t.Errorf("one that was asked for since: %v, %v", gone, err)
	}
	if gone, err := s.Discard(digest, time.Now().Add(time.Second)); !gone || err != nil {
		t.Errorf("got %v, %v", gone, err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it is there still")
	}
	if _, cached := obtained(t, s, digest); cached {
		t.Error("it was not made again")
	}
	for _, name := range []string{"..", "../x", "", ".index"} {
		if _, err := s.Discard(name, time.Now()); err == nil {
			t.Errorf("%q was discarded", name)
		}
	}
}

func TestSweep(t *testing.T) {
	s := New(t.TempDir())
	busy, free, gone := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)
	unlock, err := lock(t.Context(), s.lockPath(busy), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	for _, name := range []string{".making-" + busy + "-1", ".making-" + free + "-2", discarded + gone, free} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{".making-" + busy + "-1": true, ".making-" + free + "-2": false, discarded + gone: false, free: true} {
		if _, err := os.Stat(filepath.Join(s.dir, name)); (err == nil) != want {
			t.Errorf("%s is there: %v", name, err == nil)
		}
	}
}

// TestDiscardBesideBuilds discards what others ask for all the time: whoever is given a path finds the program there.
func TestDiscardBesideBuilds(t *testing.T) {
	s := New(t.TempDir())
	digest := strings.Repeat("ab", 32)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for ctx.Err() == nil {
				path, _ := obtained(t, s, digest)
				for range 20 { // it was asked for a moment ago: nobody takes it
					if _, err := os.Stat(path); err != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	discards := 0
	for ctx.Err() == nil {
		gone, err := s.Discard(digest, time.Now().Add(-100*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if gone {
			discards++
		}
	}
	work.Wait()
	t.Logf("discarded %d times", discards)
}
