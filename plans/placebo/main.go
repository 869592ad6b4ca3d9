// Command placebo is a plan without an effect: its cases end in every way that an instance can end. It is there to test
// what runs plans.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/groundplan/groundplan/sdk"
)

func main() { sdk.Main(cases) }

var cases = map[string]sdk.Case{
	"ok":     ok,
	"fail":   fail,
	"panic":  crash,
	"exit":   exit,
	"silent": silent,
	"stall":  stall,
	"flaky":  flaky,
}

// ok succeeds.
func ok(_ context.Context, run *sdk.Run) error {
	run.Message("instance %d of %d is fine", run.GlobalSeq, run.Instances)
	return run.Results.Point("instances", 1)
}

// fail reports a failure, with the parameter `reason`.
func fail(_ context.Context, run *sdk.Run) error {
	reason, err := sdk.ParamOr(run, "reason", "it was asked to fail")
	if err != nil {
		return err
	}
	return errors.New(reason)
}

// crash panics.
func crash(context.Context, *sdk.Run) error { panic("it was asked to panic") }

// exit ends the program with the status in the parameter `status`, and doesn't report an outcome.
func exit(_ context.Context, run *sdk.Run) error {
	status, err := sdk.ParamOr(run, "status", 3)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "leaving with status %d, without a word about the outcome\n", status)
	os.Exit(status)
	return nil
}

// silent ends the program as if all were well, and doesn't report an outcome.
func silent(context.Context, *sdk.Run) error {
	os.Exit(0)
	return nil
}

// stall never ends, not even when it is asked to: only SIGKILL helps.
func stall(context.Context, *sdk.Run) error {
	for {
		time.Sleep(time.Hour)
	}
}

// flaky fails in its first tries, and succeeds in those that follow. Parameters: `share` of the instances that are flaky
// at all (which ones follows from the run's seed), and `failures`, how many of their tries fail.
func flaky(_ context.Context, run *sdk.Run) error {
	share, err := sdk.ParamOr(run, "share", sdk.Share(1))
	if err != nil {
		return err
	}
	failures, err := sdk.ParamOr(run, "failures", 1)
	if err != nil {
		return err
	}
	try, err := countTry(run.Outputs)
	if err != nil {
		return err
	}
	if drawn(run.Seed, share) && try <= failures {
		return fmt.Errorf("it was drawn to fail in %d tries, and this is try %d", failures, try)
	}
	return nil
}

// drawn says whether an instance with that seed belongs to the share.
func drawn(seed uint64, share sdk.Share) bool {
	return rand.New(rand.NewPCG(seed, 0)).Float64() < float64(share)
}

// countTry counts the tries of an instance, this one included, by a file among its outputs, which are kept from one try to
// the next.
func countTry(outputs string) (int, error) {
	f, err := os.OpenFile(filepath.Join(outputs, "tries"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, fmt.Errorf("counting tries: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		return 0, fmt.Errorf("counting tries: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("counting tries: %w", err)
	}
	return int(info.Size()), nil
}
