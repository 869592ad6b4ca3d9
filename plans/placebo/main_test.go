package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

// caseVariable has this program run a case, by itself and without the other instances.
const caseVariable = "PLACEBO_TEST_CASE"

func TestMain(m *testing.M) {
	name := os.Getenv(caseVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	_ = cases[name](context.Background(), run(map[string]string{"status": "7"}))
	os.Exit(99) // the case came back
}

func run(params map[string]string) *sdk.Run {
	return &sdk.Run{Environment: sdk.Environment{Params: params}}
}

func TestCasesThatEndTheProgram(t *testing.T) {
	for name, want := range map[string]int{"exit": 7, "silent": 0, "panic": 2} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), caseVariable+"="+name)
		said, _ := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
			t.Errorf("%s: %v, want exit status %d\n%s", name, cmd.ProcessState, want, said)
		}
	}
}

func TestFailGivesItsReason(t *testing.T) {
	if err := fail(t.Context(), run(nil)); err == nil || err.Error() != "it was asked to fail" {
		t.Error(err)
	}
	if err := fail(t.Context(), run(map[string]string{"reason": "no peers"})); err == nil || err.Error() != "no peers" {
		t.Error(err)
	}
}

func TestFlakyFailsFirst(t *testing.T) {
	for name, c := range map[string]struct {
		params map[string]string
		fails  []bool
	}{
		"by default": {nil, []bool{true, false, false}},
		"twice":      {map[string]string{"failures": "2"}, []bool{true, true, false}},
		"never":      {map[string]string{"share": "0%"}, []bool{false, false}},
	} {
		r := run(c.params)
		r.Outputs = t.TempDir()
		for i, fails := range c.fails {
			if err := flaky(t.Context(), r); (err != nil) != fails {
				t.Errorf("%s: try %d: %v", name, i+1, err)
			}
		}
	}
	for name, value := range map[string]string{"share": "many", "failures": "some"} {
		if err := flaky(t.Context(), run(map[string]string{name: value})); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	r := run(nil)
	r.Outputs = "/no/such/folder"
	if err := flaky(t.Context(), r); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("outputs that aren't there: %v", err)
	}
}

func TestDrawnFollowsTheSeed(t *testing.T) {
	const n = 10_000
	count := 0
	for seed := range uint64(n) {
		first := drawn(seed, 0.2)
		if drawn(seed, 0.2) != first {
			t.Fatalf("seed %d draws differently the second time", seed)
		}
		if first && !drawn(seed, 0.3) {
			t.Fatalf("seed %d is in a share of 20%% and not in one of 30%%", seed)
		}
		if first {
			count++
		}
	}
	if count < n/5-n/50 || count > n/5+n/50 {
		t.Errorf("%d of %d are drawn for a share of 20%%", count, n)
	}
}

func TestStallDoesNotEnd(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), caseVariable+"=stall")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Errorf("it ended: %v", err)
	case <-time.After(300 * time.Millisecond):
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-ended
	}
}
