//go:build unix

package runs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestCopyTree(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := errors.Join(
		os.MkdirAll(filepath.Join(from, "a", "b"), 0o755),
		os.WriteFile(filepath.Join(from, "a", "one"), []byte("one"), 0o400),
		os.Chtimes(filepath.Join(from, "a", "one"), at, at),
		os.Link(filepath.Join(from, "a", "one"), filepath.Join(from, "a", "b", "other")),
		os.Symlink("/etc/passwd", filepath.Join(from, "a", "away")),
		syscall.Mkfifo(filepath.Join(from, "a", "pipe"), 0o644),
		os.Chmod(filepath.Join(from, "a", "b"), 0o555),
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(from, "a", "b"), 0o755) })
	var total int64
	if err := CopyTree(t.Context(), from, to, func(n int64) { total = n }); err != nil {
		t.Fatal(err)
	}
	if total != 3 {
		t.Errorf("%d bytes were copied: a file of two names is one", total)
	}
	one, err := os.Stat(filepath.Join(to, "a", "one"))
	if err != nil || !one.ModTime().Equal(at) || one.Size() != 3 {
		t.Fatalf("got %+v, %v", one, err)
	}
	if other, err := os.Stat(filepath.Join(to, "a", "b", "other")); err != nil || !os.SameFile(one, other) {
		t.Errorf("the two names are not one file: %v", err)
	}
	if target, err := os.Readlink(filepath.Join(to, "a", "away")); err != nil || target != "/etc/passwd" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if exists(filepath.Join(to, "a", "pipe")) {
		t.Error("a pipe was copied")
	}
	if err := os.WriteFile(filepath.Join(to, "a", "one"), []byte("changed"), 0o600); err != nil {
		t.Errorf("the copy can't be written: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(from, "a", "one")); err != nil || string(data) != "one" {
		t.Errorf("the source has %q, %v", data, err)
	}
}

func TestCopyTreeOfNothingAndCancelled(t *testing.T) {
	to := filepath.Join(t.TempDir(), "to")
	if err := CopyTree(t.Context(), filepath.Join(t.TempDir(), "none"), to, func(int64) {}); err != nil || exists(to) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if err := CopyTree(ctx, t.TempDir(), to, func(int64) {}); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}
