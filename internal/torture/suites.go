package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

const (
	// away is how long nothing is up. It is killed killedAt after a full minute, in the middle of a turn, so that of the
	// minutes that it misses the last one is late by less than shortCatchUp when it is back, and the one before by more.
	away         = 2 * time.Minute
	killedAt     = 20 * time.Second
	shortCatchUp = 40 * time.Second
)

// suiteCase is a suite on a one-minute cron, and how late it catches up.
type suiteCase struct {
	name, overlap string
	catchUp       time.Duration
}

// Both run turns one after the other, so that none is left out because another one is under way.
var suiteCases = []suiteCase{{"every", "buffer-all", time.Hour}, {"late", "buffer-all", shortCatchUp}}

// outing is when nothing was up.
type outing struct{ from, to time.Time }

// keepTime runs suites for a while, kills everything in the middle of a turn, starts it again later, and holds the turns
// against the minutes that have passed.
func keepTime(o options) error {
	o.seconds, o.instances = 30, 2
	fmt.Printf("suites: two on a one-minute cron for %v; in the middle everything is killed for %v\n", o.suites, away)
	b, err := newBench(o)
	if err != nil {
		return err
	}
	if err := b.leavingNothing(b.keepTime); err != nil {
		return fmt.Errorf("%w (what it left is in %s)", err, b.scratch)
	}
	fmt.Println("suites: no turn missed or doubled beyond the catch-up rule, nothing left behind")
	return os.RemoveAll(b.scratch)
}

func (b *bench) keepTime() (err error) {
	if err := b.startServer(); err != nil {
		return err
	}
	// Well before a minute begins, so that the first one due is known.
	if at := time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)); at < 15*time.Second {
		time.Sleep(at + time.Second)
	}
	for _, c := range suiteCases {
		if err := b.createSuite(c); err != nil {
			return err
		}
	}
	began := time.Now()
	killAt := began.Add(b.options.suites / 2).Truncate(time.Minute).Add(killedAt)
	time.Sleep(time.Until(killAt))
	out := outing{from: time.Now()}
	if err := b.killEverything(); err != nil {
		return err
	}
	time.Sleep(time.Until(out.from.Add(away)))
	if err := b.startServer(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stopServer()) }()
	out.to = time.Now()
	// A turn that is due just when they are paused would be a matter of luck.
	time.Sleep(time.Until(began.Add(b.options.suites).Truncate(time.Minute).Add(30 * time.Second)))
	ended := time.Now()
	var faults []error
	for _, c := range suiteCases {
		faults = append(faults, b.groundplan("suite", "pause", c.name))
	}
	for _, c := range suiteCases {
		if err := b.judgeSuite(c, began, ended, out); err != nil {
			faults = append(faults, fmt.Errorf("suite %s: %w", c.name, err))
		}
	}
	return errors.Join(faults...)
}

func (b *bench) createSuite(c suiteCase) error {
	text := fmt.Sprintf("suite: %s\nschedule: {cron: \"* * * * *\", overlap: %s, catchUp: %v}\npipelines: [{file: pipeline.yaml}]\n", c.name, c.overlap, c.catchUp)
	path := filepath.Join(filepath.Dir(b.pipeline()), c.name+".yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the suite: %w", err)
	}
	return b.groundplan("suite", "create", path)
}

// killEverything kills worker, server, sidecars and instances: every process that has this home in its environment or its
// arguments.
func (b *bench) killEverything() error {
	for range 5 { // those that were being started while it looked are found the next time
		found, err := b.processes()
		if err != nil {
			return err
		}
		for _, pid := range found {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
		if b.server.ProcessState == nil {
			_ = b.server.Wait() // it was killed: that is its status
		}
		if len(found) == 0 {
			return nil
		}
		b.kills += len(found)
	}
	return nil
}

// processes are those of this home.
func (b *bench) processes() ([]int, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, path := range all {
		environ, err := os.ReadFile(filepath.Join(path, "environ"))
		if err != nil {
			continue // it ended, or isn't ours
		}
		cmdline, _ := os.ReadFile(filepath.Join(path, "cmdline"))
		pid, _ := strconv.Atoi(filepath.Base(path))
		if pid > 0 && pid != os.Getpid() && (bytes.Contains(environ, []byte(b.scratch)) || bytes.Contains(cmdline, []byte(b.scratch))) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// judgeSuite waits until every turn has ended, shows them, and holds them against the minutes that have passed.
func (b *bench) judgeSuite(c suiteCase, began, ended time.Time, out outing) error {
	turns, err := b.turns(c.name, 5*time.Minute)
	if err != nil {
		return err
	}
	missed, err := b.missed(c.name)
	if err != nil {
		return err
	}
	of := map[int64][]runs.SuiteTurn{}
	for _, t := range turns {
		of[t.Due.Unix()] = append(of[t.Due.Unix()], t)
	}
	var faults []error
	leftOut := 0
	fmt.Printf("\n  suite %s: catchUp %v, overlap %s; %d processes killed at %s, up again at %s\n", c.name, c.catchUp, c.overlap, b.kills, clock(out.from), clock(out.to))
	fmt.Printf("  %-10s %-6s %-10s %-9s %s\n", "DUE", "TURNS", "BEGAN", "VERDICT", "NOTE")
	for due := began.Truncate(time.Minute).Add(time.Minute); due.Before(ended); due = due.Add(time.Minute) {
		want, note := 1, ""
		if due.After(out.from) && due.Before(out.to) {
			late := out.to.Sub(due).Round(time.Second)
			note = fmt.Sprintf("nothing was up; %v late when it was again", late)
			if late > c.catchUp {
				want = 0
				leftOut++
				note += ": left out, as `catchUp` says"
			}
		}
		got := of[due.Unix()]
		delete(of, due.Unix())
		if len(got) != want {
			faults = append(faults, fmt.Errorf("of the turn due at %s there are %d, not %d", clock(due), len(got), want))
		}
		faults = append(faults, b.row(due, got, note, out))
	}
	for _, others := range of {
		faults = append(faults, fmt.Errorf("there are %d turns that were never due, as %s (due %s)", len(others), others[0].ID, clock(others[0].Due)))
	}
	if missed != leftOut {
		faults = append(faults, fmt.Errorf("the schedule says that it missed %d turns, and it was %d", missed, leftOut))
	}
	return errors.Join(faults...)
}

// row shows the turns of one minute, and judges how they ended.
func (b *bench) row(due time.Time, turns []runs.SuiteTurn, note string, out outing) error {
	began, verdict := "–", "–"
	var fault error
	for _, t := range turns {
		began, verdict = fmt.Sprintf("+%.1f s", t.Started.Sub(due).Seconds()), string(t.Verdict)
		cut := t.Started.Before(out.from) && t.Ended.After(out.from)
		if cut {
			note = "killed in its middle, with its sidecar and instances; went on: " + t.Reason
		} else if t.Verdict != stage.Passed {
			fault = fmt.Errorf("the turn %s is %s: %s", t.ID, t.Verdict, t.Reason)
		}
		if t.Trigger != runs.TriggerSchedule {
			fault = errors.Join(fault, fmt.Errorf("the turn %s says that it began by %s", t.ID, t.Trigger))
		}
	}
	fmt.Printf("  %-10s %-6d %-10s %-9s %s\n", clock(due), len(turns), began, verdict, note)
	return fault
}

func clock(t time.Time) string { return t.UTC().Format(time.TimeOnly) }

// turns are those of a suite, once none is under way and none has begun for a while.
func (b *bench) turns(suite string, within time.Duration) ([]runs.SuiteTurn, error) {
	quiet := 0
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(time.Second) {
		turns, err := runs.Home(b.home()).ReadSuiteTurns(suite)
		if err != nil {
			return nil, err
		}
		underWay := slices.ContainsFunc(turns, func(t runs.SuiteTurn) bool { return t.Status != stage.StatusEnded })
		if quiet++; underWay {
			quiet = 0
		}
		if quiet > 5 {
			return turns, nil
		}
	}
	return nil, fmt.Errorf("its turns have not ended within %v", within)
}

// missed is how many turns the schedule itself says it has left out.
func (b *bench) missed(suite string) (int, error) {
	out, err := b.command("suite", "show", suite, "--output", "json").Output()
	if err != nil {
		return 0, fmt.Errorf("asking for the suite: %w", err)
	}
	var shown struct{ Suite struct{ Missed int } }
	if err := json.Unmarshal(out, &shown); err != nil {
		return 0, fmt.Errorf("asking for the suite: %w", err)
	}
	return shown.Suite.Missed, nil
}
