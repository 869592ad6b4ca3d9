package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newTestBench is a bench whose program is a shell script.
func newTestBench(t *testing.T, script string) *bench {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "groundplan")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	b, err := newBench(options{binary: binary, instances: 2, seconds: 3, outage: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ran leaves what a run leaves: its record, and what each instance noted.
func (b *bench) ran(t *testing.T, record string, noted ...string) {
	t.Helper()
	folder := filepath.Join(b.home(), "runs", "r")
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(folder, "run.json"), record)
	for i, text := range noted {
		write(filepath.Join(folder, "outputs", "subject", fmt.Sprint(i), "started"), text)
	}
}

func wantFault(t *testing.T, what string, err error, part string) {
	t.Helper()
	if (err == nil) != (part == "") || err != nil && !strings.Contains(err.Error(), part) {
		t.Errorf("%s: %v, want %q", what, err, part)
	}
}

// TestJudge has runs that broke each promise: a harness that lets one through proves nothing.
func TestJudge(t *testing.T) {
	const all = "first\nsecond\nthird\n"
	for name, c := range map[string]struct {
		record string
		noted  []string
		fault  string
	}{
		"as promised":          {`{"status":"ended","verdict":"passed","stages":[{"stage":"a"}]}`, []string{all, all}, ""},
		"another verdict":      {`{"status":"ended","verdict":"invalid","reason":"why"}`, []string{all, all}, "is invalid: why"},
		"a stage ran again":    {`{"status":"ended","verdict":"passed","tries":[{"stage":"a"}]}`, []string{all, all}, "ran a stage again"},
		"started twice":        {`{"status":"ended","verdict":"passed"}`, []string{all, "first\nfirst\nsecond\nthird\n"}, "subject/1 was started for"},
		"never started":        {`{"status":"ended","verdict":"passed"}`, []string{all}, "subject/1"},
		"a stage was left out": {`{"status":"ended","verdict":"passed"}`, []string{"first\nthird\n", all}, "subject/0 was started for"},
	} {
		b := newTestBench(t, "")
		b.ran(t, c.record, c.noted...)
		wantFault(t, name, b.judge("r"), c.fault)
	}
}

func TestEndThatDoesNotCome(t *testing.T) {
	b := newTestBench(t, "")
	_, err := b.end("r", 0)
	wantFault(t, "no record", err, "reading the record")
	b.ran(t, `{"status":"running"}`)
	_, err = b.end("r", 0)
	wantFault(t, "a run that goes on", err, "has not ended")
	b.ran(t, `{`)
	_, err = b.end("r", 0)
	wantFault(t, "half a record", err, "unexpected end")
}

func TestEndured(t *testing.T) {
	for name, c := range map[string]struct{ record, fault string }{
		"as promised":         {`{"status":"ended","verdict":"passed","metrics":{"barrier_seconds":{"count":10,"max":1.1}}}`, ""},
		"it mattered to none": {`{"status":"ended","verdict":"passed","metrics":{"barrier_seconds":{"count":10,"max":0.1}}}`, "wrong moment"},
		"nothing measured":    {`{"status":"ended","verdict":"passed"}`, "wrong moment"},
		"failed":              {`{"status":"ended","verdict":"failed","reason":"a count"}`, "the run is failed: a count"},
		"tried again":         {`{"status":"ended","verdict":"passed","tries":[{"stage":"meet"}],"metrics":{"barrier_seconds":{"max":2}}}`, "a stage ran again"},
	} {
		b := newTestBench(t, "")
		b.ran(t, c.record)
		wantFault(t, name, b.endured("r", time.Now()), c.fault)
	}
}

// TestNothingLeft plants what runs may leave, one after the other.
func TestNothingLeft(t *testing.T) {
	b := newTestBench(t, "")
	before, err := hostNetwork()
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, "nothing", b.nothingLeft(before), "")

	file := filepath.Join(b.temp(), "groundplan-x")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "a temporary file", b.nothingLeft(before), file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}

	folder := filepath.Join(b.home(), "runs", "r", "temp")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "a run's temporary folder", b.nothingLeft(before), folder)
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}

	for name := range before {
		fewer := map[string]bool{}
		for other := range before {
			fewer[other] = other != name
		}
		wantFault(t, "a link", b.nothingLeft(fewer), name)
		break
	}

	process := exec.Command("sleep", "100")
	process.Env = []string{"GROUNDPLAN_HOME=" + b.home()}
	if err := process.Start(); err != nil {
		t.Skip("there is no sleep here: ", err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	wantFault(t, "a process", b.nothingLeft(before), fmt.Sprintf("process %d", process.Process.Pid))
}

func TestServer(t *testing.T) {
	b := newTestBench(t, `trap 'exit 0' INT
echo "{\"pid\": $$}" > "$GROUNDPLAN_HOME/services.json"
while :; do sleep 0.05; done
`)
	if err := b.startServer(); err != nil {
		t.Fatal(err)
	}
	if err := b.killServer(); err != nil {
		t.Fatal(err)
	}
	if err := b.startServer(); err != nil {
		t.Fatal(err)
	}
	if err := b.stopServer(); err != nil {
		t.Error(err)
	}
}

func TestCommandsThatFail(t *testing.T) {
	b := newTestBench(t, "echo no such thing >&2; exit 2\n")
	wantFault(t, "a command", b.groundplan("run", "x"), "groundplan run x: exit status 2\nno such thing")
	b.redis = "unix:///x"
	if env := b.command("dev").Env; env[len(env)-1] != "GROUNDPLAN_REDIS=unix:///x" {
		t.Errorf("the environment ends with %q", env[len(env)-1])
	}
}

// TestRedisKeepsWhatItAcknowledged kills one that has just said that it keeps something.
func TestRedisKeepsWhatItAcknowledged(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server is installed here")
	}
	s := &redisServer{folder: filepath.Join(t.TempDir(), "redis")}
	ask := func(command string) string {
		t.Helper()
		connection, err := net.Dial("unix", s.socket())
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		if _, err := io.WriteString(connection, command+"\r\nQUIT\r\n"); err != nil {
			t.Fatal(err)
		}
		reply, err := io.ReadAll(connection)
		if err != nil {
			t.Fatal(err)
		}
		return string(reply)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.kill() })
	if reply := ask("SET a kept"); reply != "+OK\r\n+OK\r\n" {
		t.Errorf("it says %q", reply)
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("unix", s.socket()); err == nil {
		t.Error("it is there after it was killed")
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	reply := ask("GET a")
	for strings.HasPrefix(reply, "-LOADING") { // it answers before it has read what it kept
		time.Sleep(time.Millisecond)
		reply = ask("GET a")
	}
	if !strings.Contains(reply, "kept") {
		t.Errorf("it says %q", reply)
	}
	for range 2 {
		if err := s.kill(); err != nil {
			t.Error(err)
		}
	}
}

func TestPreparedSubject(t *testing.T) {
	b := newTestBench(t, "")
	text, err := os.ReadFile(b.pipeline())
	if err != nil || !strings.Contains(string(text), "instances: 2,") || !strings.Contains(string(text), "succeeded == 2]") {
		t.Errorf("the pipeline is %s, %v", text, err)
	}
	subject := exec.Command(filepath.Join(filepath.Dir(b.pipeline()), "subject.sh"))
	subject.Env = append(os.Environ(), "TEST_CASE=first", "TEST_OUTPUTS_PATH="+t.TempDir())
	subject.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := subject.Run(); err != nil {
		t.Errorf("the subject: %v", err)
	}
}
