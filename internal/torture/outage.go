package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// endure carries a run through an outage of Redis.
func endure(o options) error {
	fmt.Printf("outage: Redis is killed and comes back after %v, under %d instances at %d barriers\n", o.outage, o.instances, o.rounds)
	b, err := newBench(o)
	if err != nil {
		return err
	}
	if err := b.leavingNothing(b.outage); err != nil {
		return fmt.Errorf("%w (what it left is in %s)", err, b.scratch)
	}
	return os.RemoveAll(b.scratch)
}

// outage runs the barrier plan with a Redis of its own, and takes that away while instances meet.
func (b *bench) outage() (err error) {
	server := &redisServer{folder: filepath.Join(b.scratch, "redis")}
	if err := server.start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.kill()) }()
	b.redis = "unix://" + server.socket()
	if err := b.startServer(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stopServer()) }()
	const id = "outage"
	if err := b.groundplan("run", "plans/barrier/pipeline.yaml", "--run-id", id, "--detach",
		"--set", fmt.Sprintf("instances=%d", b.options.instances), "--set", fmt.Sprintf("rounds=%d", b.options.rounds)); err != nil {
		return err
	}
	if err := b.meeting(id); err != nil {
		return err
	}
	if err := server.kill(); err != nil {
		return err
	}
	time.Sleep(b.options.outage)
	if r, err := b.record(id); err != nil || r.Status == "ended" {
		return errors.Join(fmt.Errorf("the run ended while Redis was away: it is %s, %s", r.Verdict, r.Reason), err)
	}
	back := time.Now()
	if err := server.start(); err != nil {
		return err
	}
	return b.endured(id, back)
}

// meeting waits until every instance runs, and a second longer: then they are amid their barriers.
func (b *bench) meeting(id string) error {
	for range 1200 {
		started, err := filepath.Glob(filepath.Join(b.home(), "runs", id, "outputs", "all", "*", "results.out"))
		if err != nil {
			return err
		}
		if len(started) == b.options.instances {
			time.Sleep(time.Second)
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("the instances have not started within a minute")
}

// endured holds the run against what is promised. The plan itself asserts that every instance passed every barrier
// once, and received every item once; that some instance waited as long as Redis was away shows that it mattered.
func (b *bench) endured(id string, back time.Time) error {
	r, err := b.end(id, 5*time.Minute)
	if err != nil {
		return err
	}
	took := time.Since(back)
	if r.Verdict != "passed" {
		return fmt.Errorf("the run is %s: %s", r.Verdict, r.Reason)
	}
	if len(r.Tries) > 0 {
		return fmt.Errorf("a stage ran again: %+v", r.Tries)
	}
	waited := r.Metrics["barrier_seconds"]
	if waited.Max < b.options.outage.Seconds()/2 {
		return fmt.Errorf("no instance waited longer than %.1f s at a barrier: the outage came at the wrong moment (give more -rounds)", waited.Max)
	}
	fmt.Printf("outage: passed %.1f s after Redis was back: %.0f barriers passed, once each; the longest took %.1f s, the median %.1f ms; nothing left behind\n",
		took.Seconds(), waited.Count, waited.Max, 1000*waited.P50)
	return nil
}

// redisServer is a real Redis that keeps what it has acknowledged, also when it is killed.
type redisServer struct {
	folder  string
	process *exec.Cmd
}

func (s *redisServer) socket() string { return filepath.Join(s.folder, "socket") }

func (s *redisServer) start() error {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("an outage needs a real Redis to take away (`go tool task setup` installs one): %w", err)
	}
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		return fmt.Errorf("preparing Redis: %w", err)
	}
	if err := os.Remove(s.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("preparing Redis: %w", err)
	}
	s.process = exec.Command(program, "--port", "0", "--unixsocket", s.socket(), "--dir", s.folder,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always")
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("starting Redis: %w", err)
	}
	for range 1000 {
		if connection, err := net.Dial("unix", s.socket()); err == nil {
			return connection.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("Redis is not up after 10 s")
}

// kill ends it at once; a second time it does nothing.
func (s *redisServer) kill() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.Process.Kill(); err != nil {
		return fmt.Errorf("killing Redis: %w", err)
	}
	_ = s.process.Wait() // it was killed: that is its status
	s.process = nil
	return nil
}
