package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groundplan/groundplan/runs"
)

func write(t *testing.T, folder runs.Folder, group string, index int, name, text string) {
	t.Helper()
	dir := folder.Outputs(group, index)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, folder runs.Folder, s Selection, o Options) ([]string, error) {
	t.Helper()
	var lines []string
	err := Read(t.Context(), folder, s, o, func(l Line) error {
		lines = append(lines, fmt.Sprintf("%s/%d %s %s", l.Group, l.Index, l.Stream, l.Text))
		return nil
	})
	return lines, err
}

func TestSelect(t *testing.T) {
	for text, want := range map[string]Selection{"eu": {"eu", -1}, "eu/0": {"eu", 0}, "eu/12": {"eu", 12}} {
		if got, err := Select(text); err != nil || got != want {
			t.Errorf("Select(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "/", "/3", "eu/", "eu/x", "eu/-1", "eu/03", "eu/1/2", "../x", `a\b`} {
		if got, err := Select(text); err == nil {
			t.Errorf("Select(%q) = %v", text, got)
		}
	}
}

func TestRead(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	write(t, folder, "us", 0, "stdout.log", "us zero\n")
	for i := range 11 {
		write(t, folder, "eu", i, "stdout.log", fmt.Sprintf("one %d\r\ntwo %d", i, i))
	}
	write(t, folder, "eu", 3, "stderr.log", "trouble\n\n")
	lines, err := read(t, folder, All, Options{})
	if err != nil || len(lines) != 23 {
		t.Fatalf("%v: %d lines", err, len(lines))
	}
	// In the order of indices, not of their names; a line without an end is given out at the end.
	if lines[2] != "eu/2 stdout one 2" || lines[10] != "eu/10 stdout one 10" || lines[11] != "us/0 stdout us zero" || lines[12] != "eu/0 stdout two 0" {
		t.Errorf("%q", lines)
	}
	lines, err = read(t, folder, Selection{"eu", 3}, Options{Stderr: true})
	if want := []string{"eu/3 stderr trouble", "eu/3 stderr "}; err != nil || !slices.Equal(lines, want) {
		t.Errorf("%v: %q", err, lines)
	}
}

func TestReadNothing(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	_, err := read(t, folder, All, Options{})
	if err == nil || !strings.Contains(err.Error(), "holds no outputs") {
		t.Errorf("%v", err)
	}
	write(t, folder, "eu", 0, "stdout.log", "")
	for selection, want := range map[Selection]string{{"us", -1}: `no group "us"; it has eu`, {"eu", 4}: "group eu has no instance 4"} {
		if _, err := read(t, folder, selection, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", selection, err)
		}
	}
}

func TestVeryLongLinesAreBroken(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	write(t, folder, "a", 0, "stdout.log", strings.Repeat("x", maxLine+10)+"\nnext\n")
	lines, err := read(t, folder, All, Options{})
	if err != nil || len(lines) < 2 || lines[len(lines)-1] != "a/0 stdout next" {
		t.Fatalf("%v: %d lines", err, len(lines))
	}
	total := 0
	for _, line := range lines {
		total += strings.Count(line, "x") - strings.Count("next", "x")*strings.Count(line, "next")
	}
	if total != maxLine+10 {
		t.Errorf("%d of %d bytes came through", total, maxLine+10)
	}
}

func TestFollow(t *testing.T) {
	folder := runs.Folder(t.TempDir())
	write(t, folder, "a", 0, "stdout.log", "first\nsec")
	var ended atomic.Bool
	got := make(chan string, 10)
	done := make(chan error, 1)
	go func() {
		done <- Read(t.Context(), folder, All, Options{Every: time.Millisecond, Ended: ended.Load}, func(l Line) error {
			got <- l.Text
			return nil
		})
	}()
	if line := <-got; line != "first" {
		t.Errorf("%q", line)
	}
	write(t, folder, "a", 0, "stdout.log", "ond\n")
	write(t, folder, "b", 0, "stdout.log", "later\nlast")
	seen := []string{<-got, <-got}
	ended.Store(true)
	seen = append(seen, <-got)
	slices.Sort(seen)
	if !slices.Equal(seen, []string{"last", "later", "second"}) {
		t.Errorf("%q", seen)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFollowIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Read(ctx, runs.Folder(t.TempDir()), All, Options{Every: time.Hour, Ended: func() bool { return false }}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
