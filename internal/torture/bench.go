package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bench is a scratch home with one pipeline, and the server process that is killed.
type bench struct {
	options options
	binary  string
	scratch string
	draw    *rand.Rand
	server  *exec.Cmd
	kills   int
	runs    int
	redis   string // URL; empty: each run has its own
}

const pipelineText = `pipeline: torture
groups:
  subject: {artifact: subject, instances: %d, outcome: exit}
stages:
  - {name: build, build: {subject: {executable: {path: subject.sh}}}}
  - {name: place, schedule: {}, retry: {attempts: 3, initial: 1s}}
  - {name: wire, network: {}}
  - {name: first, run: {case: first}}
  - {name: second, run: {case: second}}
  - {name: third, run: {case: third}}
  - {name: gather, collect: {outputs: true, assert: [outcomes.subject.succeeded == %d]}}
`

func (b *bench) home() string     { return filepath.Join(b.scratch, "home") }
func (b *bench) temp() string     { return filepath.Join(b.scratch, "tmp") }
func (b *bench) pipeline() string { return filepath.Join(b.scratch, "plan", "pipeline.yaml") }

func (b *bench) prepare() error {
	for _, dir := range []string{b.home(), b.temp(), filepath.Dir(b.pipeline())} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("preparing the scratch folder: %w", err)
		}
	}
	// The subject notes each start of itself, so that a second one would be seen.
	script := fmt.Sprintf("#!/bin/sh\necho \"$TEST_CASE\" >> \"$TEST_OUTPUTS_PATH/started\"\nexec sleep %d\n", max(1, b.options.seconds/3))
	if err := os.WriteFile(filepath.Join(filepath.Dir(b.pipeline()), "subject.sh"), []byte(script), 0o755); err != nil {
		return fmt.Errorf("writing the subject: %w", err)
	}
	text := fmt.Sprintf(pipelineText, b.options.instances, b.options.instances)
	if err := os.WriteFile(b.pipeline(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the pipeline: %w", err)
	}
	return nil
}

func (b *bench) command(args ...string) *exec.Cmd {
	cmd := exec.Command(b.binary, args...)
	cmd.Env = append(os.Environ(), "GROUNDPLAN_HOME="+b.home(), "TMPDIR="+b.temp(), "NO_COLOR=1")
	if b.redis != "" {
		cmd.Env = append(cmd.Env, "GROUNDPLAN_REDIS="+b.redis)
	}
	return cmd
}

func (b *bench) groundplan(args ...string) error {
	out, err := b.command(args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("groundplan %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// startServer starts `groundplan dev` and waits until it is up.
func (b *bench) startServer() error {
	log, err := os.OpenFile(filepath.Join(b.scratch, "dev.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer log.Close()
	b.server = b.command("dev")
	b.server.Stdout, b.server.Stderr = log, log
	b.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.server.Start(); err != nil {
		return fmt.Errorf("starting dev: %w", err)
	}
	services := filepath.Join(b.home(), "services.json")
	for range 600 {
		text, err := os.ReadFile(services)
		if err == nil && bytes.Contains(text, fmt.Appendf(nil, "%d", b.server.Process.Pid)) {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("dev is not up after 30 s: see %s", log.Name())
}

func (b *bench) killServer() error {
	if err := b.server.Process.Kill(); err != nil {
		return fmt.Errorf("killing dev: %w", err)
	}
	_ = b.server.Wait() // it was killed: that is its status
	return nil
}

// stopServer ends dev as a user does.
func (b *bench) stopServer() error {
	if err := b.server.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("stopping dev: %w", err)
	}
	if err := b.server.Wait(); err != nil {
		return fmt.Errorf("dev did not stop cleanly: %w", err)
	}
	return nil
}

// record is what torture reads of a run's run.json.
type record struct {
	Status  string
	Verdict string
	Reason  string
	Metrics map[string]struct{ Count, P50, Max float64 }
	Stages  []struct{ Stage, Verdict string }
	Tries   []struct{ Stage, Verdict string }
}

func (b *bench) record(id string) (record, error) {
	var r record
	text, err := os.ReadFile(filepath.Join(b.home(), "runs", id, "run.json"))
	if err != nil {
		return r, fmt.Errorf("reading the record: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("reading the record: %w", err)
	}
	return r, nil
}

// end waits for the end of a run.
func (b *bench) end(id string, within time.Duration) (record, error) {
	deadline := time.Now().Add(within)
	r, err := b.record(id)
	for err != nil || r.Status != "ended" {
		if time.Now().After(deadline) {
			return r, errors.Join(fmt.Errorf("has not ended: %+v", r), err)
		}
		time.Sleep(100 * time.Millisecond)
		r, err = b.record(id)
	}
	return r, nil
}

// judge waits for the end of a run and holds it against what is promised.
func (b *bench) judge(id string) error {
	r, err := b.end(id, time.Duration(b.options.seconds)*2*time.Second+time.Minute)
	if err != nil {
		return err
	}
	if r.Verdict != "passed" {
		return fmt.Errorf("is %s: %s", r.Verdict, r.Reason)
	}
	if len(r.Tries) > len(r.Stages) {
		return fmt.Errorf("ran a stage again: %+v", r.Tries)
	}
	return b.startedOnce(id)
}

// startedOnce checks that every instance noted each stage exactly once, in order.
func (b *bench) startedOnce(id string) error {
	for i := range b.options.instances {
		path := filepath.Join(b.home(), "runs", id, "outputs", "subject", fmt.Sprint(i), "started")
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading what subject/%d noted: %w", i, err)
		}
		if string(text) != "first\nsecond\nthird\n" {
			return fmt.Errorf("subject/%d was started for %q", i, strings.Fields(string(text)))
		}
	}
	return nil
}

// nothingLeft looks for what the runs and servers could have left behind.
func (b *bench) nothingLeft(before map[string]bool) error {
	var left []string
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, p := range processes {
		environ, err := os.ReadFile(filepath.Join(p, "environ"))
		if err != nil {
			continue // it ended, or isn't ours
		}
		cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if bytes.Contains(environ, []byte(b.scratch)) || bytes.Contains(cmdline, []byte(b.scratch)) {
			left = append(left, "process "+filepath.Base(p)+" "+string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	after, err := hostNetwork()
	if err != nil {
		return err
	}
	for name := range after {
		if !before[name] {
			left = append(left, name)
		}
	}
	left = append(left, files(b.temp())...)
	runs, err := filepath.Glob(filepath.Join(b.home(), "runs", "*", "temp"))
	if err != nil {
		return err
	}
	left = append(left, runs...)
	if len(left) > 0 {
		return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
	return nil
}

func files(dir string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// hostNetwork lists the links and the named namespaces of the host. Anonymous namespaces end with the last process in
// them, so that looking for processes finds those.
func hostNetwork() (map[string]bool, error) {
	found := map[string]bool{}
	for _, pattern := range []string{"/sys/class/net/*", "/run/netns/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			found[name] = true
		}
	}
	return found, nil
}
