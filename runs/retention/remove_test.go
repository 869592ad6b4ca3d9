package retention

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestBin(t *testing.T) {
	outside, folder := t.TempDir(), filepath.Join(t.TempDir(), "runs")
	precious := filepath.Join(outside, "precious")
	out := filepath.Join(folder, "r1", "outputs")
	if err := errors.Join(
		os.WriteFile(precious, []byte("x"), 0o600),
		os.MkdirAll(out, 0o755), os.MkdirAll(filepath.Join(folder, "r2"), 0o755),
		os.Symlink(outside, filepath.Join(out, "away")),
		os.Symlink(outside, filepath.Join(folder, "linked")),
		os.WriteFile(filepath.Join(out, "f"), nil, 0o600),
		os.Chmod(out, 0o500),
	); err != nil {
		t.Fatal(err)
	}
	bin, err := OpenBin(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer bin.Close()
	for _, name := range []string{"r1", "r2", "linked", "none"} {
		if err := bin.PutAside(name); err != nil {
			t.Fatal(err)
		}
	}
	if left := names(t, folder); len(left) != 3 || slices.Contains(left, "r1") {
		t.Errorf("after putting aside there are %q", left)
	}
	if undone, err := bin.PutBack("r2"); !undone || err != nil || !slices.Contains(names(t, folder), "r2") {
		t.Errorf("put back: %v, %v", undone, err)
	}
	if undone, err := bin.PutBack("none"); undone || err != nil {
		t.Errorf("put back what was never there: %v, %v", undone, err)
	}
	// A name that is taken meanwhile stays somebody else's.
	if err := os.Mkdir(filepath.Join(folder, "r1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if undone, err := bin.PutBack("r1"); undone || err != nil {
		t.Errorf("put back over another: %v, %v", undone, err)
	}
	again, err := OpenBin(folder) // another process, after a crash
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Empty(); err != nil {
		t.Error(err)
	}
	if left := names(t, folder); !slices.Equal(left, []string{"r1", "r2"}) {
		t.Errorf("left are %q", left)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("what a link led to: %v", err)
	}
}

func TestBinOutside(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "runs")
	if err := errors.Join(os.Mkdir(folder, 0o755), os.Mkdir(filepath.Join(folder, "..", "other"), 0o755)); err != nil {
		t.Fatal(err)
	}
	bin, err := OpenBin(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer bin.Close()
	if err := bin.PutAside("../other"); err == nil {
		t.Error("something outside was put aside")
	}
	if bin, err := OpenBin(filepath.Join(folder, "none")); bin != nil || err != nil {
		t.Errorf("a folder that isn't there: %v, %v", bin, err)
	}
}

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestUsage(t *testing.T) {
	folder := t.TempDir()
	old, late := time.Now().Add(-time.Hour).Truncate(time.Second), time.Now().Add(time.Hour).Truncate(time.Second)
	big := filepath.Join(folder, "big")
	if err := errors.Join(
		os.WriteFile(big, make([]byte, 1<<20), 0o600), os.Link(big, filepath.Join(folder, "same")), os.Chtimes(big, late, late),
		os.Symlink("/usr", filepath.Join(folder, "away")), os.Chtimes(folder, old, old),
	); err != nil {
		t.Fatal(err)
	}
	bytes, changed, err := Usage(folder)
	if err != nil || bytes < 1<<20 || bytes > 1<<20+64<<10 || !changed.Equal(late) {
		t.Errorf("got %d bytes, changed %v, %v", bytes, changed, err)
	}
	if bytes, _, err := Usage(filepath.Join(folder, "none")); bytes != 0 || err != nil {
		t.Errorf("of nothing: %d, %v", bytes, err)
	}
}
