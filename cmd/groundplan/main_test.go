package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/cmd/groundplan/internal/follow"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/worker"
	"github.com/groundplan/groundplan/workflows"
)

// play runs one command line in this process.
func play(t *testing.T, variables map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	getenv := func(name string) string { return variables[name] }
	status = newApp(&out, &err, getenv).main(t.Context(), args)
	return status, out.String(), err.String()
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{verdict(stage.Passed), 0},
		{verdict(stage.Failed), 1},
		{usage(errors.New("x")), 2},
		{fmt.Errorf("wrapped: %w", usage(errors.New("x"))), 2},
		{verdict(stage.Invalid), 3},
		{verdict(""), 3},
		{errors.New("disk full"), 3},
		{verdict(stage.Cancelled), 130},
		{errors.Join(errors.New("x"), verdict(stage.Cancelled)), 130},
	} {
		if got := exitStatus(c.err); got != c.want {
			t.Errorf("%v: status %d, want %d", c.err, got, c.want)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	home := map[string]string{"GROUNDPLAN_HOME": t.TempDir()}
	for _, args := range [][]string{
		{"nonsense"}, {"run"}, {"run", "a", "b"}, {"list", "x"}, {"list", "--output", "xml"}, {"logs", "a", "b", "c"},
		{"resume", "x", "--from", "a", "--skip"}, {"collect", "x", "--to", "a", "--archive", "b"}, {"status"}, {"--nope"},
		{"run", "x.yaml", "--temporal", "no-port"}, {"suite", "nonsense"}, {"sidecar"}, {"completion"}, {"completion", "tcsh"}, {"schema", "x"},
		{"list", "--verdict", "fine"}, {"list", "-n", "-1"}, {"collect", "x", "--archive", "x.zip"}, {"init", "--name", "Bad Name"},
		{"dev", "x"}, {"dev", "--ui-port", "http"}, {"worker", "x"}, {"explain"}, {"validate"}, {"watch"}, {"cancel"}, {"metrics", "a", "b"},
	} {
		status, stdout, stderr := play(t, home, args...)
		if status != exitUsage || stdout != "" || stderr == "" {
			t.Errorf("%q: status %d, stdout %q, stderr %q", args, status, stdout, stderr)
		}
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	root := newApp(&bytes.Buffer{}, &bytes.Buffer{}, os.Getenv).root()
	for _, c := range root.Commands() {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || c.Args == nil {
			t.Errorf("%s: short text %q, arguments checked: %v", c.Name(), c.Short, c.Args != nil)
		}
		if c.GroupID == "" {
			t.Errorf("%s belongs to no group", c.Name())
		}
	}
}

func TestSourceOptions(t *testing.T) {
	s := source{set: []string{"a=1", "b=x=y", "c="}, seed: "18446744073709551615", only: "place"}
	o, err := s.options()
	if err != nil || o.Set["a"] != "1" || o.Set["b"] != "x=y" || *o.Seed != 1<<64-1 || o.Only != "place" {
		t.Errorf("%+v, %v", o, err)
	}
	if value, ok := o.Set["c"]; !ok || value != "" {
		t.Error("an empty value is a value")
	}
	for _, wrong := range []source{{set: []string{"a"}}, {set: []string{"=1"}}, {set: []string{"a=1", "a=2"}}, {seed: "-1"}, {seed: "x"}, {seed: "7x"}, {seed: "18446744073709551616"}} {
		if _, err := wrong.options(); exitStatus(err) != exitUsage {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}

// tiny is a pipeline in a repository of its own; it returns the file.
func tiny(t *testing.T) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		".git/HEAD": "", "plans/x.sh": "#!/bin/sh\n",
		"plans/p.yaml": "pipeline: p\ngroups:\n  a: {artifact: x, instances: 1, outcome: exit}\nstages:\n  - build:\n      x: {executable: {path: x.sh}}\n  - schedule: {}\n",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(root, "plans", "p.yaml")
}

func TestRootOf(t *testing.T) {
	file := tiny(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(file), link); err != nil {
		t.Fatal(err)
	}
	// Behind a link there is no repository above the file, so that its folder is the root; what counts is where that is.
	for path, want := range map[string]string{
		file:                          filepath.Dir(filepath.Dir(file)),
		filepath.Join(link, "p.yaml"): filepath.Dir(file),
	} {
		doc, err := pipelines.Load(path, pipelines.Options{})
		if err != nil {
			t.Fatal(err)
		}
		root, err := rootOf(path, doc)
		if err != nil || root != want {
			t.Errorf("%s: root %q, %v; want %q", path, root, err, want)
		}
	}
}

func TestStartOptions(t *testing.T) {
	file := tiny(t)
	doc, err := pipelines.Load(file, pipelines.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := runOptions{on: groundLocal}
	start, err := o.start(t.Context(), doc, file)
	if err != nil || start.Matrix != nil || start.Run.Ground != "local" || !strings.HasPrefix(start.Run.ID, "p-") {
		t.Errorf("%+v, %v", start, err)
	}
	if text := opening(start, "p.yaml", false); !strings.HasPrefix(text, "run p-") || !strings.Contains(text, "2 stages, 1 instance, seed") {
		t.Errorf("%q", text)
	}
}

func TestKnown(t *testing.T) {
	home := runs.Home(t.TempDir())
	config := worker.Config{Home: home}
	if _, err := known(t.Context(), config, nil, "x"); exitStatus(err) != exitUsage {
		t.Errorf("without any run: %v", err)
	}
	for _, id := range []string{"dht-1", "dht-2", "ping-1"} {
		if err := os.MkdirAll(string(home.Run(id)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if id, err := known(t.Context(), config, nil, "pi"); id != "ping-1" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	if _, err := known(t.Context(), config, nil, "dht"); exitStatus(err) != exitUsage {
		t.Errorf("%v", err)
	}
}

func TestPick(t *testing.T) {
	records := []runs.Record{
		{ID: "m", Pipeline: "m", Verdict: stage.Failed}, {ID: "m.1", Pipeline: "m", Verdict: stage.Passed},
		{ID: "v1.2", Pipeline: "v", Verdict: stage.Passed}, {ID: "r", Pipeline: "v", Status: stage.StatusRunning},
	}
	for _, c := range []struct {
		o    listOptions
		want []string
	}{
		{listOptions{}, []string{"m", "v1.2", "r"}}, // v1.2 looks like a cell, but there is no run v1
		{listOptions{cells: true}, []string{"m", "m.1", "v1.2", "r"}},
		{listOptions{pipeline: "v"}, []string{"v1.2", "r"}},
		{listOptions{verdict: "failed"}, []string{"m"}},
		{listOptions{verdict: "running"}, []string{"r"}},
		{listOptions{verdict: "Running"}, []string{"r"}},
		{listOptions{verdict: "cancelled"}, nil},
		{listOptions{limit: 1}, []string{"m"}},
	} {
		var got []string
		for _, rec := range c.o.pick(records) {
			got = append(got, rec.ID)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.o, got, c.want)
		}
	}
}

func TestJoined(t *testing.T) {
	now := time.Now()
	records := []runs.Record{{ID: "here", Status: stage.StatusRunning, Started: now}, {ID: "done", Status: stage.StatusEnded, Verdict: stage.Passed, Started: now.Add(-time.Hour)}}
	rows := []worker.Row{
		{ID: "here", Status: stage.StatusHolding}, {ID: "done", Status: stage.StatusEnded, Verdict: stage.Failed},
		{ID: "elsewhere", Pipeline: "p", Status: stage.StatusRunning, Started: now.Add(-time.Minute)},
	}
	got := joined(records, rows)
	if len(got) != 3 || got[0].Status != stage.StatusHolding || got[1].ID != "elsewhere" || got[2].Verdict != stage.Passed {
		t.Errorf("%+v", got)
	}
}

func TestSettle(t *testing.T) {
	running := runs.Record{ID: "r", Status: stage.StatusRunning}
	if got := settle(running, false); got.Status != interrupted || !strings.Contains(got.Reason, "groundplan resume r") {
		t.Errorf("%+v", got)
	}
	if got := settle(running, true); got.Status != stage.StatusRunning {
		t.Errorf("%+v", got)
	}
	if got := settle(runs.Record{Status: stage.StatusEnded}, false); got.Status != stage.StatusEnded {
		t.Errorf("%+v", got)
	}
}

func TestCancelAsked(t *testing.T) {
	folder := runs.Home(t.TempDir()).Run("r")
	note(folder, eventCancel, "of a run whose folder is elsewhere")
	if _, err := os.Stat(string(folder)); err == nil {
		t.Fatal("a folder was made for a run that isn't here")
	}
	if err := os.MkdirAll(string(folder), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, kind := range []string{"stage-started", eventCancel, eventResume, eventCancel} {
		note(folder, kind, "…")
		if want := i%2 == 1; cancelAsked(folder) != want {
			t.Errorf("after %s: %v", kind, !want)
		}
	}
}

// TestRecordWithoutFolder is about runs whose folder is on another machine: what the workflow says is all there is.
func TestRecordWithoutFolder(t *testing.T) {
	var out, said bytes.Buffer
	a := newApp(&out, &said, func(string) string { return "" })
	a.terminals()
	at := attendance{id: "r", pipeline: "p", started: time.Now(), form: "json", config: worker.Config{Home: runs.Home(t.TempDir())}}
	err := a.answer(at, follow.Ending{Output: &workflows.Output{Verdict: stage.Invalid, Reason: "a service is away", Results: []stage.Result{{Stage: "s", Verdict: stage.Invalid}}}})
	if exitStatus(err) != exitInvalid {
		t.Errorf("%v", err)
	}
	for _, want := range []string{`"id": "r"`, `"verdict": "invalid"`, `"reason": "a service is away"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
	if !strings.Contains(said.String(), "invalid in") || !strings.Contains(said.String(), "groundplan resume r") {
		t.Errorf("%s", said.String())
	}
}

// TestRecordOfAHold is about the moment before a held run has written its record: its state is newer.
func TestRecordOfAHold(t *testing.T) {
	home := runs.Home(t.TempDir())
	build := stage.Result{Stage: "build", Verdict: stage.Passed, Attempt: 1, Artifacts: map[string]stage.Artifact{"x": {}}}
	old := runs.Record{ID: "r", Status: stage.StatusRunning, Stages: []stage.Result{build, {Stage: "go", Verdict: stage.Invalid, Attempt: 1}}}
	if err := home.Run("r").WriteRecord(old); err != nil {
		t.Fatal(err)
	}
	a := newApp(&bytes.Buffer{}, &bytes.Buffer{}, func(string) string { return "" })
	a.terminals()
	at := attendance{id: "r", form: "json", config: worker.Config{Home: home}}
	ending := follow.Ending{Held: &workflows.Holding{Stage: "go", Reason: "boom"}, Stages: []workflows.StageState{
		{Name: "build", Phase: "ended", Verdict: stage.Passed, Attempt: 1},
		{Name: "go", Phase: "holding", Verdict: stage.Failed, Attempt: 2, Reason: "boom"},
		{Name: "gather", Phase: "pending"},
	}}
	rec := a.record(at, ending)
	if rec.Status != stage.StatusHolding || len(rec.Stages) != 2 || len(rec.Stages[0].Artifacts) != 1 || rec.Stages[1].Attempt != 2 {
		t.Errorf("%+v", rec)
	}
	if err := a.answer(at, ending); exitStatus(err) != exitFailed {
		t.Errorf("%v", err)
	}
	if heldVerdict(rec, "nowhere") != stage.Invalid {
		t.Error("a stage that isn't known has passed nothing")
	}
}

func TestOnlyHolds(t *testing.T) {
	state := func(status string, phases ...string) workflows.State {
		s := workflows.State{Status: status}
		for _, phase := range phases {
			s.Stages = append(s.Stages, workflows.StageState{Phase: phase})
		}
		return s
	}
	for _, c := range []struct {
		state workflows.State
		want  bool
	}{
		{state(stage.StatusHolding, workflows.PhaseEnded, workflows.PhaseHolding, workflows.PhasePending), true},
		{state(stage.StatusHolding, workflows.PhaseHolding, workflows.PhaseHolding), true},
		{state(stage.StatusHolding, workflows.PhaseHolding, workflows.PhaseRunning), false},
		{state(stage.StatusHolding, workflows.PhaseBackoff, workflows.PhaseHolding), false},
		{state(stage.StatusRunning, workflows.PhaseRunning), false},
	} {
		if got := onlyHolds(c.state); got != c.want {
			t.Errorf("%+v: %v", c.state, got)
		}
	}
}

func TestVersion(t *testing.T) {
	b := describe(&debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}},
		Deps:     []*debug.Module{{Path: "go.temporal.io/server", Version: "v1.32.1"}},
	})
	if text := b.String(); !strings.HasPrefix(text, "groundplan v1.2.3 0123456789ab (with changes), go") || !strings.HasSuffix(text, "Temporal v1.32.1") {
		t.Errorf("%q", text)
	}
	if text := describe(nil).String(); !strings.HasPrefix(text, "groundplan (devel), go") {
		t.Errorf("%q", text)
	}
}

func TestLanguage(t *testing.T) {
	for toolchain, want := range map[string]string{"go1.26.8": "1.26", "go1.27rc1": "1.27rc1", "devel": "1.26"} {
		if got := language(toolchain); got != want {
			t.Errorf("%s: %s, want %s", toolchain, got, want)
		}
	}
}

func TestAwaitReady(t *testing.T) {
	if err := awaitReady(t.Context(), strings.NewReader(`{"temporal":"127.0.0.1:1"}`)); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", `{"temporal":`} {
		if err := awaitReady(t.Context(), strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "ended before") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestDevSettings(t *testing.T) {
	a := newApp(nil, nil, nil)
	a.set["home"], a.set["redis"], a.set["temporal-api-key"], a.set["temporal"] = "rel", "redis://:secret@h", "key", ""
	args, env := a.devSettings()
	slices.Sort(env)
	if !slices.Equal(args, []string{"dev", "--until-idle", "--output", "json", "--temporal="}) {
		t.Errorf("arguments %q", args)
	}
	if len(env) != 3 || !strings.HasPrefix(env[0], "GROUNDPLAN_HOME=/") || env[1] != "GROUNDPLAN_REDIS=redis://:secret@h" || env[2] != "GROUNDPLAN_TEMPORAL_API_KEY=key" {
		t.Errorf("variables %q", env)
	}
}
