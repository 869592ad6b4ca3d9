package local

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/groundplan/groundplan/activities/sidecars"
	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/internal/golden"
	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/control"
)

// TestPlacementReasons compares what is said of placements that can't be with testdata/placements.golden.
func TestPlacementReasons(t *testing.T) {
	var got strings.Builder
	say := func(name, reason string) { fmt.Fprintf(&got, "%s\n\t%s\n", name, reason) }
	enough := machine{Memory: 16 << 30, Tasks: 100_000, Descriptors: 500_000}
	for _, c := range []struct {
		name   string
		counts []int
		memory pipelines.Size
		there  map[string]control.Counts
		m      machine
	}{
		{"fits", []int{1000}, 0, nil, enough},
		{"nothing is missing", []int{1000}, 64 << 30, map[string]control.Counts{"g": {Placed: 1000}}, machine{}},
		{"too little memory", []int{1000}, 64 << 20, nil, enough},
		{"a little memory", []int{1}, 64 << 20, nil, machine{Memory: 10 << 20, Tasks: -1, Descriptors: -1}},
		{"memory for those that are missing", []int{1000}, 64 << 20, map[string]control.Counts{"g": {Placed: 900}}, enough},
		{"less memory than a process needs", []int{10_000}, 1, nil, enough},
		{"too few processes", []int{1000}, 0, nil, machine{Memory: 16 << 30, Tasks: 4000, Descriptors: 500_000}},
		{"too few files", []int{1000, 1000}, 0, nil, machine{Memory: 16 << 30, Tasks: 100_000, Descriptors: 4096}},
		{"too few addresses", []int{70_000}, 0, nil, machine{Memory: -1, Tasks: -1, Descriptors: -1}},
		{"everything", []int{70_000}, 0, nil, machine{}},
	} {
		in := input("/plan", c.counts...)
		for i := range in.Groups {
			in.Groups[i].Memory = c.memory
		}
		say(c.name, shortage(in, sidecars.Names(in), control.Status{Groups: c.there}, c.m))
	}

	for name, change := range map[string]func(in *stage.Input){
		"no artifact":   func(in *stage.Input) { in.Artifacts = nil },
		"an image":      func(in *stage.Input) { in.Artifacts["plan"] = stage.Artifact{Image: "x"} },
		"a lost file":   func(in *stage.Input) { in.Artifacts["plan"] = stage.Artifact{Path: "/nowhere/plan"} },
		"another group": func(in *stage.Input) { in.Groups[0].Name = "other" },
	} {
		in := input("/bin/sh", 1)
		change(&in)
		if _, reason := placement(in, []string{"g"}); reason == "" {
			t.Errorf("%s: not refused", name)
		} else {
			t.Log(reason)
		}
	}
	golden.Compare(t, "testdata/placements.golden", got.String())
}

func TestProcess(t *testing.T) {
	self := &process{PID: os.Getpid(), Ticks: startTicks(os.Getpid())}
	later := &process{PID: os.Getpid(), Ticks: self.Ticks + 1}
	if !self.lives() || later.lives() || (&process{PID: 1 << 22}).lives() || (*process)(nil).lives() {
		t.Errorf("%+v lives: %v; another with its PID lives: %v", self, self.lives(), later.lives())
	}
}

func TestThisMachine(t *testing.T) {
	m, err := thisMachine()
	if err != nil || m.Memory <= 0 || m.Tasks <= 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{"PATH=/bin", "AWS_SECRET=x", "LC_ALL=C", "TMPDIR=/tmp", "GROUNDPLAN_REDIS=redis://:secret@x"})
	if want := []string{"PATH=/bin", "LC_ALL=C", "TMPDIR=/tmp"}; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %q", got)
	}
}
