package worker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

func resume(t *testing.T, h *Handle, from string) {
	t.Helper()
	if err := h.Resume(t.Context(), from); err != nil {
		t.Fatal(err)
	}
}

func mend(t *testing.T, home runs.Home) {
	t.Helper()
	touch(t, home, "mended")
	t.Cleanup(func() { os.Remove(filepath.Join(string(home), "mended")) })
}

func testResume(t *testing.T, s *Session, home runs.Home) {
	h := start(t, s, "resumed", "ok-build ok-schedule ok-run fail-run ok-collect")
	if output := wait(t, h); output.Verdict != stage.Failed {
		t.Fatalf("got %+v", output)
	}
	mend(t, home)
	resume(t, h, "")
	output := wait(t, h)
	if output.Verdict != stage.Passed || len(output.Results) != 5 {
		t.Errorf("got %+v", output)
	}
	want := []string{ // the placement was released, so it is made again
		"ok-build 1 1", "ok-schedule 1 1", "ok-run 1 1", "fail-run 1 1",
		"ok-schedule 2 1", "fail-run 2 1", "ok-collect 1 1",
	}
	if got := starts(t, home, "resumed"); !slices.Equal(got, want) {
		t.Errorf("started were %q, want %q", got, want)
	}
	if err := h.Resume(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "passed") {
		t.Errorf("resuming a run that passed: %v", err)
	}
}

func testResumeFrom(t *testing.T, s *Session, home runs.Home) {
	h := start(t, s, "from", "ok-build ok-schedule ok-run ok-run-two ok-collect")
	wait(t, h)
	resume(t, h, "ok-run-two")
	if output := wait(t, h); output.Verdict != stage.Passed || len(output.Results) != 5 {
		t.Errorf("got %+v", output)
	}
	resume(t, h, "ok-collect")
	wait(t, h)
	want := []string{
		"ok-build 1 1", "ok-schedule 1 1", "ok-run 1 1", "ok-run-two 1 1", "ok-collect 1 1",
		"ok-schedule 2 1", "ok-run-two 2 1", "ok-collect 2 1",
	}
	got := starts(t, home, "from")
	if len(got) < len(want) || !slices.Equal(got[:len(want)], want) || got[len(got)-1] != "ok-collect 3 1" {
		t.Errorf("started were %q, want %q and then another collect", got, want)
	}
}

func testResumeCancelled(t *testing.T, s *Session, home runs.Home) {
	h := start(t, s, "cut", "ok-build ok-schedule slow-run ok-collect")
	until(t, "the stage runs", func() bool { return len(starts(t, home, "cut")) == 3 })
	if err := h.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if output := wait(t, h); output.Verdict != stage.Cancelled {
		t.Fatalf("got %+v", output)
	}
	touch(t, home, "go")
	resume(t, h, "")
	if output := wait(t, h); output.Verdict != stage.Passed {
		t.Errorf("got %+v", output)
	}
	got := starts(t, home, "cut")
	if n := len(slices.DeleteFunc(got, func(s string) bool { return !strings.HasPrefix(s, "ok-build") })); n != 1 {
		t.Errorf("it was built %d times", n)
	}
}

func testResumeRefused(t *testing.T, s *Session, _ runs.Home) {
	h := start(t, s, "refused", "stuck-run")
	if err := h.Resume(t.Context(), ""); !errors.Is(err, ErrRunning) {
		t.Errorf("a run under way: %v", err)
	}
	if err := h.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, h)
	if err := h.Resume(t.Context(), "nonsense"); err == nil || !strings.Contains(err.Error(), "stuck-run") {
		t.Errorf("a stage that isn't there: %v", err)
	}
}

func testResumeMatrix(t *testing.T, s *Session, home runs.Home) {
	h := startMatrix(t, s, "rematrix", "ok-build", "fail-run")
	if output := wait(t, h); output.Verdict != stage.Failed {
		t.Fatalf("got %+v", output)
	}
	if err := h.Resume(t.Context(), "ok-build"); err == nil {
		t.Error("a matrix was resumed from a stage")
	}
	mend(t, home)
	resume(t, h, "")
	if output := wait(t, h); output.Verdict != stage.Passed || len(output.Cells) != 2 {
		t.Errorf("got %+v", output)
	}
	if got := starts(t, home, "rematrix.1"); len(got) != 1 {
		t.Errorf("the cell that had passed was run again: %q", got)
	}
}
