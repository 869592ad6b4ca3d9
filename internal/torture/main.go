// Torture kills the process that holds worker and server with SIGKILL at random moments of pipelines, starts it again
// each time, and checks what is promised: every run ends with the right verdict, no stage that ended runs again, no
// instance is started twice, and nothing stays behind (processes, namespaces, temporary files).
//
//	go run ./internal/torture -binary bin/groundplan -kills 30 -seconds 60
//
// With -outage it kills Redis instead, in the middle of a run whose instances meet at one barrier after another, starts it
// again after that long, and checks that the run passes: no barrier is lost, and none is passed twice.
//
// With -suites it runs suites on a one-minute cron for that long, kills everything in the middle of a turn, starts it again
// two minutes later, and checks that no turn is missed or doubled beyond the catch-up rule.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

type options struct {
	binary    string
	kills     int
	perRun    int
	seconds   int
	instances int
	seed      uint64
	outage    time.Duration
	rounds    int
	suites    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/groundplan", "the built program")
	flag.IntVar(&o.kills, "kills", 30, "how often to kill, over all runs")
	flag.IntVar(&o.perRun, "per-run", 6, "how often to kill in one run at most")
	flag.IntVar(&o.seconds, "seconds", 60, "how long a pipeline takes, undisturbed")
	flag.IntVar(&o.instances, "instances", 50, "instances of a pipeline")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "where the moments are drawn from")
	flag.DurationVar(&o.outage, "outage", 0, "how long Redis is away; 0: kill worker and server instead")
	flag.IntVar(&o.rounds, "rounds", 1000, "with -outage: how many barriers the instances meet at")
	flag.DurationVar(&o.suites, "suites", 0, "how long suites run on a one-minute cron, with everything killed in the middle; 0: kill worker and server instead")
	flag.Parse()
	carryOut := torture
	switch {
	case o.outage > 0:
		carryOut = endure
	case o.suites > 0:
		carryOut = keepTime
	}
	if err := carryOut(o); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func torture(o options) error {
	fmt.Printf("torture: %d kills, %d s, %d instances, seed %d\n", o.kills, o.seconds, o.instances, o.seed)
	b, err := newBench(o)
	if err != nil {
		return err
	}
	if err := b.leavingNothing(b.killAll); err != nil {
		return fmt.Errorf("%w (what it left is in %s)", err, b.scratch)
	}
	fmt.Printf("torture: %d kills in %d runs: every verdict right, no stage run twice, no instance started twice, nothing left behind\n", b.kills, b.runs)
	return os.RemoveAll(b.scratch)
}

func newBench(o options) (*bench, error) {
	scratch, err := os.MkdirTemp("", "torture-")
	if err != nil {
		return nil, fmt.Errorf("making a scratch folder: %w", err)
	}
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", o.binary, err)
	}
	b := &bench{options: o, binary: binary, scratch: scratch, draw: rand.New(rand.NewPCG(o.seed, 0))}
	return b, b.prepare()
}

// leavingNothing checks that nothing is there after work that was not there before.
func (b *bench) leavingNothing(work func() error) error {
	before, err := hostNetwork()
	if err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	return b.nothingLeft(before)
}

// killAll starts run after run until enough kills are done, and judges each.
func (b *bench) killAll() (err error) {
	if err := b.startServer(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stopServer()) }()
	for b.kills < b.options.kills {
		b.runs++
		id := fmt.Sprintf("torture-%d", b.runs)
		began := time.Now()
		if err := b.groundplan("run", b.pipeline(), "--run-id", id, "--detach"); err != nil {
			return fmt.Errorf("starting %s: %w", id, err)
		}
		killed, err := b.killDuring(id)
		if err != nil {
			return err
		}
		if err := b.judge(id); err != nil {
			return fmt.Errorf("after %d kills, run %s: %w", killed, id, err)
		}
		fmt.Printf("torture: %s passed after %d kills in %.0f s\n", id, killed, time.Since(began).Seconds())
	}
	return nil
}

// killDuring kills and restarts the server at drawn moments until the run has ended or had its share of kills.
func (b *bench) killDuring(id string) (int, error) {
	interval := float64(b.options.seconds) / float64(b.options.perRun)
	killed := 0
	for killed < b.options.perRun && b.kills < b.options.kills {
		time.Sleep(time.Duration(b.draw.Float64() * 2 * interval * float64(time.Second)))
		if r, err := b.record(id); err == nil && r.Status == "ended" {
			break
		}
		if err := b.killServer(); err != nil {
			return killed, err
		}
		killed++
		b.kills++
		if err := b.startServer(); err != nil {
			return killed, fmt.Errorf("after kill %d of %s: %w", killed, id, err)
		}
	}
	return killed, nil
}
