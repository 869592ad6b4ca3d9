package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/launch"
)

var update = flag.Bool("update", false, "write what commands print into the stories")

// TestStories plays testdata/script/*.txtar with the program itself and real services: most of them with those of one
// `groundplan dev` ($SHARED), some with their own.
func TestStories(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the whole program and starts services")
	}
	ground := launch.Supported()
	playStories(t, "testdata/script", nil, map[string]bool{"ground": ground == nil})
}

// TestClusterStories plays testdata/cluster/*.txtar on a real cluster that has groundplan's chart: the development cluster,
// as `go tool task test:cluster` makes it, or another one whose KUBECONFIG and registry the environment names.
func TestClusterStories(t *testing.T) {
	kubeconfig, registry := os.Getenv("GROUNDPLAN_CLUSTER_KUBECONFIG"), os.Getenv("GROUNDPLAN_CLUSTER_REGISTRY")
	if kubeconfig == "" || registry == "" {
		t.Skip("needs a cluster: `go tool task test:cluster` makes one")
	}
	playStories(t, "testdata/cluster", map[string]string{"KUBECONFIG": kubeconfig, "GROUNDPLAN_REGISTRY": registry}, nil)
}

// playStories plays the stories of a folder.
func playStories(t *testing.T, dir string, variables map[string]string, conditions map[string]bool) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bin")
	program := filepath.Join(bin, "groundplan")
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("building groundplan: %v\n%s", err, out)
	}
	shared := filepath.Join(t.TempDir(), "home")
	startServices(t, program, shared, variables)
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			for name, value := range variables {
				env.Setenv(name, value)
			}
			return prepare(env, bin, shared)
		},
		Condition: func(name string) (bool, error) {
			holds, known := conditions[name]
			if !known {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return holds, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": exitsWith, "wait-until": waitUntil, "json": jsonField, "events": eventKinds,
			"stop-services": stopServices, "wait-said": waitSaid,
		},
	})
}

// startServices keeps `groundplan dev` up until the test has ended.
func startServices(t *testing.T, program, home string, variables map[string]string) {
	t.Helper()
	dev := exec.Command(program, "dev", "--home", home, "--output", "json")
	dev.Env = os.Environ()
	for name, value := range variables {
		dev.Env = append(dev.Env, name+"="+value)
	}
	var said bytes.Buffer
	dev.Stderr = &said
	answer, err := dev.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = dev.Process.Signal(syscall.SIGTERM)
		if err := dev.Wait(); err != nil {
			t.Errorf("dev ended with %v\n%s", err, said.String())
		}
	})
	var info struct{ Temporal string }
	if err := json.NewDecoder(answer).Decode(&info); err != nil || info.Temporal == "" {
		t.Fatalf("dev is not ready: %v\n%s", err, said.String())
	}
}

// prepare gives a story a home of its own, and what the Go toolchain needs to work from it.
func prepare(env *testscript.Env, bin, shared string) error {
	for name, variable := range map[string]string{"GOCACHE": "GOCACHE", "GOMODCACHE": "GOMODCACHE", "GOPATH": "GOPATH", "GOPROXY": "PROXY"} {
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			return err
		}
		env.Setenv(variable, strings.TrimSpace(string(value)))
	}
	env.Setenv("GOPROXY", "off") // a story that builds something with dependencies says so: env GOPROXY=$PROXY
	repository, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return err
	}
	env.Setenv("REPO", repository)
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("OWN", filepath.Join(env.WorkDir, ".home"))
	env.Setenv("SHARED", shared)
	env.Setenv("GROUNDPLAN_HOME", shared)
	env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	// The root of what a story reads is its own folder, whatever lies above it.
	return os.Mkdir(filepath.Join(env.WorkDir, ".git"), 0o755)
}

// stopServices ends the embedded services of the story's home, and waits until they are down: those in the background
// would end by themselves, but later than the story.
func stopServices(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: stop-services")
	}
	path := filepath.Join(ts.Getenv("GROUNDPLAN_HOME"), "services.json")
	var up struct{ PID int }
	ts.Check(runs.ReadJSON(path, &up))
	ts.Check(syscall.Kill(up.PID, syscall.SIGTERM))
	// Not by its process: whoever inherited that may never ask how it ended.
	gone := func() bool { _, err := os.Stat(path); return errors.Is(err, fs.ErrNotExist) }
	if !until(gone) {
		ts.Fatalf("the services (process %d) did not end", up.PID)
	}
}

// exitsWith is `status N command…`: the command must end with exactly that status.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	default:
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("status %d, want %d", got, want)
	}
}

// waitUntil is `wait-until RUN STATUS [STAGE]`: until the run of this story's home has that status, and the stage began.
func waitUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: wait-until RUN STATUS [STAGE]")
	}
	if !until(func() bool { return stands(ts, args) }) {
		ts.Fatalf("run %s has not come to %v within %v", args[0], args[1:], patience)
	}
}

// patience is how long a story waits for what another process does. A run takes no time here, but the machine may be busy.
const patience = 2 * time.Minute

// until polls, since what it waits for happens in other processes.
func until(holds func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// waitSaid is `wait-said FILE REGEXP`: until the file, which a command in the background writes, has a match.
func waitSaid(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: wait-said FILE REGEXP")
	}
	wanted, err := regexp.Compile(args[1])
	ts.Check(err)
	path := ts.MkAbs(args[0])
	said := func() bool {
		text, err := os.ReadFile(path)
		return err == nil && wanted.Match(text)
	}
	if !until(said) {
		ts.Fatalf("nothing in %s matches %s within %v:\n%s", args[0], args[1], patience, ts.ReadFile(args[0]))
	}
}

func stands(ts *testscript.TestScript, args []string) bool {
	cmd := exec.Command(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "groundplan"),
		"status", "-o", "json", "--home", ts.Getenv("GROUNDPLAN_HOME"), args[0])
	out, err := cmd.Output()
	if err != nil {
		return false
	}
	var s standing
	if json.Unmarshal(out, &s) != nil || s.Status != args[1] {
		return false
	}
	if len(args) == 2 {
		return true
	}
	if s.State == nil {
		return false
	}
	for _, stage := range s.State.Stages {
		if stage.Name == args[2] && stage.Phase == "running" {
			return true
		}
	}
	return false
}

// jsonField is `json PATH VALUE`: the last command's stdout is one JSON document, in which the field at PATH (names and
// indices with dots between) is VALUE.
func jsonField(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: json PATH VALUE")
	}
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	decoder.UseNumber()
	var at any
	ts.Check(decoder.Decode(&at))
	if decoder.More() {
		ts.Fatalf("more than one document on stdout")
	}
	for step := range strings.SplitSeq(args[0], ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[step]
		case []any:
			i, err := strconv.Atoi(step)
			ts.Check(err)
			if i >= len(v) {
				ts.Fatalf("%s: only %d elements", args[0], len(v))
			}
			at = v[i]
		default:
			at = nil
		}
	}
	if got := fmt.Sprint(at); (got == args[1]) == neg {
		ts.Fatalf("%s is %q", args[0], got)
	}
}

// eventKinds is `events RUN KIND…`: the run's event log has events of these kinds, in this order.
func eventKinds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: events RUN KIND…")
	}
	events, err := runs.Home(ts.Getenv("GROUNDPLAN_HOME")).Run(args[0]).ReadEvents()
	ts.Check(err)
	want := args[1:]
	for _, e := range events {
		if len(want) > 0 && e.Kind == want[0] {
			want = want[1:]
		}
	}
	if len(want) > 0 {
		ts.Fatalf("no event %v among %v", want, events)
	}
}
