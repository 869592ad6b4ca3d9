// Torture kills the process that holds worker and server with SIGKILL at random moments of pipelines, starts it again
// each time, and checks what is promised: every run ends with the right verdict, no stage that ended runs again, no
// instance is started twice, and nothing stays behind (processes, namespaces, temporary files).
//
//	go run ./internal/torture -binary bin/groundplan -kills 30 -seconds 60
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
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/groundplan", "the built program")
	flag.IntVar(&o.kills, "kills", 30, "how often to kill, over all runs")
	flag.IntVar(&o.perRun, "per-run", 6, "how often to kill in one run at most")
	flag.IntVar(&o.seconds, "seconds", 60, "how long a pipeline takes, undisturbed")
	flag.IntVar(&o.instances, "instances", 50, "instances of a pipeline")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "where the moments are drawn from")
	flag.Parse()
	if err := torture(o); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func torture(o options) error {
	fmt.Printf("torture: %d kills, %d s, %d instances, seed %d\n", o.kills, o.seconds, o.instances, o.seed)
	scratch, err := os.MkdirTemp("", "torture-")
	if err != nil {
		return fmt.Errorf("making a scratch folder: %w", err)
	}
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return fmt.Errorf("finding %s: %w", o.binary, err)
	}
	bench := &bench{options: o, binary: binary, scratch: scratch, draw: rand.New(rand.NewPCG(o.seed, 0))}
	if err := bench.prepare(); err != nil {
		return err
	}
	before, err := hostNetwork()
	if err != nil {
		return err
	}
	if err := bench.killAll(); err != nil {
		return fmt.Errorf("%w (what it left is in %s)", err, scratch)
	}
	if err := bench.nothingLeft(before); err != nil {
		return fmt.Errorf("%w (what it left is in %s)", err, scratch)
	}
	fmt.Printf("torture: %d kills in %d runs: every verdict right, no stage run twice, no instance started twice, nothing left behind\n", bench.kills, bench.runs)
	return os.RemoveAll(scratch)
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
