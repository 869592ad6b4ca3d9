package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Case is what an instance does. Its error is the instance's failure; its panic, the instance's crash. When the instance
// is asked to end (SIGTERM, SIGINT), ctx does.
type Case func(ctx context.Context, run *Run) error

// Run is a run as one of its instances sees it. Its methods may be called from several goroutines.
type Run struct {
	Environment
	// GlobalSeq and GroupSeq number the instances, in all and in the group, in the order that they came, from 1.
	GlobalSeq, GroupSeq int64
	// Results are the metrics of the run; Diagnostics are kept beside them and are not summarised.
	Results, Diagnostics *Metrics

	traces   *tracer
	conn     *connection
	journal  *journal
	profiles *profiles
	crash    chan panicked
	configs  sync.Mutex // guards configured
	// configured counts the network configurations that were asked for.
	configured int
}

// Exit statuses of Main, beside 0 for success.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Main runs the case that the instance was started for, reports how it ended, and exits: with 0 when the case succeeded,
// 1 when it failed or panicked, 2 when there is no such case or the environment is wrong.
//
// Before the case begins, the network is there and every instance's numbers (Run.GlobalSeq, Run.GroupSeq) are given out.
func Main(cases map[string]Case) {
	os.Exit(start(cases, os.LookupEnv, os.Stdout, os.Stderr))
}

// start is Main with everything from outside as an argument.
func start(cases map[string]Case, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	env, err := readEnvironment(lookup)
	if err != nil {
		fmt.Fprintf(stderr, "the environment is not that of an instance:\n%v\n", err)
		return exitUsage
	}
	body, known := cases[env.Case]
	if !known {
		fmt.Fprintf(stderr, "there is no case %q; this plan has %s\n", env.Case, strings.Join(slices.Sorted(maps.Keys(cases)), ", "))
		return exitUsage
	}
	run, err := open(env, stdout)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	return run.play(body, stderr)
}

// play runs the case and closes the run.
func (r *Run) play(body Case, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	r.note(r.startEvent())
	stack, outcome := r.perform(ctx, body)
	if stack != "" {
		fmt.Fprintf(stderr, "panic: %v\n\n%s\n", outcome, stack)
	}
	// What was measured is on disk before anybody hears of the outcome: a runner may end the instance upon that.
	written := errors.Join(r.profiles.end(), r.Results.close(), r.Diagnostics.close(), r.traces.close())
	if outcome == nil && written != nil {
		outcome = fmt.Errorf("writing the outputs: %w", written)
	}
	r.report(outcome, stack)
	r.conn.close()
	if err := r.journal.close(); err != nil {
		fmt.Fprintln(stderr, "closing run.out:", err)
	}
	if outcome != nil {
		return exitFailed
	}
	return 0
}

func open(env Environment, stdout io.Writer) (*Run, error) {
	run := &Run{Environment: env, crash: make(chan panicked, 1)}
	var err error
	if run.journal, err = openJournal(&run.Environment, stdout); err != nil {
		return nil, err
	}
	if run.Results, err = openMetrics(env.Outputs, "results.out"); err != nil {
		return nil, errors.Join(err, run.journal.close())
	}
	if run.Diagnostics, err = openMetrics(env.Outputs, "diagnostics.out"); err != nil {
		return nil, errors.Join(err, run.Results.close(), run.journal.close())
	}
	if run.profiles, err = takeProfiles(env.Outputs, env.wanted); err != nil {
		return nil, errors.Join(err, run.Results.close(), run.Diagnostics.close(), run.journal.close())
	}
	run.traces = newTracer(&run.Environment)
	run.conn = connect(env.sync, reachIn)
	return run, nil
}

// panicked is a panic of the case or of a goroutine that it started with Run.Go.
type panicked struct {
	value any
	stack string
}

// perform joins the others and runs the case. A stack comes with the error of a panic.
func (r *Run) perform(ctx context.Context, body Case) (stack string, outcome error) {
	ended := make(chan error, 1)
	r.Go(func() {
		if err := r.join(ctx); err != nil {
			ended <- fmt.Errorf("joining the other instances: %w", err)
			return
		}
		ended <- body(ctx, r)
	})
	select {
	case err := <-ended:
		select {
		case p := <-r.crash: // a goroutine's panic counts, however the case ended
			return p.stack, fmt.Errorf("%v", p.value)
		default:
			return "", err
		}
	case p := <-r.crash:
		return p.stack, fmt.Errorf("%v", p.value)
	}
}

// Go runs f in a goroutine whose panic is the instance's crash, as one in the case itself is. A panic of any other
// goroutine ends the program before it can report.
func (r *Run) Go(f func()) {
	go func() {
		finished := false
		defer func() {
			value := recover()
			if finished {
				return
			}
			if value == nil {
				value = "the goroutine ended by runtime.Goexit"
			}
			select {
			case r.crash <- panicked{value, string(debug.Stack())}:
			default: // the first one counts
			}
		}()
		f()
		finished = true
	}()
}

// join is what every instance does before its case begins.
func (r *Run) join(ctx context.Context) error {
	const network = "network-initialized"
	if err := r.tell(ctx, event{StageStart: &stageEvent{network, r.Group}}); err != nil {
		return err
	}
	if r.Shaped {
		if err := r.Barrier(ctx, network, r.Instances); err != nil {
			return err
		}
	}
	if err := r.tell(ctx, event{StageEnd: &stageEvent{network, r.Group}}); err != nil {
		return err
	}
	var err error
	if r.GlobalSeq, err = r.Signal(ctx, "initialized_global"); err != nil {
		return err
	}
	r.GroupSeq, err = r.Signal(ctx, "initialized_group_"+r.Group)
	return err
}

// report says how the instance ended, in its log and to the sync service.
func (r *Run) report(outcome error, stack string) {
	e := event{Success: &groupEvent{r.Group}}
	switch {
	case stack != "":
		e = event{Crash: &crashEvent{r.Group, outcome.Error(), stack}}
	case outcome != nil:
		e = event{Failure: &failureEvent{r.Group, outcome.Error()}}
	}
	r.note(e)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.tell(ctx, e); err != nil {
		// The log has it, which is what counts.
		r.Message("the outcome was not passed on: %v", err)
	}
}
