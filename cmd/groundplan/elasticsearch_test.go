package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groundplan/groundplan/internal/elasticserver"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/launch"
)

const pushedPipeline = `pipeline: pushed
groups:
  a: {artifact: prog, instances: 3, outcome: exit}
stages:
  - build:
      prog: {executable: {path: prog.sh}}
  - schedule: {}
  - name: first
    run: {case: first}
  - name: second
    run: {case: second}
  - name: gather
    timeout: 2m
    collect:
      outputs: true
      elasticsearch: {index: logs}
`

const pushedProgram = `#!/bin/sh
i=0
while [ $i -lt 2000 ]; do echo "$TEST_CASE says $i"; i=$((i+1)); done
sleep 1
`

// TestElasticsearchAfterTheRun runs a pipeline with a server that is away, which ends invalid, and resumes it once the
// server is there: each line is there once, and no byte went to it before the last run stage had ended. The account's
// password stands nowhere.
func TestElasticsearchAfterTheRun(t *testing.T) {
	server := elasticserver.Start(t)
	if why := launch.Supported(); why != nil {
		t.Skip(why)
	}
	folder := t.TempDir()
	program, home := filepath.Join(folder, "groundplan"), filepath.Join(folder, "home")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building groundplan: %v\n%s", err, out)
	}
	for name, content := range map[string]string{"p.yaml": pushedPipeline, "prog.sh": pushedProgram} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	proxy := countBytes(t, strings.TrimPrefix(server.URL, "http://"))
	const password = "hunter2-correct-horse"
	groundplan := func(args ...string) (int, string) {
		cmd := exec.Command(program, args...)
		cmd.Dir = folder
		cmd.Env = append(os.Environ(), "GROUNDPLAN_HOME="+home, "GROUNDPLAN_ELASTICSEARCH=http://"+proxy.address,
			"GROUNDPLAN_ELASTICSEARCH_USER=me", "GROUNDPLAN_ELASTICSEARCH_PASSWORD="+password)
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	proxy.away.Store(true)
	status, out := groundplan("run", "--run-id", "pushed", "p.yaml")
	if status != 3 || !strings.Contains(out, "the logs are not all in the Elasticsearch index logs") || !strings.Contains(out, "groundplan resume pushed") {
		t.Fatalf("with the server away: status %d\n%s", status, out)
	}
	proxy.away.Store(false)
	if status, out := groundplan("resume", "pushed"); status != 0 {
		t.Fatalf("with the server there: status %d\n%s", status, out)
	}
	if status, out := groundplan("run", "--run-id", "at-once", "p.yaml"); status != 0 {
		t.Fatalf("at once: status %d\n%s", status, out)
	}
	for _, id := range []string{"pushed", "at-once"} {
		for _, stage := range []string{"first", "second"} {
			// Each instance's second stage goes on in the files of its first.
			query := map[string]any{"query_string": map[string]any{"query": fmt.Sprintf(`run:%s AND kind:log AND file:run.out AND message:"%s says"`, id, stage)}}
			if n := server.Count("logs", query); n != 3*2000 {
				t.Errorf("%s: %d lines of %s are there", id, n, stage)
			}
		}
		early(t, runs.Home(home).Run(id), proxy)
	}
	searchFor(t, home, password)
}

// early fails the test when bytes went through the proxy while the run had not ended its run stages.
func early(t *testing.T, folder runs.Folder, proxy *countingProxy) {
	t.Helper()
	events, err := folder.ReadEvents()
	if err != nil {
		t.Fatal(err)
	}
	var ended time.Time
	for _, e := range events {
		if e.Kind == runs.KindStageEnded && e.Stage == "second" {
			ended = e.Time
		}
	}
	if ended.IsZero() {
		t.Fatalf("no stage ended in %v", events)
	}
	var before, after int64
	for _, sent := range proxy.sent() {
		switch {
		case sent.at.Before(events[0].Time):
		case sent.at.Before(ended):
			before += sent.bytes
		default:
			after += sent.bytes
		}
	}
	t.Logf("%s: %d bytes before the last run stage had ended, %d after", folder, before, after)
	if before > 0 || after == 0 {
		t.Errorf("%d bytes went out early, %d later", before, after)
	}
}

// searchFor looks through every file of a home, databases counted in.
func searchFor(t *testing.T, home, secret string) {
	t.Helper()
	err := filepath.WalkDir(home, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("the password stands in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// countingProxy passes connections on, and notes when how many bytes went to the server; an attempt to connect counts one.
type countingProxy struct {
	address string
	away    atomic.Bool // connections are closed at once
	mu      sync.Mutex
	noted   []sending
}

type sending struct {
	at    time.Time
	bytes int64
}

func countBytes(t *testing.T, server string) *countingProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &countingProxy{address: listener.Addr().String()}
	var busy sync.WaitGroup
	t.Cleanup(func() { listener.Close(); busy.Wait() })
	busy.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			p.note(1)
			if p.away.Load() {
				from.Close()
				continue
			}
			busy.Go(func() { p.pass(from, server) })
		}
	})
	return p
}

func (p *countingProxy) pass(from net.Conn, server string) {
	defer from.Close()
	to, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer to.Close()
	go func() { _, _ = io.Copy(from, to); from.Close() }()
	_, _ = io.Copy(to, io.TeeReader(from, p))
}

// Write counts what went through.
func (p *countingProxy) Write(data []byte) (int, error) {
	p.note(int64(len(data)))
	return len(data), nil
}

func (p *countingProxy) note(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noted = append(p.noted, sending{time.Now(), bytes})
}

func (p *countingProxy) sent() []sending {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]sending(nil), p.noted...)
}
